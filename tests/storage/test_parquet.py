import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vsel_platform.errors import StorageError
from vsel_platform.storage.parquet import conform, content_hash, parquet_bytes, rechunk
from vsel_platform.tables import TABLES, Column, TableSpec

SPEC = TableSpec(
    "example",
    "Every type.",
    ("dataset",),
    ("id",),
    (
        Column("id", "string", "text"),
        Column("note", "string", "text", nullable=True),
        Column("flag", "bool", "flag", nullable=True),
        Column("count", "int32", "count", nullable=True),
        Column("value", "float64", "value", nullable=True),
        Column("names", "list<string>", "names"),
    ),
)
ROW = st.fixed_dictionaries(
    {
        "id": st.text(max_size=5),
        "note": st.none() | st.text(max_size=5),
        "flag": st.none() | st.booleans(),
        "count": st.none() | st.integers(-5, 5),
        "value": st.none() | st.floats(allow_nan=False, allow_infinity=False),
        "names": st.lists(st.text(max_size=3), max_size=3),
    }
)


def table(rows: list[dict]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=SPEC.arrow_schema())


@given(st.lists(ROW, max_size=20), st.integers(0, 20), st.integers(0, 3))
@settings(deadline=None, max_examples=50)
def test_the_hash_does_not_depend_on_how_rows_are_held(rows, cut, skip):
    plain = table(rows)
    padded = pa.concat_tables([table(rows[:skip]), plain]).slice(min(skip, len(rows)))
    chunked = pa.concat_tables([plain.slice(0, cut), plain.slice(min(cut, len(rows)))])
    assert content_hash(padded) == content_hash(plain)
    assert content_hash(chunked) == content_hash(plain)


@given(st.lists(ROW, min_size=1, max_size=8), ROW)
@settings(deadline=None, max_examples=50)
def test_the_hash_tells_different_rows_apart(rows, other):
    changed = [*rows[:-1], other]
    if changed != rows:
        assert content_hash(table(changed)) != content_hash(table(rows))


def test_what_lies_under_a_null_does_not_count():
    masked = pa.array(np.array([1.0, 7.0]), mask=np.array([False, True]))
    zeroed = pa.array([1.0, None])
    assert content_hash(pa.table({"x": masked})) == content_hash(pa.table({"x": zeroed}))


def test_null_is_neither_zero_nor_empty():
    for missing, value, kind in ((None, 0.0, pa.float64()), (None, "", pa.string()), (None, False, pa.bool_())):
        a, b = (pa.table({"x": pa.array([item], kind)}) for item in (missing, value))
        assert content_hash(a) != content_hash(b)


def test_text_does_not_move_between_rows():
    assert content_hash(pa.table({"x": ["ab", "c"]})) != content_hash(pa.table({"x": ["a", "bc"]}))


@given(st.lists(st.integers(0, 7), max_size=6))
@settings(deadline=None)
def test_chunks_depend_on_the_rows_alone(sizes):
    from vsel_platform.storage import parquet

    rows = [{"id": str(n), "names": []} for n in range(sum(sizes))]
    whole = table(rows)
    starts = np.cumsum([0, *sizes])
    pieces = [whole.slice(int(s), n) for s, n in zip(starts, sizes, strict=False)]
    before, parquet.ROWS_PER_FILE = parquet.ROWS_PER_FILE, 4
    try:
        chunks = list(rechunk(SPEC, pieces))
        assert [content_hash(c) for c in chunks] == [content_hash(c) for c in rechunk(SPEC, [whole])]
    finally:
        parquet.ROWS_PER_FILE = before
    assert all(chunk.num_rows == 4 for chunk in chunks[:-1])
    assert sum(chunk.num_rows for chunk in chunks) == len(rows)


def good(**changes: object) -> pa.Table:
    values: dict[str, object] = {
        "sample_id": ["a", "b"],
        "condition": ["full", "full"],
        "loss_sum": [1.0, None],
        "loss_mean": [0.5, None],
        "n_tokens": [2, 0],
        "entropy_mean": [0.1, None],
        "el2n_mean": [0.2, None],
    }
    values |= changes
    return pa.table({name: value for name, value in values.items() if value is not ...})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_tokens": ...}, r"missing columns \['n_tokens'\]"),
        ({"extra": [1, 2]}, r"unknown columns \['extra'\]"),
        ({"n_tokens": ["x", "y"]}, "losses"),
        ({"n_tokens": [1, 1 << 40]}, "losses"),
        ({"n_tokens": [1, None]}, "n_tokens has 1 NULL"),
        ({"sample_id": [None, None]}, "sample_id has 2 NULL"),
        ({"loss_sum": [float("nan"), 1.0]}, "loss_sum has 1 NaN"),
        ({"loss_mean": [float("inf"), float("-inf")]}, "loss_mean has 2 NaN"),
    ],
)
def test_what_does_not_fit_the_table_is_named(changes, message):
    with pytest.raises(StorageError, match=message):
        conform(TABLES["losses"], good(**changes))


def test_a_null_inside_a_list_is_refused():
    rows = {"sample_id": ["a"], "conversation": ["[]"], "image_ids": [["x", None]], "n_turns": [1],
            "n_characters": [1], "row_json": ["{}"], "turns_key": [None]}  # fmt: skip
    with pytest.raises(StorageError, match="image_ids has 1 NULL"):
        conform(TABLES["samples"], pa.table(rows))


def test_columns_are_put_in_order_and_types_widened():
    result = conform(TABLES["losses"], good().select(TABLES["losses"].column_names[::-1]))
    assert result.schema == TABLES["losses"].arrow_schema()
    assert result["loss_sum"].to_pylist() == [1.0, None]


def test_equal_rows_give_equal_files():
    assert parquet_bytes(conform(TABLES["losses"], good())) == parquet_bytes(conform(TABLES["losses"], good()))
