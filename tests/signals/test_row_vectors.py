"""Vectors on the way of a pass for losses against the passes of their own signals."""

import numpy as np
import pytest
import torch
from tiny_families import picture as family_picture
from tiny_families import tiny_family
from tiny_llava import conversation, picture, tiny_adapter, tiny_model

from vsel_platform.models import batching
from vsel_platform.signals.hidden_states import pooled_hidden_states
from vsel_platform.signals.losses import ALL_CONDITIONS, LossRow, answer_losses
from vsel_platform.signals.row_vectors import RowVectors
from vsel_platform.signals.vision_representations import vision_representations

ADAPTER = tiny_adapter(model=tiny_model(layers=3))
ROWS = [
    *(
        LossRow(f"r{i}", conversation("<image>\nWhat?" + " And why?" * i, "It is red."), [f"image{i % 2}"])
        for i in range(5)
    ),
    LossRow("double", conversation("<image> and <image>\nwhich one?", "The dog."), ["image0", "image7"]),
    LossRow("late", conversation("Of what colour is it?\n<image>", "Blue."), ["image1"]),
    LossRow("text", conversation("What is a bus?", "A car.")),
]
BOTH = RowVectors(hidden_layers=(1, 3), attention_share=0.9)


def passed(vectors, *, model=ADAPTER, rows=ROWS, images=picture, **options):
    """Losses by (row, condition), vectors by (row, signal)."""
    batches = list(answer_losses(model, rows, images, conditions=ALL_CONDITIONS, vectors=vectors, **options))
    losses = {(v.sample_id, v.condition): v.loss_sum for batch in batches for v in batch.values}
    found = {(row, name): v for batch in batches for row, own in batch.vectors.items() for name, v in own.items()}
    return losses, found


def apart(model=ADAPTER, rows=ROWS, images=picture, layers=(1, 3), share=0.9):
    """The same vectors, each signal by itself."""
    found = {}
    for batch in pooled_hidden_states(model, rows, images, layers=layers):
        found |= {(v.sample_id, "hidden_states"): v.vector for v in batch.values}
    for batch in vision_representations(model, rows, images, threshold=share):
        found |= {(v.sample_id, "vision_representations"): v.vector for v in batch.values}
    return found


def assert_same(found, expected):
    assert set(found) == set(expected)
    for key, vector in expected.items():
        np.testing.assert_allclose(found[key], vector, atol=1e-5, err_msg=str(key))


def test_a_pass_for_losses_gives_the_vectors_of_both_signals_and_the_same_losses():
    losses, found = passed(BOTH)
    assert_same(found, apart())
    assert len(found) == 2 * len(ROWS) - 1  # a row without an image has no representation
    plain, nothing = passed(None)
    assert nothing == {}
    assert losses == pytest.approx(plain, abs=1e-6)


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (RowVectors(hidden_layers=()), {"hidden_states"}),
        (RowVectors(attention_share=0.5), {"vision_representations"}),
        (RowVectors(), set()),
    ],
)
def test_only_what_is_wanted_is_taken(wanted, names):
    _, found = passed(wanted)
    assert {name for _, name in found} == names
    expected = apart(layers=(), share=0.5)
    assert_same(found, {key: vector for key, vector in expected.items() if key[1] in names})


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl", "smolvlm"])
def test_other_families_give_them_too(name):
    model = tiny_family(name).adapter()
    _, found = passed(BOTH, model=model, images=family_picture)
    assert_same(found, apart(model, images=family_picture))


def test_batches_windows_and_short_memory_change_nothing(monkeypatch):
    monkeypatch.setattr(batching, "free_memory", lambda: None)
    model = tiny_adapter(model=tiny_model(layers=3))
    real = model.target_states

    def target_states(groups, images, taps=None):
        if sum(map(len, groups)) > 1:
            raise RuntimeError("CUDA out of memory")
        return real(groups, images, taps)

    expected = apart()
    _, small = passed(BOTH, batch_tokens=30, window_rows=3)
    assert_same(small, expected)
    monkeypatch.setattr(model, "target_states", target_states)
    _, alone = passed(BOTH, model=model)
    assert_same(alone, expected)


def test_rows_that_fail_and_vectors_that_are_not_finite_are_left_out():
    def images(name):
        if name == "gone":
            raise FileNotFoundError(name)
        return picture(name)

    silent = LossRow("silent", conversation("<image>\nWhat?", ""), ["image0"])
    _, found = passed(BOTH, rows=[ROWS[0], LossRow("gone", ROWS[0].turns, ["gone"]), silent], images=images)
    assert "gone" not in {row for row, _ in found}
    model = tiny_model(layers=2)
    with torch.no_grad():
        model.model.language_model.layers[0].mlp.down_proj.weight.fill_(float("inf"))
    _, found = passed(RowVectors((1,), 0.9), model=tiny_adapter(model=model))
    assert found == {}


def test_a_batch_without_any_image_has_hidden_states_alone():
    texts = [ROWS[-1], LossRow("other", conversation("What is a car?", "It drives."))]
    _, found = passed(BOTH, rows=texts)
    assert {(row.sample_id, "hidden_states") for row in texts} == set(found)
