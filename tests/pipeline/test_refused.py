"""Rows in quarantine are found by id and position."""

import pytest

from vsel_platform.config import parse_project
from vsel_platform.pipeline.context import Context
from vsel_platform.pipeline.refused import refused_rows
from vsel_platform.tables import TABLES

ROWS = [
    '{"id": "bad-1", "x": 1}',
    '{"id":7,"conversations": "' + "x" * 50,
    '{"id": "7", "of": {"id": "inner"}}',
    "17",
    None,
]


@pytest.fixture
def ctx(tmp_path):
    import pyarrow as pa

    ctx = Context(parse_project("name: p\ndatasets: {a: {source: a.json}}\n", base_dir=str(tmp_path)))
    columns = {
        "position": range(len(ROWS)),
        "reason": ["conversation_empty"] * len(ROWS),
        "detail": ["what exactly"] * len(ROWS),
        "row_json": ROWS,
    }
    ctx.store.publish("quarantine", {"dataset": "a"}, pa.table(columns, TABLES["quarantine"].arrow_schema()))
    return ctx


@pytest.mark.parametrize(
    ("name", "positions"),
    [
        ("bad-1", [0]),
        ("bad", []),
        ("7", [1, 2]),
        ("position:3", [3]),
        ("position:4", [4]),
        ("position:9", []),
        (".*", []),
    ],
)
def test_rows_are_found_by_what_names_them(ctx, name, positions):
    assert [row.position for row in refused_rows(ctx, "a", name)] == positions


def test_the_reason_is_said_in_words(ctx):
    (row,) = refused_rows(ctx, "a", "bad-1")
    assert "position 0 of dataset a is in quarantine" in row.to_text()
    assert "conversation_empty: The list of turns is empty" in row.to_text()
    assert "what exactly" in row.to_text()


def test_before_the_first_ingest_there_is_none(tmp_path):
    ctx = Context(parse_project("name: p\ndatasets: {a: {source: a.json}}\n", base_dir=str(tmp_path)))
    assert refused_rows(ctx, "a", "position:0") == []
