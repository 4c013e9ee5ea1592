"""LoRA on models of every family beside LLaVA-1.5."""

import pytest
import torch
from safetensors.torch import load_file
from tiny_families import picture, tiny_family

from vsel_platform.config import VlmSettings
from vsel_platform.config_training import LoraSettings, PrototypeSettings, SelfQuestioningSettings, VisionLoraSettings
from vsel_platform.errors import ModelError
from vsel_platform.models.families import FAMILIES
from vsel_platform.models.load import load_vlm
from vsel_platform.signals.losses import LossRow, answer_losses
from vsel_platform.training import lora
from vsel_platform.training.lora import TrainingJob, train_lora

ROWS = [
    LossRow("a", [("user", "<image>\nWhat colour is the bus?"), ("assistant", "It is red.")], ["p"]),
    LossRow("b", [("user", "<image>\nHow many people are there?"), ("assistant", "Two.")], ["q"]),
    LossRow("c", [("user", "<image>\n<image>\nWhich is red?"), ("assistant", "The dog.")], ["q", "p"]),
    LossRow("d", [("user", "What is a bus?"), ("assistant", "A car.")]),
]
CPU = TrainingJob(device="cpu")
FROZEN = LoraSettings(
    rank=4, alpha=8, dropout=0.0, learning_rate=1e-2, projector_learning_rate=0.0, epochs=1.0, batch_rows=2,
    order="random", seed=1,
)  # fmt: skip
WITH_PROJECTOR = FROZEN.model_copy(update={"projector_learning_rate": 1e-3})
WITH_TOWER = WITH_PROJECTOR.model_copy(update={"vision": VisionLoraSettings(rank=2, alpha=4, learning_rate=1e-2)})
PARTS = {"frozen projector": FROZEN, "projector": WITH_PROJECTOR, "projector and tower": WITH_TOWER}


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Settings of a tiny checkpoint by family, made when asked for."""
    made = {}

    def settings(family, **options):
        if family not in made:
            made[family] = str(tiny_family(family).save(tmp_path_factory.mktemp(family)))
        return VlmSettings(model=made[family], **{"dtype": "float32", "max_tokens": 1024, **options})

    return settings


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def trained_model(monkeypatch):
    """The models that trainings loaded, with their LoRA layers."""
    loaded = []
    monkeypatch.setattr(lora, "load_vlm", lambda *a, **k: loaded.append(load_vlm(*a, **k)) or loaded[-1])
    return loaded


def losses(model):
    return [value.loss_sum for batch in answer_losses(model, ROWS, picture) for value in batch.values]


@pytest.mark.parametrize("what", PARTS)
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_what_was_trained_is_what_is_loaded(bases, tmp_path, trained_model, family, what):
    settings, base = PARTS[what], bases(family)
    report = train_lora(base, ROWS, settings, picture, tmp_path / "a", CPU)
    assert (report.steps, report.rows, report.n_skipped) == (2, 4, 0)
    stored = load_file(tmp_path / "a" / "adapter_model.safetensors")
    parts = trained_model[0].parts
    moved = {name for name, value in stored.items() if "lora_B" in name and value.abs().sum() > 0}
    assert any(parts.language in name for name in moved)
    assert any(parts.tower in name for name in moved) == (settings.vision.rank > 0)
    saved_projectors = {p for p in parts.projectors for name in stored if p in name}
    assert saved_projectors == (set(parts.projectors) if settings.projector_learning_rate else set())
    before, after = losses(load_vlm(base, "cpu")), losses(load_vlm(base, "cpu", adapter_dir=str(tmp_path / "a")))
    assert max(abs(a - b) for a, b in zip(before, after, strict=True)) > 0.01
    assert after == pytest.approx(losses(trained_model[0]), abs=1e-4)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_projector_learns_in_float32_in_a_bfloat16_model(bases, tmp_path, trained_model, family):
    train_lora(bases(family, dtype="bfloat16"), ROWS, WITH_TOWER, picture, tmp_path / "a", CPU)
    stored = load_file(tmp_path / "a" / "adapter_model.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.float32}


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_gradient_checkpointing_changes_nothing(bases, tmp_path, family):
    one, other = (
        train_lora(
            bases(family),
            ROWS,
            WITH_TOWER.model_copy(update={"gradient_checkpointing": less}),
            picture,
            tmp_path / str(less),
            CPU,
        )
        for less in (False, True)
    )
    assert other.last_epoch_loss == pytest.approx(one.last_epoch_loss, abs=1e-4)


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"qwen3_vl"}))
def test_prototypes_are_trained_and_loaded(bases, tmp_path, trained_model, family):
    settings = WITH_PROJECTOR.model_copy(update={"prototypes": PrototypeSettings(prototypes=2)})
    train_lora(bases(family), ROWS, settings, picture, tmp_path / "a", CPU)
    stored = load_file(tmp_path / "a" / "adapter_model.safetensors")
    assert next(value for name, value in stored.items() if "gate" in name).abs().max() > 0
    tuned = load_vlm(bases(family), "cpu", adapter_dir=str(tmp_path / "a"))
    assert losses(tuned) == pytest.approx(losses(trained_model[0]), abs=1e-4)


@pytest.mark.parametrize("family", ["qwen3_vl", "llava_next", "smolvlm"])
def test_the_virtual_user_can_have_a_token_of_its_own(bases, tmp_path, trained_model, family):
    questions = SelfQuestioningSettings(ratio=1.0, dedicated_token=True)
    talk = [*ROWS[0].turns, ("user", "How many people?"), ("assistant", "Two.")]
    rows = [LossRow("a", talk, ["p"]), LossRow("b", talk, ["q"])]
    settings = FROZEN.model_copy(update={"self_questioning": questions})
    report = train_lora(bases(family), rows, settings, picture, tmp_path / "a", CPU)
    assert report.n_questions == 2
    tuned = load_vlm(bases(family), "cpu", adapter_dir=str(tmp_path / "a"))
    own = tuned.use_dedicated_token()
    assert own in tuned.render_question_prompt([("user", "What?"), ("assistant", "Red.")], 0).input_ids
    with torch.no_grad():
        found = [model.token_embeddings(torch.tensor([own])) for model in (tuned, trained_model[0])]
    torch.testing.assert_close(*found)
    assert losses(tuned) == pytest.approx(losses(trained_model[0]), abs=1e-4)


def test_prototypes_before_several_projectors_are_refused(bases, tmp_path):
    settings = WITH_PROJECTOR.model_copy(update={"prototypes": PrototypeSettings(prototypes=2)})
    with pytest.raises(ModelError, match="needs a model with one projector"):
        train_lora(bases("qwen3_vl"), ROWS, settings, picture, tmp_path / "a", CPU)
