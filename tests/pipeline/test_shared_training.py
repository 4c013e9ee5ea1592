"""A training that several processes share learns what one process does."""

import os

import orjson
import pytest
import torch
from safetensors.torch import load_file

from vsel_platform.errors import ModelError
from vsel_platform.pipeline.artifacts import fetched
from vsel_platform.worker import Job, run_job

LORA = {
    "rank": 4,
    "alpha": 8,
    "dropout": 0.0,
    "learning_rate": 1e-2,
    "projector_learning_rate": 1e-3,
    "batch_rows": 6,
    "order": "random",
    "mean_rows": 0,
    "max_unusable": 1.0,
}
COMPUTE = {"backend": "in_process", "device": "cpu", "threads": 1}


def settings(processes, **lora):
    return {
        "benchmarks": {},
        "compute": COMPUTE | {"processes": processes},
        "training": {"lora": LORA | lora, "runtime": {"checkpoint_minutes": 0.0}},
    }


@pytest.fixture(scope="module")
def selected(make_project):
    """A project with a selection of 24 rows, with and without images."""
    project = make_project("shared_training")
    project.drive(["random"], settings(1))
    return project


class KilledError(Exception):
    pass


def trained(project, processes, progress=lambda message, done, total: None, **lora):
    """(report, losses of every step, weights) of a checkpoint trained anew."""
    ctx = project.context(settings(processes, **lora))
    result = run_job(Job(stage="finetuned_checkpoint", key="random", project=ctx.project), progress)
    with fetched(ctx, ctx.store.require("finetuned_checkpoint", {"recipe": "random"})) as directory:
        losses = orjson.loads((directory / "losses.json").read_bytes())
        return result.metadata, losses, load_file(directory / "adapter_model.safetensors")


def test_two_processes_learn_what_one_does_and_the_first_publishes(selected):
    (report, losses, weights), (shared, own_losses, own_weights) = (trained(selected, n) for n in (1, 2))
    assert report["rows"] == shared["rows"] == 24
    assert own_losses["rows"] == losses["rows"] == [6, 6, 6, 6]
    assert own_losses["tokens"] == losses["tokens"]
    for name in ("loss", "answer_loss"):
        assert own_losses[name] == pytest.approx(losses[name], rel=1e-4)
    assert weights.keys() == own_weights.keys()
    for name, value in weights.items():
        torch.testing.assert_close(own_weights[name], value, rtol=1e-3, atol=1e-4)
    files = selected.context(settings(1)).store.files
    assert list(files.list("work")) == []  # states of both are gone
    assert len([name for name, _ in files.list("finetuned_checkpoint") if name.endswith("losses.json")]) <= 2


def test_a_training_follows_another_in_one_process(selected):
    """Nothing of a group or of other settings is left behind."""
    alone = trained(selected, 1, seed=5)
    trained(selected, 2, seed=6)
    assert "RANK" not in os.environ
    assert not torch.distributed.is_initialized()
    again = trained(selected, 1, seed=5)
    assert alone[0]["adapter_sha256"] == again[0]["adapter_sha256"]


def test_a_killed_group_resumes_to_the_same_bytes(selected):
    def killed(message, done, total):
        if message == "training steps" and done == 3:
            raise KilledError

    with pytest.raises(KilledError):
        trained(selected, 2, killed, dropout=0.3, seed=8)
    resumed = trained(selected, 2, dropout=0.3, seed=8)
    assert resumed[0]["resumed_at"] == 2
    straight = trained(selected, 2, dropout=0.3, seed=8)
    assert straight[0]["resumed_at"] == 0
    assert resumed[0]["adapter_sha256"] == straight[0]["adapter_sha256"]


def state_of_a_killed(project, processes, **lora):
    """Rows that failed until a training was killed, as its state knows them."""

    def killed(message, done, total):
        if message == "training steps" and done == 3:
            raise KilledError

    with pytest.raises(KilledError):
        trained(project, processes, killed, **lora)
    files = project.context(settings(1)).store.files
    (name,) = [name for name, _ in files.list("work") if name.endswith("history.json")]
    failed = orjson.loads(files.read(name))[1]
    files.delete_tree("work")
    return {failure["content_id"] for failure in failed}


def test_a_state_knows_the_rows_that_failed_in_every_process(selected):
    """All rows with images fail, those without are trained on."""
    images = selected.pictures / "images"
    away = images.rename(images.with_name("away"))
    try:
        alone = state_of_a_killed(selected, 1, seed=9)
        assert len(alone) > 6
        assert state_of_a_killed(selected, 2, seed=9) == alone
        with pytest.raises(ModelError, match=r"\d+ of 24 rows .*image_missing, such as row"):
            trained(selected, 2, seed=9, max_unusable=0.3)
    finally:
        away.rename(images)


def test_a_layer_without_a_gradient_is_named_in_a_group_too(selected):
    vision = {"rank": 2, "targets": r".*layers\.1\..*q_proj"}
    for processes in (1, 2):
        with pytest.raises(ModelError, match=r"2 tensors .* get no gradient: .*vision_tower.*layers\.1"):
            trained(selected, processes, vision=vision)


def test_an_error_in_a_group_is_the_jobs_error(selected):
    with pytest.raises(ModelError, match="lower learning_rate"):
        trained(selected, 2, learning_rate=1e30, epochs=4.0)
    assert not torch.distributed.is_initialized()
