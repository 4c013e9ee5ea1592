import json
from pathlib import Path

import numpy as np
import pytest
from report_store import publish, report_context

from vsel_platform.pipeline.product_checks import (
    ADAPTER_FILES,
    adapter_is_complete,
    every_content_has_a_vector,
    loss_fell,
    losses_are_finite,
)
from vsel_platform.pipeline.vector_stage import VectorStage
from vsel_platform.storage.vectors import VectorStore

STAGE = VectorStage(
    signal="image_embeddings",
    source="images",
    code="1",
    unit="images",
    fingerprint=lambda ctx: "abcdefabcdef",
    wanted=lambda ctx, shard: ["a", "b", "c"],
    compute=lambda ctx, shard, ids: iter(()),
)


@pytest.fixture
def ctx(tmp_path):
    return report_context(tmp_path)


def adapter(ctx, tmp_path: Path, *, left_out: str = "", losses: list | None = None):
    directory = tmp_path / "adapter"
    directory.mkdir()
    for name in {*ADAPTER_FILES} - {left_out}:
        (directory / name).write_text(name)
    if losses is not None:
        (directory / "losses.json").write_text(json.dumps(losses))
    return ctx.store.publish_artifact("reference_model", {"dataset": "shapes"}, directory)


def test_every_content_needs_a_vector_or_a_reason(ctx, tmp_path):
    ctx.__dict__["vectors"] = VectorStore(str(tmp_path / "store"))
    key = STAGE.partition(ctx, "one")
    ctx.vectors.replace_shard(STAGE.signal, key["fingerprint"], "one", ["a"], np.ones((1, 4), np.float32))
    found = every_content_has_a_vector(ctx, STAGE, "one")
    assert (found.passed, found.detail.endswith("2 have neither, first b")) == (False, True)
    failures = [{"content_id": i, "reason": "image_unreadable", "detail": "d"} for i in ("b", "c")]
    publish(ctx, "signal_failures", {"signal": STAGE.signal, **key}, failures)
    found = every_content_has_a_vector(ctx, STAGE, "one")
    assert found.passed
    assert found.detail == "3 wanted, 1 have a vector, 2 failed with a reason"


@pytest.mark.parametrize("name", ADAPTER_FILES)
def test_an_adapter_without_one_of_its_files_fails(ctx, tmp_path, name):
    found = adapter_is_complete(ctx, adapter(ctx, tmp_path, left_out=name))
    assert (found.passed, name in found.detail) == (False, True)


def test_a_file_that_vanished_from_the_store_is_missing(ctx, tmp_path):
    pointer = adapter(ctx, tmp_path)
    assert adapter_is_complete(ctx, pointer).passed
    weights = next(file for file in pointer.files if file.path.endswith(".safetensors"))
    Path(ctx.store.files.path(weights.path)).unlink()
    assert not adapter_is_complete(ctx, pointer).passed


@pytest.mark.parametrize(
    ("losses", "finite", "fell"),
    [
        ([4.0, 3.0, 2.0], True, True),
        ([2.0, 3.0, 4.0], True, False),
        ([4.0, None, 2.0], False, True),
        ([], False, True),
        (None, True, True),
    ],
)
def test_losses_are_checked_step_by_step(ctx, tmp_path, losses, finite, fell):
    pointer = adapter(ctx, tmp_path, losses=losses)
    assert (losses_are_finite(ctx, pointer).passed, loss_fell(ctx, pointer).passed) == (finite, fell)
