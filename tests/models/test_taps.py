"""Rows tapped out of a pass over packed groups against the same rows alone."""

import numpy as np
import pytest
import torch
from tiny_families import picture as family_picture
from tiny_families import tiny_family
from tiny_llava import conversation, picture, tiny_adapter, tiny_model

from vsel_platform.models.batching import BatchLimits
from vsel_platform.models.image_features import TowerFeatures
from vsel_platform.models.vlm import AttentionRows, RowTaps, ShownImage

pytestmark = pytest.mark.usefixtures("_prefixes")

ADAPTER = tiny_adapter(model=tiny_model(layers=3))
GROUPS = [
    ([conversation("<image>\nWhat?", "Red."), conversation("<image>\nWhat is it now?", "A red ball.")], ["a"]),
    ([conversation("Of what colour is the image?\n<image>", "Blue."), conversation("Of what?\n<image>", "No.")], ["b"]),
    ([conversation("<image> and <image>\nwhich?", "The dog.")], ["a", "c"]),
    ([conversation("What is a bus?", "A car."), conversation("What is a car?", "It drives.")], []),
]


def prepared(adapter, images):
    """Groups as rendered rows, and the projected features of their images."""
    tower = TowerFeatures(adapter, images, limits=BatchLimits())
    features, failures = tower.get([name for _, names in GROUPS for name in names])
    assert not failures
    groups, shown = [], []
    for rows, names in GROUPS:
        own = adapter.row_features([adapter.project(features[name][None])[0] for name in names])
        known = [ShownImage(len(f), tower.layouts.get(n, ())) for f, n in zip(own, names, strict=True)]
        # The condition without the question lies in every group too, and is never tapped.
        groups.append([adapter.render(turns, len(names), c, known) for turns in rows for c in ("full", "no_question")])
        shown.append(own)
    return groups, shown


def asked(adapter, row):
    """Some queries behind the first image token, and the image tokens."""
    keys = adapter.image_places(row)
    return np.arange(len(row))[-4:-1] if len(keys) else keys, keys


@pytest.mark.parametrize("adapter", ["llava", "qwen2_vl", "qwen3_vl", "idefics3"])
def test_states_and_attention_are_those_of_the_row_alone(adapter):
    adapter, images = (ADAPTER, picture) if adapter == "llava" else (tiny_family(adapter).adapter(), family_picture)
    groups, shown = prepared(adapter, images)
    places = [(g, r) for g, group in enumerate(groups) for r in range(0, len(group), 2)]
    rows = [groups[g][r] for g, r in places]
    queries, keys = zip(*(asked(adapter, row) for row in rows), strict=True)
    taps = RowTaps(places, [1, 2], AttentionRows([0, 1], queries, keys))
    with torch.inference_mode():
        plain = adapter.target_states(groups, shown)
        found = adapter.target_states(groups, shown, taps)
        alone = adapter.layer_states(rows, [shown[g] for g, _ in places], layers=[1, 2], attention=taps.attention)
    assert plain.tapped is None
    torch.testing.assert_close(found.hidden, plain.hidden)
    assert found.targets.equal(plain.targets)
    assert set(found.tapped.hidden) == {1, 2}
    for i, row in enumerate(rows):
        for layer in (1, 2):
            torch.testing.assert_close(
                found.tapped.hidden[layer][i, : len(row)], alone.hidden[layer][i, : len(row)], atol=1e-5, rtol=1e-4
            )
        for layer in (0, 1):
            torch.testing.assert_close(
                found.tapped.mass[layer][i, : len(keys[i])], alone.mass[layer][i, : len(keys[i])], atol=1e-6, rtol=1e-4
            )
            assert not found.tapped.mass[layer][i, len(keys[i]) :].any()
    assert found.tapped.mass[0].sum() > 0


def test_states_are_kept_without_attention():
    groups, shown = prepared(ADAPTER, picture)
    with torch.inference_mode():
        found = ADAPTER.target_states(groups, shown, RowTaps([(2, 0)], [3]))
        alone = ADAPTER.layer_states([groups[2][0]], [shown[2]], layers=[3])
    assert found.tapped.mass == {}
    torch.testing.assert_close(found.tapped.hidden[3], alone.hidden[3], atol=1e-5, rtol=1e-4)
