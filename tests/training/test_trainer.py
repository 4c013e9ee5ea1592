"""Steps of rows through transformers' Trainer."""

import json
import math

import pytest
import torch
from tiny_llava import conversation, picture, tiny_adapter

from vsel_platform.config_training import (
    LoraSettings,
    PrototypeSettings,
    RuntimeSettings,
    SelfQuestioningSettings,
    VisionLoraSettings,
)
from vsel_platform.errors import ModelError
from vsel_platform.models.images import ContentFailure
from vsel_platform.ranks import ALONE
from vsel_platform.signals.losses import LossRow
from vsel_platform.training import trainer as module
from vsel_platform.training.adapter import add_lora, parameter_groups
from vsel_platform.training.history import History
from vsel_platform.training.resumable import TRAINABLE_FILE
from vsel_platform.training.rows_loss import RowsLoss
from vsel_platform.training.runtime import placed, training_arguments
from vsel_platform.training.step_rows import StepLoader
from vsel_platform.training.trainer import RowsTrainer

SETTINGS = LoraSettings(
    rank=4, alpha=8, dropout=0.0, learning_rate=1e-2, projector_learning_rate=1e-3, batch_rows=4, order="random", seed=1
)
ROWS = [
    LossRow(
        f"row{i}", conversation("<image>\nWhat colour?", "red" if i % 2 else "It is white.", "Sure?", "Yes"), [f"i{i}"]
    )
    for i in range(8)
]
MANY = 10**6


@pytest.fixture
def made(tmp_path):
    """Makes trainers; they run in `tmp_path`."""
    loaders = []
    with placed("cpu", ALONE, RuntimeSettings(), "x"):

        def make(rows=ROWS, *, images=picture, batch_tokens=MANY, factor=lambda step: 1.0, **options):
            settings = SETTINGS.model_copy(update=options)
            with torch.random.fork_rng():
                torch.manual_seed(0)
                model = tiny_adapter()
                model.tower_gradients = settings.vision.rank > 0
                peft_model = add_lora(model.model, model.parts, settings, base_name="x")
            loaders.append(StepLoader(model, rows, settings, images, ALONE, keep_bytes=2**20))
            return RowsTrainer(
                RowsLoss(model, peft_model, joined=False),
                training_arguments(settings, RuntimeSettings(), tmp_path, "cpu", "x", ALONE, layer=""),
                len(loaders[-1].steps),
                loaders[-1].load,
                groups=lambda: parameter_groups(peft_model, model.parts, settings),
                factor=factor,
                batch_tokens=batch_tokens,
                limit=loaders[-1].limit,
                callbacks=[],
            )

        yield make
    for loader in loaders:
        loader.close()


def trained(trainer):
    trainer.train()
    return trainer.history


def test_parts_of_any_size_give_the_same_losses(made):
    whole, parts = (trained(made(batch_tokens=tokens, epochs=2.0)) for tokens in (MANY, 1))
    assert parts.loss == pytest.approx(whole.loss, rel=1e-4)
    assert len(whole.loss) == 4
    assert whole.loss[-1] < whole.loss[0]


def test_the_history_counts_what_passed(made):
    history = trained(made())
    assert history.rows == [4, 4]
    assert sum(history.tokens) == sum(len(tiny_adapter().render(row.turns, 1)) for row in ROWS)
    assert all(seconds > 0 for seconds in history.seconds)
    assert history.answer_loss == pytest.approx(history.loss)
    assert all(math.isnan(loss) for loss in history.question_loss)


def test_answers_and_questions_are_logged_apart(made):
    questions = SelfQuestioningSettings(ratio=1.0, question_weight=0.5)
    history = trained(made(self_questioning=questions))
    for total, answer, question in zip(history.loss, history.answer_loss, history.question_loss, strict=True):
        assert min(answer, question) <= total <= max(answer, question)
        assert answer != pytest.approx(question, rel=1e-3)


def test_the_rate_follows_the_factor(made):
    history = trained(made(factor=lambda step: 1 / (1 + step), epochs=2.0))
    assert history.learning_rate == pytest.approx([1e-2 / (1 + step) for step in range(4)])


def test_a_step_without_a_readable_image_changes_nothing(made):
    def gone(image_id):
        raise FileNotFoundError(image_id)

    trainer = made(images=gone, max_unusable=1.0)
    before = {name: p.clone() for name, p in trainer.model.named_parameters()}
    assert trained(trainer) == History()
    assert trainer.failed.keys() == {row.sample_id for row in ROWS}
    assert all(torch.equal(p, before[name]) for name, p in trainer.model.named_parameters())


TEXT = LossRow("text", conversation("What colour is it, and how many people are there?", "It is red. " * 9))


def test_a_part_of_texts_alone_passes_where_the_tower_is_trained(made):
    rows = [*ROWS[:3], TEXT]
    settings = {"vision": VisionLoraSettings(rank=2), "batch_rows": 4, "epochs": 2.0}
    whole, parts = (trained(made(rows, batch_tokens=tokens, **settings)) for tokens in (MANY, 1))
    assert parts.loss == pytest.approx(whole.loss, rel=1e-4)
    assert parts.rows == [4, 4]


def test_a_part_of_texts_alone_passes_where_the_projector_alone_is_trained(made):
    rows = [*ROWS[:3], TEXT]
    whole, parts = (trained(made(rows, batch_tokens=tokens, projector_only=True, epochs=2.0)) for tokens in (MANY, 1))
    assert parts.loss == pytest.approx(whole.loss, rel=1e-4)
    assert parts.loss[1] < parts.loss[0]


def test_a_step_of_texts_alone_leaves_the_projector_as_it_is(made):
    trainer = made([TEXT], projector_only=True)
    before = {name: p.clone() for name, p in trainer.model.named_parameters()}
    assert trained(trainer).rows == [1]
    assert all(torch.equal(p, before[name]) for name, p in trainer.model.named_parameters())


def test_a_loss_that_is_not_finite_stops(made):
    with pytest.raises(ModelError, match="the loss is not finite; lower learning_rate"):
        trained(made(factor=lambda step: 1e32, epochs=3.0))


def test_what_gets_no_gradient_is_named(made):
    trainer = made()
    layer = trainer.model.peft_model.get_submodule("base_model.model.model.vision_tower").encoder.layers[0].mlp.fc1
    layer.weight.requires_grad_(True)
    with pytest.raises(ModelError, match=r"1 tensors .* no gradient: .*layers\.0\.mlp\.fc1\.weight"):
        trained(trainer)


def test_a_state_holds_what_is_trained_and_the_history(made, tmp_path):
    trainer = made(epochs=2.0)
    history = trained(trainer)
    trainer.failed = {"row9": ContentFailure("row9", "image_missing", "image i9: gone")}
    trainer._save(str(tmp_path / "state"))
    other = made(epochs=2.0)
    other._load_from_checkpoint(str(tmp_path / "state"))
    other.recall(tmp_path / "state")
    for (name, p), (_, q) in zip(trainer.model.named_parameters(), other.model.named_parameters(), strict=True):
        torch.testing.assert_close(p, q, msg=name)
    assert other.failed == trainer.failed
    assert other.history.loss == history.loss
    assert all(math.isnan(loss) for loss in other.history.question_loss)
    size = (tmp_path / "state" / TRAINABLE_FILE).stat().st_size
    assert size < 4.5 * sum(p.numel() for p in trainer.model.parameters() if p.requires_grad) + 20_000


def failure(name):
    return ContentFailure(name, "image_missing", "gone")


@pytest.mark.parametrize("is_main", [True, False])
def test_the_first_process_takes_over_what_others_found_to_fail(made, monkeypatch, tmp_path, is_main):
    trainer = made()
    monkeypatch.setattr(type(trainer.accelerator), "is_main_process", is_main)
    own, other = failure("a"), failure("b")
    trainer.failed = {"a": own}
    monkeypatch.setattr(trainer, "_everyone", lambda items: [*items, other])
    trainer._save(str(tmp_path / "state"))
    assert trainer.failed == ({"a": own, "b": other} if is_main else {})
    trainer.failed = {}
    trainer.recall(tmp_path / "state")
    assert trainer.failed.keys() == ({"a", "b"} if is_main else set())


def test_a_row_that_failed_in_several_processes_counts_once(made, monkeypatch):
    trainer = made(max_unusable=0.25)  # two of eight rows
    monkeypatch.setattr(trainer, "_together", lambda values: [2 * value for value in values])
    monkeypatch.setattr(trainer, "_everyone", lambda items: [*items, *items])
    trainer.failed = {name: failure(name) for name in ("a", "b")}
    assert trained(trainer).loss
    trainer.failed["c"] = failure("c")
    with pytest.raises(ModelError, match=r"3 of 8 rows .* 37.5%"):
        trained(trainer)


def test_prototypes_are_looked_at_every_so_many_steps(made, monkeypatch):
    monkeypatch.setattr(module, "USAGE_EVERY", 2)
    history = trained(made(prototypes=PrototypeSettings(prototypes=2), epochs=2.0))
    assert [own["step"] for own in history.prototypes] == [0, 2]
    assert history.prototypes[0].keys() == {
        "step", "used", "entropy", "pairwise_cosine", "token_cosine", "spread"
    }  # fmt: skip
    assert trained(made()).prototypes == []


def test_trackers_are_told_of_the_steps_since_they_were_told_last(made):
    trainer = made(prototypes=PrototypeSettings(prototypes=2), epochs=2.0)
    told = []
    trainer.args.logging_steps = trainer.state.logging_steps = 2
    trainer.args.logging_strategy = "steps"
    trainer.add_callback(_Tracker(told))
    history = trained(trainer)
    first, second, summary = told
    assert first["loss"] == pytest.approx(sum(history.loss[:2]) / 2)
    assert second["answer_loss"] == pytest.approx(sum(history.answer_loss[2:]) / 2)
    assert second["learning_rate"] == history.learning_rate[-1]
    assert second["tokens_per_s"] == pytest.approx(sum(history.tokens[2:]) / sum(history.seconds[2:]))
    assert "question_loss" not in first
    assert 1 <= first["prototypes_used"] <= 2
    assert "loss" not in summary and "train_loss" in summary
    assert json.dumps(told)


class _Tracker(module.transformers.TrainerCallback):
    """Keeps what a tracker is told."""

    def __init__(self, told):
        self._told = told

    def on_log(self, args, state, control, logs=None, **kwargs):
        self._told.append(dict(logs))
