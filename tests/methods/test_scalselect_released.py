"""Edges of the released ScalSelect that the recorded cases may not show."""

import numpy as np
import pytest

from vsel_platform.errors import DataError, SelectionError
from vsel_platform.methods.scalselect_released import (
    attended_vision_released,
    load_representations,
    parse_released_id,
    released_scores,
    save_representations,
)

CENTRED = {"threshold": 0.9, "center": True, "standardize": False, "l2": False}


def rows_of(n, d):
    return (np.random.default_rng(0).standard_normal((n, d)) / np.arange(1, d + 1)).astype(np.float32)


@pytest.mark.parametrize(
    ("text", "number"), [("12", 12), ("007", 7), ("a_3", 3), ("a_b_-4", -4), ("abc", 0), ("-5", 0), ("", 0)]
)
def test_ids_become_integers(text, number):
    assert parse_released_id(text) == number


@pytest.mark.parametrize("text", ["a_", "x_y", "3_1.5"])
def test_ids_that_end_in_no_integer_are_refused(text):
    with pytest.raises(DataError, match="integer"):
        parse_released_id(text)


def test_scores_are_highest_first_and_sum_to_k():
    scores, k = released_scores(rows_of(60, 9), [f"row_{i}" for i in range(60)], **CENTRED)
    values = [value for _, value in scores]
    assert values == sorted(values, reverse=True)
    assert sorted(i for i, _ in scores) == list(range(60))
    assert sum(values) == pytest.approx(k, rel=1e-5)


def test_the_number_of_directions_can_be_fixed_and_is_bounded():
    data, ids = rows_of(60, 9), [str(i) for i in range(60)]
    assert released_scores(data, ids, **CENTRED, n_directions=4)[1] == 4
    assert released_scores(data, ids, **CENTRED, n_directions=40)[1] == 9
    assert released_scores(data, ids, **CENTRED | {"threshold": 2.0})[1] == 9


def test_half_precision_counts_as_single():
    data, ids = rows_of(60, 9).astype(np.float16), [str(i) for i in range(60)]
    assert released_scores(data, ids, **CENTRED) == released_scores(data.astype(np.float32), ids, **CENTRED)


@pytest.mark.parametrize("standardize", [True, False])
def test_constant_columns_and_rows_at_the_mean_do_not_divide_by_zero(standardize):
    data = np.array([[1, 2, 5], [-1, -2, 5], [0, 0, 5]], np.float32)
    scores, _ = released_scores(data, ["0", "1", "2"], **CENTRED | {"standardize": standardize, "l2": True})
    assert dict(scores) == pytest.approx({0: 0.5, 1: 0.5, 2: 0}, abs=1e-6)


@pytest.mark.parametrize(
    ("data", "n_ids"),
    [(rows_of(4, 3), 5), (np.zeros((0, 3), np.float32), 0), (np.zeros(4, np.float32), 4), (rows_of(4, 3) * np.nan, 4)],
)
def test_what_is_no_finite_matrix_with_ids_is_refused(data, n_ids):
    with pytest.raises(SelectionError, match="finite matrix"):
        released_scores(data, [str(i) for i in range(n_ids)], **CENTRED)


def test_feature_file_round_trip_keeps_text_ids(tmp_path):
    records = [{"sample_id": i, "combined_repr": row} for i, row in zip(["ü", "b/c", "3"], rows_of(3, 4), strict=True)]
    save_representations(records, tmp_path, {"model": "m"})
    for path in (tmp_path, tmp_path / "all_representations.npz"):
        matrix, ids = load_representations(path)
        assert ids == ["ü", "b/c", "3"]
        assert matrix.tobytes() == rows_of(3, 4).tobytes()


def test_nothing_to_save_is_refused(tmp_path):
    with pytest.raises(DataError, match="none of 1"):
        save_representations([{"sample_id": 1}], tmp_path, {})
    assert not list(tmp_path.iterdir())


def broken(path, **arrays):
    np.savez_compressed(path, **arrays)
    return path


def test_files_that_are_no_feature_file_are_refused(tmp_path):
    pickled = broken(tmp_path / "p.npz", representations=np.zeros((1, 2)), sample_ids=np.array(["a"], object))
    short = broken(tmp_path / "s.npz", representations=np.zeros((2, 2)), sample_ids=np.array(["a"]))
    other = broken(tmp_path / "o.npz", something=np.zeros(2))
    cut = tmp_path / "c.npz"
    cut.write_bytes(other.read_bytes()[:-30])
    empty = tmp_path / "e.npz"
    empty.touch()
    for path in (pickled, short, other, cut, empty, tmp_path / "missing.npz", tmp_path):
        with pytest.raises(DataError, match="npz"):
            load_representations(path)


def test_every_token_is_taken_if_the_share_is_never_exceeded():
    attention = np.zeros((4, 4), np.float32)
    attention[3, :3] = [0.25, 0.5, 0.25]
    hidden = np.arange(8, dtype=np.float32).reshape(4, 2)
    vector, chosen = attended_vision_released(hidden, attention, [3], [0, 1, 2], 1.0)
    assert chosen.tolist() == [1, 0, 2]
    assert vector.tolist() == [2, 3]
    assert attended_vision_released(hidden[None], attention[None, None], [3], [0, 1, 2], 0.5)[1].tolist() == [1, 0]


def test_rows_without_instruction_or_vision_tokens_are_refused():
    for user, vision in (([], [0]), ([0], [])):
        with pytest.raises(DataError, match="leave such a row out"):
            attended_vision_released(np.zeros((2, 2), np.float32), np.zeros((2, 2), np.float32), user, vision, 0.9)
