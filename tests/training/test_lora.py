"""LoRA training on a tiny model."""

import json
import warnings
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from tiny_llava import conversation, picture, save_tiny, tiny_adapter

from vsel_platform.config import VlmSettings
from vsel_platform.config_training import (
    LoraSettings,
    PrototypeSettings,
    RuntimeSettings,
    SelfQuestioningSettings,
    VisionLoraSettings,
)
from vsel_platform.errors import ModelError, OutOfMemoryError
from vsel_platform.evaluation.exact_match import evaluate
from vsel_platform.models.llava import load_llava
from vsel_platform.models.llava_forward import LlavaForward
from vsel_platform.models.load import load_vlm
from vsel_platform.signals.losses import LossRow
from vsel_platform.storage.files import FileStore
from vsel_platform.training import lora, trainer
from vsel_platform.training.history import History
from vsel_platform.training.lora import TrainingJob, train_lora
from vsel_platform.training.resume import TrainingStates
from vsel_platform.training.rows_loss import RowsLoss

ROWS = [
    LossRow(f"row{i:02}", conversation("<image>\nWhat colour?", ("red", "white")[i % 2], "Sure?", "Yes"), [f"i{i % 2}"])
    for i in range(12)
]
CPU = TrainingJob(device="cpu")
QUICK = LoraSettings(
    order="random", rank=4, alpha=8, learning_rate=1e-2, projector_learning_rate=1e-3, epochs=2, batch_rows=4, seed=1
)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return VlmSettings(model=str(save_tiny(tmp_path_factory.mktemp("base"))), dtype="float32")


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def files(directory):
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def test_training_learns_the_answers(base, tmp_path):
    settings = QUICK.model_copy(update={"epochs": 20.0})
    report = train_lora(base, ROWS, settings, picture, tmp_path / "a", CPU)
    before = evaluate(load_llava(base, "cpu"), ROWS, picture)
    after = evaluate(load_llava(base, "cpu", adapter_dir=str(tmp_path / "a")), ROWS, picture)
    assert before[0].exact_match == 0
    assert after[0].exact_match == 1
    assert report.last_epoch_loss < 0.5 < report.first_epoch_loss
    assert after[0].loss_mean < before[0].loss_mean / 5


def test_the_report_counts(base, tmp_path):
    report = train_lora(base, ROWS, QUICK, picture, tmp_path / "a", CPU)
    assert (report.steps, report.rows, report.n_skipped) == (6, 12, 0)
    assert report.trainable_parameters == sum(
        t.numel() for t in load_file(tmp_path / "a" / "adapter_model.safetensors").values()
    )
    assert report.seconds > 0
    assert report.to_dict()["adapter_sha256"] == report.adapter_sha256


def test_the_loss_of_every_step_lies_beside_the_adapter(base, tmp_path):
    report = train_lora(base, ROWS, QUICK, picture, tmp_path / "a", CPU, origin={"recipe": "mine"})
    losses = json.loads((tmp_path / "a" / "losses.json").read_text())["loss"]
    assert len(losses) == report.steps == 6
    assert report.first_epoch_loss == pytest.approx(sum(losses[:3]) / 3, rel=1e-5)
    assert report.last_epoch_loss == pytest.approx(sum(losses[3:]) / 3, rel=1e-5)
    card = (tmp_path / "a" / "README.md").read_text()
    assert "| recipe | mine |" in card
    assert f"{report.last_epoch_loss:.4f} nat/token" in card


def test_the_same_rows_in_any_order_give_the_same_bytes(base, tmp_path):
    for name, rows in (("a", ROWS), ("b", ROWS[::-1])):
        train_lora(base, rows, QUICK, picture, tmp_path / name, CPU)
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_another_seed_gives_another_adapter(base, tmp_path):
    reports = [
        train_lora(base, ROWS, QUICK.model_copy(update={"seed": seed}), picture, tmp_path / str(seed), CPU)
        for seed in (1, 2)
    ]
    assert reports[0].adapter_sha256 != reports[1].adapter_sha256


def test_training_leaves_torch_random_state_alone(base, tmp_path):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    train_lora(base, ROWS[:2], QUICK, picture, tmp_path / "a", CPU)
    assert torch.equal(torch.rand(3), expected)


def test_a_frozen_projector_is_not_in_the_adapter(base, tmp_path):
    settings = QUICK.model_copy(update={"projector_learning_rate": 0.0})
    train_lora(base, ROWS, settings, picture, tmp_path / "a", CPU)
    assert not any("projector" in name for name in load_file(tmp_path / "a" / "adapter_model.safetensors"))


def test_the_projector_moves_when_it_is_trained(base, tmp_path):
    train_lora(base, ROWS, QUICK, picture, tmp_path / "a", CPU)
    stored = load_file(tmp_path / "a" / "adapter_model.safetensors")
    name = next(key for key in stored if "linear_1.weight" in key)
    original = load_llava(base, "cpu").model.model.multi_modal_projector.linear_1.weight
    assert not torch.allclose(stored[name], original, atol=1e-5)


@pytest.mark.parametrize("cache_gib", [4.0, 0.0])
def test_images_pass_the_tower_once_while_they_fit_into_the_cache(base, tmp_path, monkeypatch, cache_gib):
    seen = []
    original = LlavaForward.tower_features
    monkeypatch.setattr(LlavaForward, "tower_features", lambda s, p: (seen.append(len(p)), original(s, p))[1])
    train_lora(base, ROWS, QUICK, picture, tmp_path / "a", TrainingJob(device="cpu", feature_cache_gib=cache_gib))
    passes = sum(seen) - 1  # one blank picture, from which the number of image tokens is found
    assert passes == 2 if cache_gib else passes > 2


def test_rows_that_cannot_be_trained_on_are_left_out_and_counted(base, tmp_path):
    def images(image_id):
        if image_id == "gone":
            raise FileNotFoundError(image_id)
        return picture(image_id)

    bad = [
        LossRow("x1", conversation("hi", "")),
        LossRow("x2", conversation("hi", "there"), ["i0"]),
        LossRow("x3", conversation("<image>\nhi", "there"), ["gone"]),
    ]
    with pytest.raises(ModelError, match=r"2 of 15 rows cannot be learned from, 13.3%.*nothing_to_learn.* row x1"):
        train_lora(base, [*ROWS, *bad], QUICK, images, tmp_path / "a", CPU)
    patient = QUICK.model_copy(update={"max_unusable": 0.2})
    report = train_lora(base, [*ROWS, *bad], patient, images, tmp_path / "a", CPU)
    assert (report.rows, report.n_skipped) == (12, 3)
    assert "| rows left out (no answer, broken image) | 3 |" in (tmp_path / "a" / "README.md").read_text()


@pytest.mark.parametrize("batch_rows", [1, 64])
def test_too_many_broken_images_stop_a_training(base, tmp_path, batch_rows):
    def images(image_id):
        if image_id == "gone":
            raise FileNotFoundError(image_id)
        return picture(image_id)

    bad = [LossRow(f"x{i}", conversation("<image>\nhi", "there"), ["gone"]) for i in range(4)]
    settings = QUICK.model_copy(update={"max_unusable": 0.2, "batch_rows": batch_rows})
    assert train_lora(base, [*ROWS, *bad[:3]], settings, images, tmp_path / "a", CPU).n_skipped == 3
    with pytest.raises(ModelError, match=r"4 of 16 rows .* 25.0%.*image_missing, such as row x0: image gone: .*back"):
        train_lora(base, [*ROWS, *bad], settings, images, tmp_path / "b", CPU)
    assert not (tmp_path / "b").exists()


def test_part_of_an_epoch_trains_on_part_of_the_rows(base, tmp_path):
    settings = QUICK.model_copy(update={"epochs": 0.5})
    report = train_lora(base, ROWS, settings, picture, tmp_path / "a", CPU)
    assert (report.rows, report.n_skipped, report.steps) == (6, 0, 2)


def test_nothing_to_train_on_is_an_error_and_writes_nothing(base, tmp_path):
    with pytest.raises(ModelError, match="none of 1 rows has an answer"):
        train_lora(base, [LossRow("x", conversation("hi", ""))], QUICK, picture, tmp_path / "a", CPU)

    def gone(image_id):
        raise FileNotFoundError(image_id)

    patient = QUICK.model_copy(update={"max_unusable": 1.0})
    with pytest.raises(ModelError, match="no row has a readable image"):
        train_lora(base, ROWS, patient, gone, tmp_path / "a", CPU)
    assert not (tmp_path / "a").exists()


def test_a_diverging_run_stops_with_advice(base, tmp_path):
    settings = QUICK.model_copy(update={"learning_rate": 1e30, "epochs": 9.0})
    with pytest.raises(ModelError, match="lower learning_rate"):
        train_lora(base, ROWS, settings, picture, tmp_path / "a", CPU)


def test_progress_counts_steps(base, tmp_path):
    seen = []
    train_lora(
        base, ROWS, QUICK, picture, tmp_path / "a", TrainingJob(device="cpu", on_step=lambda *step: seen.append(step))
    )
    assert seen == [(i, 6) for i in range(1, 7)]


def test_correct_use_prints_no_warning(base, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train_lora(base, ROWS[:4], QUICK, picture, tmp_path / "a", CPU)
        load_llava(base, "cpu", adapter_dir=str(tmp_path / "a"))


@pytest.fixture
def little_memory(monkeypatch):
    """Training batches of more than `fits[0]` tokens do not fit."""
    monkeypatch.setattr(trainer, "free_memory", lambda: None)
    fits = [10**9]
    original = RowsLoss.forward

    def forward(self, part):
        if len(part.rows) * max(len(row.rendered) for row in part.rows) > fits[0]:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return original(self, part)

    monkeypatch.setattr(RowsLoss, "forward", forward)
    return fits


def test_short_memory_takes_a_step_in_parts_with_the_same_result(base, tmp_path, little_memory):
    settings = QUICK.model_copy(update={"dropout": 0.0})
    whole = train_lora(base, ROWS, settings, picture, tmp_path / "a", CPU)
    little_memory[0] = 2 * len(tiny_adapter().render(ROWS[0].turns, 1))
    parts = train_lora(base, ROWS, settings, picture, tmp_path / "b", CPU)
    assert parts.last_epoch_loss == pytest.approx(whole.last_epoch_loss, abs=1e-4)


def test_a_row_that_does_not_fit_alone_is_named(base, tmp_path, little_memory):
    little_memory[0] = 10
    with pytest.raises(OutOfMemoryError, match=r"row row\d\d .* even alone"):
        train_lora(base, ROWS, QUICK, picture, tmp_path / "a", CPU)


class KilledError(Exception):
    pass


def resumable(store, kill_after=None):
    """A training that keeps a state after every step, and dies after so many."""

    def on_step(step, total):
        if step == kill_after:
            raise KilledError

    states = TrainingStates(FileStore(str(store)), "training/x")
    runtime = RuntimeSettings(checkpoint_minutes=0)
    return TrainingJob(device="cpu", states=states, runtime=runtime, on_step=on_step)


@pytest.mark.parametrize("kill_after", [2, 5])
def test_a_killed_training_resumes_to_the_same_bytes(base, tmp_path, kill_after):
    settings = QUICK.model_copy(update={"dropout": 0.3})
    whole = train_lora(base, ROWS, settings, picture, tmp_path / "a", CPU)
    with pytest.raises(KilledError):
        train_lora(base, ROWS, settings, picture, tmp_path / "b", resumable(tmp_path / "store", kill_after))
    resumed = train_lora(base, ROWS, settings, picture, tmp_path / "b", resumable(tmp_path / "store"))
    # The state after the step that killed it was not written yet.
    assert resumed.resumed_at == kill_after - 1
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert (whole.steps, whole.resumed_at) == (resumed.steps, 0) == (6, 0)


def test_the_time_before_a_kill_counts():
    history = History(loss=[1.0] * 4, rows=[1] * 4, tokens=[1] * 4, seconds=[8.0, 4.0, 2.0, 1.0])
    loader = SimpleNamespace(plan=SimpleNamespace(rows=["a"]), rows=["a"])
    run = SimpleNamespace(loader=loader, trained=["a"], trainable_parameters=1, resumed_at=2, questions=[])
    report = lora._report(run, history, ["a"], QUICK, (5.0, 3.0))
    assert (report.seconds, report.training_seconds) == (5.0 + 12.0, 3.0 + 12.0)


def test_a_half_written_state_is_not_resumed_from(base, tmp_path):
    job = resumable(tmp_path / "store", kill_after=3)
    with pytest.raises(KilledError):
        train_lora(base, ROWS, QUICK, picture, tmp_path / "a", job)
    (whole,) = (tmp_path / "store").rglob("whole")
    whole.unlink()
    assert train_lora(base, ROWS, QUICK, picture, tmp_path / "a", resumable(tmp_path / "store")).resumed_at == 0


def test_a_state_of_a_model_that_was_shared_otherwise_is_not_resumed_from(base, tmp_path, monkeypatch):
    job = resumable(tmp_path / "store", kill_after=3)
    with pytest.raises(KilledError):
        train_lora(base, ROWS, QUICK, picture, tmp_path / "a", job)
    monkeypatch.setattr(lora, "state_kind", lambda runtime, share: "fsdp-2-x")
    assert train_lora(base, ROWS, QUICK, picture, tmp_path / "a", resumable(tmp_path / "store")).resumed_at == 0


def test_the_mean_of_groups_of_rows_is_another_loss_than_the_mean_of_all_tokens(base, tmp_path):
    rows = [LossRow("short", conversation("hi", "red")), LossRow("long", conversation("hi", "red and white " * 9))]
    losses = {}
    for mean_rows in (0, 1, 2):
        settings = QUICK.model_copy(update={"mean_rows": mean_rows, "epochs": 1.0, "batch_rows": 2, "dropout": 0.0})
        losses[mean_rows] = train_lora(base, rows, settings, picture, tmp_path / "a", CPU).first_epoch_loss
    assert losses[0] == pytest.approx(losses[2])
    assert losses[1] != pytest.approx(losses[0], rel=1e-3)


def test_lora_in_the_tower_gets_gradients_and_moves(base, tmp_path):
    settings = QUICK.model_copy(update={"vision": VisionLoraSettings(rank=2, alpha=4, learning_rate=1e-2)})
    report = train_lora(base, ROWS, settings, picture, tmp_path / "a", CPU)
    stored = load_file(tmp_path / "a" / "adapter_model.safetensors")
    vision = {name: value for name, value in stored.items() if "vision_tower" in name}
    assert {name for name in vision if "lora_B" in name}
    assert all(value.abs().sum() > 0 for name, value in vision.items() if "lora_B" in name)
    # The tower has two layers; hidden_states[-2] is what comes out of the first.
    assert all(".layers.0." in name for name in vision)
    assert {value.shape[0] for name, value in vision.items() if "lora_A" in name} == {2}
    tuned = load_llava(base, "cpu", adapter_dir=str(tmp_path / "a"))
    assert evaluate(tuned, ROWS, picture)[0].loss_mean == pytest.approx(report.last_epoch_loss, abs=1.0)


def test_a_layer_that_gets_no_gradient_is_named(base, tmp_path):
    settings = QUICK.model_copy(update={"vision": VisionLoraSettings(rank=2, targets=r".*layers\.1\..*q_proj")})
    with pytest.raises(ModelError, match=r"get no gradient: .*vision_tower.*layers\.1"):
        train_lora(base, ROWS, settings, picture, tmp_path / "a", CPU)


def test_the_projector_alone_can_be_trained(base, tmp_path):
    settings = QUICK.model_copy(update={"projector_only": True})
    train_lora(base, ROWS, settings, picture, tmp_path / "a", CPU)
    names = load_file(tmp_path / "a" / "adapter_model.safetensors")
    assert names and all("multi_modal_projector" in name for name in names)
    load_llava(base, "cpu", adapter_dir=str(tmp_path / "a"))


def test_the_projector_alone_learns_nothing_without_images(base, tmp_path):
    settings = QUICK.model_copy(update={"projector_only": True, "max_unusable": 1.0})
    text = LossRow("text", conversation("hi", "there"))
    with pytest.raises(ModelError, match="projector_only trains nothing without images"):
        train_lora(base, [text], settings, picture, tmp_path / "a", CPU)

    def gone(image_id):
        raise FileNotFoundError(image_id)

    with pytest.raises(ModelError, match="projector_only trains nothing without images"):
        train_lora(base, [*ROWS, text], settings, gone, tmp_path / "a", CPU)


def test_a_training_goes_on_from_another_adapter(base, tmp_path):
    first = train_lora(base, ROWS, QUICK.model_copy(update={"epochs": 20.0}), picture, tmp_path / "a", CPU)
    second = train_lora(base, ROWS, QUICK, picture, tmp_path / "b", CPU, start_from=str(tmp_path / "a"))
    assert second.first_epoch_loss < first.first_epoch_loss / 2


def test_gradient_checkpointing_changes_nothing(base, tmp_path):
    settings = QUICK.model_copy(update={"dropout": 0.0})
    plain = train_lora(base, ROWS, settings, picture, tmp_path / "a", CPU)
    less = train_lora(
        base, ROWS, settings.model_copy(update={"gradient_checkpointing": True}), picture, tmp_path / "b", CPU
    )
    assert less.last_epoch_loss == pytest.approx(plain.last_epoch_loss, abs=1e-4)


def dialogue(i):
    words = conversation(
        "<image>\nWhat colour?", ("red", "white")[i % 2], "Is it two people?", "Yes", "And a dog?", "No"
    )
    return LossRow(f"row{i:02}", words, [f"i{i % 2}"])


def test_self_questioning_learns_questions_and_logs_their_loss_apart(base, tmp_path):
    rows = [dialogue(i) for i in range(12)]
    settings = QUICK.model_copy(
        update={"self_questioning": SelfQuestioningSettings(ratio=0.5), "epochs": 12.0, "dropout": 0.0}
    )
    report = train_lora(base, rows, settings, picture, tmp_path / "a", CPU)
    losses = json.loads((tmp_path / "a" / "losses.json").read_text())
    asked = [json.loads(line) for line in (tmp_path / "a" / "asked_questions.jsonl").read_text().splitlines()]
    assert report.n_questions == len(asked) and 90 < len(asked) < 200  # 12 rows, 2 questions, 12 epochs, half of them
    assert {turn for _, _, turn in asked} == {2, 4}
    assert sum(losses["question_loss"][-3:]) < sum(losses["question_loss"][:3]) / 3
    assert losses["answer_loss"] != losses["question_loss"]


def test_the_virtual_user_can_have_a_token_of_its_own(base, tmp_path, monkeypatch):
    loaded = []
    monkeypatch.setattr(lora, "load_vlm", lambda *a, **k: loaded.append(load_vlm(*a, **k)) or loaded[-1])
    questions = SelfQuestioningSettings(ratio=0.5, dedicated_token=True)
    settings = QUICK.model_copy(update={"self_questioning": questions})
    rows = [dialogue(i) for i in range(12)]
    train_lora(base, rows, settings, picture, tmp_path / "a", CPU)
    assert json.loads((tmp_path / "a" / "vsel.json").read_text())["dedicated_token"] is True
    stored = load_file(tmp_path / "a" / "adapter_model.safetensors")
    assert [value.shape for name, value in stored.items() if "trainable_tokens" in name] == [(1, 32)]
    tuned = load_llava(base, "cpu", adapter_dir=str(tmp_path / "a"))
    own = tuned.use_dedicated_token()
    assert tuned.render_question_prompt(rows[0].turns[:2], 1).input_ids[-1] == own
    wrapped, merged = (embedding(model, own) for model in (loaded[0], tuned))
    torch.testing.assert_close(wrapped, merged)
    # Trained again on top, the token is there already.
    again = QUICK.model_copy(update={"epochs": 1.0})
    train_lora(base, rows, again, picture, tmp_path / "b", CPU, start_from=str(tmp_path / "a"))


def embedding(model, token):
    with torch.no_grad():
        return model.token_embeddings(torch.tensor([token]))


def test_without_questions_their_loss_is_missing(base, tmp_path):
    train_lora(base, ROWS, QUICK, picture, tmp_path / "a", CPU)
    losses = json.loads((tmp_path / "a" / "losses.json").read_text())
    assert set(losses["question_loss"]) == {None}
    assert not (tmp_path / "a" / "asked_questions.jsonl").exists()


def test_prototypes_are_trained_saved_and_loaded(base, tmp_path):
    settings = QUICK.model_copy(update={"prototypes": PrototypeSettings(prototypes=2), "epochs": 4.0})
    report = train_lora(base, ROWS, settings, picture, tmp_path / "a", CPU)
    stored = load_file(tmp_path / "a" / "adapter_model.safetensors")
    gate = next(value for name, value in stored.items() if "gate" in name)
    assert gate.abs().max() > 0
    (usage,) = json.loads((tmp_path / "a" / "losses.json").read_text())["prototypes"]
    assert usage["step"] == 0 and 1 <= usage["used"] <= 2
    assert report.prototypes["pairwise_cosine"] == pytest.approx(usage["pairwise_cosine"], rel=1e-5)
    tuned = load_llava(base, "cpu", adapter_dir=str(tmp_path / "a"))
    assert evaluate(tuned, ROWS, picture)[0].loss_mean == pytest.approx(report.last_epoch_loss, abs=1.0)
