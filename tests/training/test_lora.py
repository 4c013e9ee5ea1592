"""LoRA training on a tiny model."""

import json
import warnings

import pytest
import torch
from safetensors.torch import load_file
from tiny_llava import conversation, picture, save_tiny, tiny_adapter

from vsel_platform.config import LoraSettings, VlmSettings
from vsel_platform.errors import ModelError, OutOfMemoryError
from vsel_platform.evaluation.exact_match import evaluate
from vsel_platform.models import batching
from vsel_platform.models.llava import load_llava
from vsel_platform.models.llava_forward import LlavaForward
from vsel_platform.signals.losses import LossRow
from vsel_platform.training import lora
from vsel_platform.training.lora import train_lora

ROWS = [
    LossRow(f"row{i:02}", conversation("<image>\nWhat colour?", ("red", "white")[i % 2], "Sure?", "Yes"), [f"i{i % 2}"])
    for i in range(12)
]
QUICK = LoraSettings(rank=4, alpha=8, learning_rate=1e-2, projector_learning_rate=1e-3, epochs=2, batch_rows=4, seed=1)


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
    report = train_lora(base, ROWS, settings, picture, tmp_path / "a", device="cpu")
    before = evaluate(load_llava(base, "cpu"), ROWS, picture)
    after = evaluate(load_llava(base, "cpu", adapter_dir=str(tmp_path / "a")), ROWS, picture)
    assert before[0].exact_match == 0
    assert after[0].exact_match == 1
    assert report.last_epoch_loss < 0.5 < report.first_epoch_loss
    assert after[0].loss_mean < before[0].loss_mean / 5


def test_the_report_counts(base, tmp_path):
    report = train_lora(base, ROWS, QUICK, picture, tmp_path / "a", device="cpu")
    assert (report.steps, report.rows, report.n_skipped) == (6, 12, 0)
    assert report.trainable_parameters == sum(
        t.numel() for t in load_file(tmp_path / "a" / "adapter_model.safetensors").values()
    )
    assert report.seconds > 0
    assert report.to_dict()["adapter_sha256"] == report.adapter_sha256


def test_the_loss_of_every_step_lies_beside_the_adapter(base, tmp_path):
    report = train_lora(base, ROWS, QUICK, picture, tmp_path / "a", device="cpu", origin={"recipe": "mine"})
    losses = json.loads((tmp_path / "a" / "losses.json").read_text())
    assert len(losses) == report.steps == 6
    assert report.first_epoch_loss == pytest.approx(sum(losses[:3]) / 3, rel=1e-5)
    assert report.last_epoch_loss == pytest.approx(sum(losses[3:]) / 3, rel=1e-5)
    card = (tmp_path / "a" / "README.md").read_text()
    assert "| recipe | mine |" in card
    assert f"{report.last_epoch_loss:.4f} nat/token" in card


def test_the_same_rows_in_any_order_give_the_same_bytes(base, tmp_path):
    for name, rows in (("a", ROWS), ("b", ROWS[::-1])):
        train_lora(base, rows, QUICK, picture, tmp_path / name, device="cpu")
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_another_seed_gives_another_adapter(base, tmp_path):
    reports = [
        train_lora(base, ROWS, QUICK.model_copy(update={"seed": seed}), picture, tmp_path / str(seed), device="cpu")
        for seed in (1, 2)
    ]
    assert reports[0].adapter_sha256 != reports[1].adapter_sha256


def test_training_leaves_torch_random_state_alone(base, tmp_path):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    train_lora(base, ROWS[:2], QUICK, picture, tmp_path / "a", device="cpu")
    assert torch.equal(torch.rand(3), expected)


def test_a_frozen_projector_is_not_in_the_adapter(base, tmp_path):
    settings = QUICK.model_copy(update={"projector_learning_rate": 0.0})
    train_lora(base, ROWS, settings, picture, tmp_path / "a", device="cpu")
    assert not any("projector" in name for name in load_file(tmp_path / "a" / "adapter_model.safetensors"))


def test_the_projector_moves_when_it_is_trained(base, tmp_path):
    train_lora(base, ROWS, QUICK, picture, tmp_path / "a", device="cpu")
    stored = load_file(tmp_path / "a" / "adapter_model.safetensors")
    name = next(key for key in stored if "linear_1.weight" in key)
    original = load_llava(base, "cpu").model.model.multi_modal_projector.linear_1.weight
    assert not torch.allclose(stored[name], original, atol=1e-5)


@pytest.mark.parametrize("cache_gib", [4.0, 0.0])
def test_images_pass_the_tower_once_while_they_fit_into_the_cache(base, tmp_path, monkeypatch, cache_gib):
    seen = []
    original = LlavaForward.tower_features
    monkeypatch.setattr(LlavaForward, "tower_features", lambda s, p: (seen.append(len(p)), original(s, p))[1])
    train_lora(base, ROWS, QUICK, picture, tmp_path / "a", device="cpu", feature_cache_gib=cache_gib)
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
    report = train_lora(base, [*ROWS, *bad], QUICK, images, tmp_path / "a", device="cpu")
    assert (report.rows, report.n_skipped) == (12, 3)
    assert "| rows left out (no answer, broken image) | 3 |" in (tmp_path / "a" / "README.md").read_text()


def test_part_of_an_epoch_trains_on_part_of_the_rows(base, tmp_path):
    settings = QUICK.model_copy(update={"epochs": 0.5})
    report = train_lora(base, ROWS, settings, picture, tmp_path / "a", device="cpu")
    assert (report.rows, report.n_skipped, report.steps) == (6, 0, 2)


def test_nothing_to_train_on_is_an_error_and_writes_nothing(base, tmp_path):
    with pytest.raises(ModelError, match="none of 1 rows has an answer"):
        train_lora(base, [LossRow("x", conversation("hi", ""))], QUICK, picture, tmp_path / "a", device="cpu")

    def gone(image_id):
        raise FileNotFoundError(image_id)

    with pytest.raises(ModelError, match="no row has a readable image"):
        train_lora(base, ROWS, QUICK, gone, tmp_path / "a", device="cpu")
    assert not (tmp_path / "a").exists()


def test_a_diverging_run_stops_with_advice(base, tmp_path):
    settings = QUICK.model_copy(update={"learning_rate": 1e30, "epochs": 9.0})
    with pytest.raises(ModelError, match="lower learning_rate"):
        train_lora(base, ROWS, settings, picture, tmp_path / "a", device="cpu")


def test_progress_counts_steps(base, tmp_path):
    seen = []
    train_lora(base, ROWS, QUICK, picture, tmp_path / "a", device="cpu", on_step=lambda *step: seen.append(step))
    assert seen == [(i, 6) for i in range(1, 7)]


def test_correct_use_prints_no_warning(base, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train_lora(base, ROWS[:4], QUICK, picture, tmp_path / "a", device="cpu")
        load_llava(base, "cpu", adapter_dir=str(tmp_path / "a"))


@pytest.fixture
def little_memory(monkeypatch):
    """Training batches of more than `fits[0]` tokens do not fit."""
    monkeypatch.setattr(batching, "free_memory", lambda: None)
    monkeypatch.setattr(lora, "free_memory", lambda: None)
    fits = [10**9]
    original = lora._Run._loss_sum

    def loss_sum(self, examples, features):
        if len(examples) * max(len(e.rendered) for e in examples) > fits[0]:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return original(self, examples, features)

    monkeypatch.setattr(lora._Run, "_loss_sum", loss_sum)
    return fits


def test_short_memory_takes_a_step_in_parts_with_the_same_result(base, tmp_path, little_memory):
    settings = QUICK.model_copy(update={"dropout": 0.0})
    whole = train_lora(base, ROWS, settings, picture, tmp_path / "a", device="cpu")
    little_memory[0] = 2 * len(tiny_adapter().render(ROWS[0].turns, 1))
    parts = train_lora(base, ROWS, settings, picture, tmp_path / "b", device="cpu")
    assert parts.last_epoch_loss == pytest.approx(whole.last_epoch_loss, abs=1e-4)


def test_a_row_that_does_not_fit_alone_is_named(base, tmp_path, little_memory):
    little_memory[0] = 10
    with pytest.raises(OutOfMemoryError, match=r"row row\d\d .* even alone"):
        train_lora(base, ROWS, QUICK, picture, tmp_path / "a", device="cpu")
