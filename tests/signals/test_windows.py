"""Windows of rows on their way through a model."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_llava import IMAGE_TOKENS, conversation, picture, tiny_adapter

from vsel_platform.errors import OutOfMemoryError
from vsel_platform.models import batching
from vsel_platform.models.batching import CPU_BATCH_TOKENS, BatchLimits
from vsel_platform.signals.losses import LossRow
from vsel_platform.signals.windows import WINDOW_ROWS, WindowOptions, windows

ADAPTER = tiny_adapter()
ROWS = [LossRow(f"r{i}", conversation("<image>", "ok"), [f"i{i % 3}"]) for i in range(7)]
ROWS += [LossRow("two", conversation("<image><image>", "ok"), ["i5", "i0"]), LossRow("text", conversation("hi", "ok"))]


def made(rows=ROWS, images=picture, limits=None, model=ADAPTER, **options):
    return list(windows(model, rows, images, WindowOptions(**options), limits))


def one(**arguments):
    (window,) = made(**arguments)
    return window


def ids(window):
    return [row.sample_id for row in window.rows]


@pytest.mark.parametrize("size", [1, 4, 9, 100])
def test_windows_are_consecutive_rows_in_order(size):
    found = made(window_rows=size)
    assert [len(window.rows) for window in found[:-1]] == [size] * (len(found) - 1)
    assert [i for window in found for i in ids(window)] == [row.sample_id for row in ROWS]


def test_no_rows_make_no_window_and_the_default_size_is_fixed():
    assert made([]) == []
    many = [LossRow(str(i), []) for i in range(WINDOW_ROWS + 1)]
    assert [len(window.rows) for window in made(many)] == [WINDOW_ROWS, 1]


def test_features_are_the_projected_images_of_a_row_in_order():
    window = one()
    window.load_images(range(len(ROWS)))
    with torch.inference_mode():
        for i, row in enumerate(ROWS):
            features = window.features_of(i)
            assert len(features) == len(row.images)
            for image, feature in zip(row.images, features, strict=True):
                pixels = ADAPTER.preprocess(picture(image))[None]
                expected = ADAPTER.project(ADAPTER.tower_features(pixels))[0]
                assert feature.shape == (IMAGE_TOKENS, 32)
                np.testing.assert_allclose(feature, expected, atol=1e-6)


def test_each_image_is_opened_once_per_window_and_only_for_members():
    opened = []
    window = one(images=lambda image: (opened.append(image), picture(image))[1])
    window.load_images([0, 3, 6, 7])
    assert sorted(opened) == ["i0", "i5"]


def test_a_bad_image_fails_its_rows_with_the_name_of_the_image():
    def images(image):
        if image == "i5":
            raise FileNotFoundError("gone")
        return picture(image)

    window = one(images=images)
    window.load_images(range(len(ROWS)))
    (failure,) = window.failures.values()
    assert list(window.failures) == [7]
    assert (failure.content_id, failure.reason) == ("two", "image_missing")
    assert failure.detail.startswith("image i5: FileNotFoundError")
    assert len(window.features_of(6)) == 1


def test_a_bad_image_of_a_row_that_is_no_member_fails_nothing():
    window = one(images=lambda image: 1 / 0)
    window.load_images([8])
    assert window.failures == {}
    assert window.features_of(8) == []


def test_failures_belong_to_their_window():
    first, second = made(window_rows=5)
    first.fail(1, "reason", "detail")
    assert (first.failures[1].content_id, second.failures) == ("r1", {})


@given(
    st.lists(st.integers(1, 60), max_size=20),
    st.integers(1, 150),
    st.randoms(use_true_random=False),
)
@settings(max_examples=40, deadline=None)
def test_every_member_runs_once_within_the_budget(lengths, budget, random):
    rows = [LossRow(str(i), []) for i in range(50)]
    members = random.sample(range(50), len(lengths))
    length_of = dict(zip(members, lengths, strict=True))
    found = list(one(rows=rows, batch_tokens=budget).run(members, lengths, lambda part: [length_of[i] for i in part]))
    assert sorted(i for part, _ in found for i in part) == sorted(members)
    for part, result in found:
        assert result == [length_of[i] for i in part]
        assert len(part) == 1 or len(part) * max(result) <= budget


def test_batches_on_a_processor_are_bounded_whatever_the_settings_say():
    rows = [LossRow(str(i), []) for i in range(100)]
    parts = [
        part for part, _ in one(rows=rows, batch_tokens=10**9).run(range(100), [CPU_BATCH_TOKENS // 10] * 100, len)
    ]
    assert max(map(len, parts)) == 10


def test_short_memory_halves_the_budget_of_this_and_later_windows(monkeypatch):
    monkeypatch.setattr(batching, "free_memory", lambda: None)
    tried = []

    def run(part):
        tried.append(len(part))
        if len(part) > 2:
            raise RuntimeError("out of memory")
        return len(part)

    first, second = made([LossRow(str(i), []) for i in range(16)], window_rows=8, batch_tokens=80)
    assert [part for part, _ in first.run(range(8), [10] * 8, run)] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert tried[:3] == [8, 4, 2]
    tried.clear()
    list(second.run(range(8), [10] * 8, run))
    assert tried == [2, 2, 2, 2]


def test_limits_that_are_known_from_elsewhere_count_at_once():
    limits = BatchLimits()
    limits.lower((ADAPTER.fingerprint, ADAPTER.device, "tokens"), 20)
    parts = [part for part, _ in one(limits=limits).run(range(4), [10] * 4, len)]
    assert parts == [[0, 1], [2, 3]]


def test_a_row_that_does_not_fit_alone_is_named(monkeypatch):
    monkeypatch.setattr(batching, "free_memory", lambda: None)

    def run(part):
        raise MemoryError

    with pytest.raises(OutOfMemoryError, match=r"row two does not fit into memory even alone \(50 units"):
        list(one().run([7], [50], run))
