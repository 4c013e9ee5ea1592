import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest
from sql_cases import ATTACKS
from synthetic_store import DATASET, ROWS, build

from vsel_platform.errors import QueryError
from vsel_platform.storage import sql, sql_worker
from vsel_platform.storage.catalog_schema import catalog_tables
from vsel_platform.storage.sql import QueryLimits, run_query
from vsel_platform.storage.store import Store


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return build(str(tmp_path_factory.mktemp("sql") / "store"))


def test_a_query_gives_columns_and_rows(store):
    result = run_query(
        store,
        "SELECT task, count(*) AS n, max(typicality) AS best FROM presel_scores GROUP BY task ORDER BY task LIMIT 2",
    )
    assert result.columns == ["task", "n", "best"]
    assert [row[:2] for row in result.rows] == [("caption", 10), ("colour", 10)]
    assert result.arrow.schema.field("best").type == "double"
    assert not result.truncated


def test_embeddings_join_with_tables(store):
    query = """
        SELECT s.task, count(*), avg(list_dot_product(e.vector, e.vector)) > 0
        FROM presel_scores s JOIN image_embeddings e ON e.id = s.image_id GROUP BY ALL ORDER BY ALL"""
    rows = run_query(store, query).rows
    assert sum(row[1] for row in rows) == ROWS - 6  # four rows are text-only, two show an image without embedding
    assert all(row[2] for row in rows)


def test_results_may_have_equal_names_no_rows_and_nested_values(store):
    query = "SELECT 1 AS a, [1, NULL] AS a, {'x': 'y'} AS s, NULL AS n"
    result = run_query(store, query)
    assert result.columns == ["a", "a", "s", "n"]
    assert result.rows == [(1, [1, None], {"x": "y"}, None)]
    empty = run_query(store, "SELECT task FROM manifest WHERE false")
    assert (empty.columns, empty.rows, empty.truncated) == (["task"], [], False)


@pytest.mark.parametrize(("limit", "truncated"), [(1, True), (ROWS - 1, True), (ROWS, False), (ROWS + 1, False)])
def test_rows_beyond_the_limit_are_cut_and_said(store, limit, truncated):
    result = run_query(store, "SELECT sample_id FROM presel_scores", limits=QueryLimits(rows=limit))
    assert len(result.rows) == min(limit, ROWS)
    assert result.truncated is truncated


def test_an_endless_result_ends_at_the_row_limit(store):
    result = run_query(store, "SELECT * FROM range(1000000000000)", limits=QueryLimits(rows=5000, seconds=20))
    assert len(result.rows) == 5000
    assert result.truncated


@pytest.mark.parametrize(
    "query",
    [
        "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r",
        "SELECT count(*) FROM range(1000000) a, range(1000000) b, range(1000000) c WHERE a.range + b.range < c.range",
    ],
)
def test_a_query_without_end_is_stopped(store, query):
    start = time.monotonic()
    with pytest.raises(QueryError, match="stopped after 1 s"):
        run_query(store, query, limits=QueryLimits(seconds=1))
    assert time.monotonic() - start < 15


@pytest.mark.parametrize(
    "query",
    [
        # text that doubles with every step, outside of what DuckDB counts
        "WITH RECURSIVE r AS (SELECT 'xxxxxxxx' AS s, 0 AS n UNION ALL SELECT s || s, n + 1 FROM r WHERE n < 60) "
        "SELECT max(length(s)) FROM r",
        # one call that never asks whether it should stop
        "SELECT length(" + "replace(" * 12 + "'aaaaaaaaaa'" + ", 'a', 'aaaaaaaaaa')" * 12 + ")",
        "SELECT list(a.range) FROM range(20000) a, range(20000) b",
    ],
)
def test_a_query_that_grows_is_stopped(store, query):
    with pytest.raises(QueryError, match="memory"):
        run_query(store, query, limits=QueryLimits(memory_mib=64, spill_mib=64, seconds=60))


def test_a_result_that_is_too_wide_is_refused(store):
    query = "SELECT replace(md5(i::VARCHAR), 'a', s) FROM range(100000) t(i), " \
        "(SELECT string_agg(j::VARCHAR, '') AS s FROM range(1000) u(j))"  # fmt: skip
    with pytest.raises(QueryError, match=r"larger than 16 MiB|memory"):
        run_query(store, query, limits=QueryLimits(memory_mib=16, rows=100_000))


def test_a_sort_larger_than_memory_spills(store):
    query = "SELECT max(r) FROM (SELECT md5(range::VARCHAR) AS r, row_number() OVER (ORDER BY r) FROM range(600000))"
    assert len(run_query(store, query, limits=QueryLimits(memory_mib=40)).rows) == 1


@pytest.mark.parametrize("limits", [{"rows": 0}, {"seconds": -1}, {"memory_mib": 0}, {"threads": 0}])
def test_limits_must_be_positive(limits):
    with pytest.raises(QueryError, match="must be positive"):
        QueryLimits(**limits)


def test_an_error_inside_the_query_is_told(store):
    with pytest.raises(QueryError, match=r'"tsk" not found'):
        run_query(store, "SELECT tsk FROM manifest")
    with pytest.raises(QueryError, match="Could not convert string 'x'"):
        run_query(store, "SELECT CAST('x' AS INTEGER)")


def test_time_travel_reaches_queries(store):
    (pointer,) = store.pointers("quarantine")
    count = "SELECT count(*) FROM quarantine"
    assert run_query(store, count, as_of=datetime.now(UTC).isoformat()).rows == [(3,)]
    with pytest.raises(QueryError, match="2100-01-01 is in the future"):
        run_query(store, count, as_of="2100-01-01")
    with pytest.raises(QueryError, match="the store was empty at 2000-01-01"):
        run_query(store, count, as_of="2000-01-01")
    assert run_query(store, count, manifest={"inputs": [pointer.reference]}).rows == [(3,)]
    with pytest.raises(QueryError, match="not a time"):
        run_query(store, count, as_of="yesterday")


@pytest.mark.parametrize(
    ("as_of", "message"),
    [("yesterday", "not a time"), ("2100-01-01", "in the future"), ("2000-01-01", "the store was empty at 2000")],
)
def test_a_time_is_checked_for_a_query_without_tables_too(store, as_of, message):
    with pytest.raises(QueryError, match=message):
        run_query(store, "select 1", as_of=as_of)


def test_an_empty_store_had_no_state_at_any_time(tmp_path):
    with pytest.raises(QueryError, match="the store is empty"):
        run_query(Store(str(tmp_path)), "select 1", as_of="2020-01-01")


def test_the_process_keeps_no_files(store, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    run_query(store, "SELECT 1")
    with pytest.raises(QueryError):
        run_query(store, "SELECT nothing")
    assert list(tmp_path.iterdir()) == []


def test_code_in_the_current_directory_is_not_run(store, monkeypatch, tmp_path):
    package = tmp_path / "vsel_platform"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('code of the current directory')")
    monkeypatch.chdir(tmp_path)
    assert run_query(store, "SELECT 1").rows == [(1,)]


def test_a_process_that_dies_is_told(store, monkeypatch):
    monkeypatch.setattr(sql.sys, "executable", "/bin/false")
    with pytest.raises(QueryError, match="ended with 1"):
        run_query(store, "SELECT 1")


def test_no_process_is_started_for_a_refused_query(store, monkeypatch):
    def fail(*_: object) -> None:
        raise AssertionError("started")

    monkeypatch.setattr(sql, "_supervise", fail)
    for attack in ATTACKS:
        with pytest.raises(QueryError):
            run_query(store, attack)


# --- the second line of defence: the connection itself, as if the check had let everything through


@pytest.fixture(scope="module")
def locked(store, tmp_path_factory):
    work = tmp_path_factory.mktemp("work")
    request = {
        "root": store.files.root_url,
        "tables": catalog_tables(),
        "as_of": None,
        "manifest": None,
        "limits": {"memory_mib": 256, "threads": 1, "spill_mib": 64, "rows": 10},
    }
    return sql_worker.open_locked(request, work)


@pytest.mark.parametrize(
    "attack",
    [
        "SELECT * FROM read_text('/etc/hostname')",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM read_blob('{root}/tables/quarantine/dataset=demo/pointer.json')",
        "SELECT * FROM glob('{root}/*')",
        "COPY (SELECT 1) TO '{root}/x.csv'",
        "COPY (SELECT 1) TO '/tmp/vsel-x.csv'",
        "ATTACH '{root}/x.duckdb'",
        "EXPORT DATABASE '{root}/x'",
        "IMPORT DATABASE '{root}/x'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET allowed_directories = ['/']",
        "RESET allowed_paths",
        "SET python_enable_replacements = true",
        "SET threads = 64",
        "SELECT * FROM secret_frame",
    ],
)
def test_the_connection_itself_opens_nothing_else(locked, store, attack):
    secret_frame = Path  # a local name that DuckDB's Python client would look up
    assert secret_frame is Path
    with pytest.raises(duckdb.Error):
        locked.execute(attack.replace("{root}", store.files.root_url)).fetchall()
    assert locked.execute("SELECT count(*) FROM presel_scores").fetchall() == [(ROWS,)]


# --- S3


@pytest.mark.integration
def test_queries_run_on_s3(s3_root):
    store = build(s3_root)
    query = "SELECT count(*), (SELECT count(*) FROM image_embeddings) FROM presel_scores WHERE dataset = 'demo'"
    assert run_query(store, query, limits=QueryLimits(seconds=60)).rows == [(ROWS, 19)]


@pytest.mark.integration
def test_the_connection_on_s3_opens_nothing_else(s3_root, tmp_path):
    store = build(s3_root, with_vectors=False)
    request = {
        "root": s3_root,
        "tables": ["presel_scores"],
        "as_of": None,
        "manifest": None,
        "limits": {"memory_mib": 256, "threads": 1, "spill_mib": 64, "rows": 10},
    }
    connection = sql_worker.open_locked(request, tmp_path)
    pointer = store.require("quarantine", {"dataset": DATASET})
    for path in (f"vsel://{pointer.files[0].path}", store.files.url(pointer.files[0].path), "vsel://x"):
        with pytest.raises(duckdb.Error):
            connection.execute(f"SELECT * FROM read_parquet('{path}')").fetchall()
    assert connection.execute("SELECT count(*) FROM presel_scores").fetchall() == [(ROWS,)]


def test_a_missing_store_is_an_empty_one(tmp_path):
    assert run_query(Store(str(tmp_path / "none")), "SELECT count(*) FROM manifest").rows == [(0,)]
