"""Views of single scores: in the catalog, in guarded SQL, in the catalog file, at other times."""

import duckdb
import orjson
import pyarrow as pa
import pytest

from vsel_platform.errors import QueryError
from vsel_platform.storage.catalog import open_catalog, publish_catalog_file
from vsel_platform.storage.score_views import OWN_COLUMNS, is_view
from vsel_platform.storage.sql import run_query
from vsel_platform.storage.store import Store
from vsel_platform.tables import TABLES

GAIN = [
    ["gain", "float64", "nat/token", "What the image explains."],
    ["order", "int64", "", "A word of SQL."],
    ["it's; drop", "float64", "", "No name of a column."],
    ["value", "float64", "", "Taken already."],
    ["shape", "list<float32>", "", "No single value."],
]


def publish(store, score, details, *, variant="default", dataset="shapes", columns=GAIN):
    n = len(details)
    table = pa.table(
        {
            "sample_id": [f"{score}{i}" for i in range(n)],
            "task": ["t"] * n,
            "image_id": [None] * n,
            "value": [float(i) for i in range(n)],
            "details": [None if d is None else orjson.dumps(d).decode() for d in details],
        },
        schema=TABLES["method_scores"].arrow_schema(),
    )
    metadata = {} if columns is None else {OWN_COLUMNS: columns}
    key = {"dataset": dataset, "score": score, "variant": variant}
    return store.publish("method_scores", key, table, metadata=metadata)


@pytest.fixture
def store(root):
    store = Store(root)
    publish(store, "visnec", [{"gain": 0.5, "order": 3}, {"gain": None, "order": 4}, None])
    publish(store, "visnec", [{"gain": 2.5, "order": 1}], variant="abc", dataset="other")
    publish(store, "uniform", [None], columns=None)
    return store


def test_a_score_is_a_view_with_its_own_values_in_columns_of_their_types(store):
    connection = open_catalog(store)
    found = connection.execute('SELECT dataset, variant, value, gain, "order" FROM visnec_scores ORDER BY 1, 3')
    assert found.fetchall() == [
        ("other", "abc", 0.0, 2.5, 1),
        ("shapes", "default", 0.0, 0.5, 3),
        ("shapes", "default", 1.0, None, 4),
        ("shapes", "default", 2.0, None, None),
    ]
    types = dict(connection.execute("SELECT column_name, column_type FROM (DESCRIBE visnec_scores)").fetchall())
    assert list(types) == ["dataset", "variant", "sample_id", "task", "image_id", "value", "gain", "order"]
    assert (types["gain"], types["order"]) == ("DOUBLE", "BIGINT")
    assert connection.execute("SELECT * FROM uniform_scores").fetchall() == [
        ("shapes", "default", "uniform0", "t", None, 0.0)
    ]


def test_views_are_described_like_tables(store):
    rows = open_catalog(store).execute("SELECT column_name, unit FROM columns WHERE table_name = 'visnec_scores'")
    assert ("gain", "nat/token") in rows.fetchall()
    listed = open_catalog(store, tables=["columns"]).execute("SELECT DISTINCT table_name FROM columns").fetchall()
    assert {("visnec_scores",), ("uniform_scores",), ("method_scores",)} <= set(listed)


def test_guarded_sql_reads_them_and_names_them_when_another_is_refused(store):
    result = run_query(store, "SELECT max(gain) FROM visnec_scores")
    assert result.rows == [(2.5,)]
    with pytest.raises(QueryError, match=r"allowed: .*uniform_scores.*visnec_scores"):
        run_query(store, "SELECT * FROM nothing_scores")


def test_a_view_is_empty_before_its_score_was_there(root):
    store = Store(root)
    before = publish(store, "uniform", [None], columns=None).created_at
    publish(store, "visnec", [{"gain": 1.0}])
    assert run_query(store, "SELECT count(*) FROM visnec_scores", as_of=before).rows == [(0,)]
    assert run_query(store, "SELECT count(*) FROM visnec_scores").rows == [(1,)]


def test_the_catalog_file_has_them(tmp_path):
    store = Store(str(tmp_path))
    publish(store, "visnec", [{"gain": 1.5}])
    with duckdb.connect(str(publish_catalog_file(store)), read_only=True) as connection:
        assert connection.execute("SELECT gain FROM visnec_scores").fetchall() == [(1.5,)]


@pytest.mark.parametrize("score", ["presel", "method", 'x"; drop', "Upper", "1st"])
def test_a_score_whose_view_would_be_another_table_or_no_name_has_none(tmp_path, score):
    store = Store(str(tmp_path))
    publish(store, score, [{"gain": 1.5}])
    assert not is_view(f"{score}_scores")
    connection = open_catalog(store)
    assert connection.execute("SELECT count(*) FROM method_scores").fetchall() == [(1,)]
    assert connection.execute("SELECT count(*) FROM presel_scores").fetchall() == [(0,)]
