import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsel_platform.errors import QueryError
from vsel_platform.storage.catalog_schema import catalog_tables
from vsel_platform.storage.sql_check import MAX_CHARACTERS, check_query
from vsel_platform.storage.sql_functions import FUNCTIONS, TABLE_FUNCTIONS

ATTACKS = {
    # other statements
    "INSERT INTO manifest VALUES (1)": "INSERT is refused",
    "UPDATE manifest SET task = 'x'": "UPDATE is refused",
    "DELETE FROM manifest": "DELETE is refused",
    "DROP VIEW manifest": "DROP is refused",
    "CREATE TABLE t AS SELECT 1": "CREATE is refused",
    "CREATE MACRO f() AS (SELECT 1)": "CREATE is refused",
    "ALTER VIEW manifest RENAME TO x": "ALTER is refused",
    "COPY manifest TO '/tmp/x.csv'": "COPY is refused",
    "COPY (SELECT 1) TO '/tmp/x.parquet'": "COPY is refused",
    "EXPORT DATABASE '/tmp/x'": "EXPORT is refused",
    "IMPORT DATABASE '/tmp/x'": "is refused",
    "ATTACH '/tmp/x.duckdb'": "ATTACH is refused",
    "DETACH memory": "DETACH is refused",
    "USE memory": "is refused",
    "INSTALL httpfs": "LOAD is refused",
    "LOAD httpfs": "LOAD is refused",
    "SET enable_external_access = true": "SET is refused",
    "RESET memory_limit": "is refused",
    "SET VARIABLE x = 1": "is refused",
    "PRAGMA database_list": "is refused",
    "PRAGMA version": "is refused",
    "CALL pragma_version()": "CALL is refused",
    "CHECKPOINT": "is refused",
    "VACUUM": "VACUUM is refused",
    "BEGIN TRANSACTION": "TRANSACTION is refused",
    "EXPLAIN ANALYZE SELECT 1": "EXPLAIN is refused",
    "PREPARE p AS SELECT 1": "PREPARE is refused",
    "EXECUTE p": "EXECUTE is refused",
    "CREATE SECRET s (TYPE s3, KEY_ID 'x', SECRET 'y')": "is refused",
    "MERGE INTO manifest USING samples ON true WHEN MATCHED THEN DELETE": "is refused",
    "WITH x AS (DELETE FROM manifest RETURNING *) SELECT * FROM x": "cannot be parsed",
    # several statements, or none
    "SELECT 1; DROP VIEW manifest": "exactly one SELECT",
    "SELECT 1; SELECT 2": "exactly one SELECT",
    "": "exactly one SELECT",
    "-- nothing": "exactly one SELECT",
    "SELECT 1 /* ; */; COPY manifest TO 'x'": "exactly one SELECT",
    "PIVOT manifest ON task USING count(*)": "PIVOT",
    "SELECT 1\x00; DROP VIEW manifest": "NUL",
    # files and network
    "SELECT * FROM read_csv('/etc/passwd')": "table function read_csv is refused",
    "SELECT * FROM read_csv_auto('/etc/passwd')": "read_csv_auto is refused",
    "SELECT * FROM read_text('/etc/passwd')": "read_text is refused",
    "SELECT * FROM read_blob('/etc/shadow')": "read_blob is refused",
    "SELECT * FROM read_parquet('s3://bucket/x.parquet')": "read_parquet is refused",
    "SELECT * FROM parquet_scan('/tmp/x')": "parquet_scan is refused",
    "SELECT * FROM parquet_metadata('/tmp/x')": "parquet_metadata is refused",
    "SELECT * FROM read_json('http://127.0.0.1/x')": "read_json is refused",
    "SELECT * FROM read_ndjson_objects('/tmp/x')": "read_ndjson_objects is refused",
    "SELECT * FROM read_duckdb('/tmp/x.duckdb')": "read_duckdb is refused",
    "SELECT * FROM sniff_csv('/etc/passwd')": "sniff_csv is refused",
    "SELECT * FROM glob('/home/*')": "glob is refused",
    "SELECT * FROM '/etc/passwd'": "table '/etc/passwd' is refused",
    "SELECT * FROM 'https://example.org/x.parquet'": "is refused",
    'FROM "data.csv"': "is refused",
    "TABLE 'x.parquet'": "is refused|cannot be parsed",
    "SUMMARIZE 'x.csv'": "is refused",
    "DESCRIBE SELECT * FROM 'x.csv'": "is refused",
    "SELECT * FROM manifest, LATERAL (SELECT * FROM read_text(source_id))": "read_text is refused",
    "SELECT (SELECT content FROM read_text('/etc/passwd'))": "read_text is refused",
    "SELECT 1 WHERE EXISTS (FROM glob('/root/*'))": "glob is refused",
    "SELECT 1 ORDER BY (SELECT count(*) FROM glob('*'))": "glob is refused",
    "SELECT 1 LIMIT (SELECT count(*) FROM glob('*'))": "glob is refused",
    "SELECT sum(position) FILTER ((SELECT true FROM glob('*'))) OVER () FROM manifest": "glob is refused",
    "SELECT * REPLACE ((SELECT content FROM read_text('/etc/passwd')) AS task) FROM manifest": "read_text",
    "SELECT COLUMNS(c -> (SELECT true FROM glob('*'))) FROM manifest": "glob is refused",
    "VALUES ((SELECT content FROM read_text('/etc/passwd')))": "read_text is refused",
    "SELECT 1 UNION ALL SELECT count(*) FROM glob('*')": "glob is refused",
    "SELECT * FROM manifest PIVOT (max((SELECT content FROM read_text('/x'))) FOR task IN ('a'))": "read_text",
    "SELECT * FROM manifest JOIN samples ON (SELECT true FROM glob('*'))": "glob is refused",
    # the machine, the connection, hidden SQL
    "SELECT getenv('AWS_SECRET_ACCESS_KEY')": "function getenv is refused",
    "SELECT 'HOME'.getenv()": "function getenv is refused",
    "SELECT current_setting('temp_directory')": "current_setting is refused",
    "SELECT getvariable('x')": "getvariable is refused",
    "SELECT * FROM duckdb_settings()": "duckdb_settings is refused",
    "SELECT * FROM duckdb_secrets()": "duckdb_secrets is refused",
    "SELECT * FROM duckdb_views": "is refused",
    "SELECT * FROM information_schema.tables": "'information_schema.tables' is refused",
    "SELECT * FROM pg_catalog.pg_settings": "is refused",
    "SELECT * FROM sqlite_master": "is refused",
    "SELECT * FROM system.main.duckdb_tables": "is refused",
    "SELECT * FROM temp.image_embeddings": "is refused",
    "SELECT * FROM lance_image_embeddings_0": "is refused",
    "SHOW TABLES": "SHOW is refused",
    "SHOW ALL TABLES": "SHOW is refused",
    "SELECT * FROM (SHOW DATABASES)": "SHOW is refused",
    "SELECT * FROM query('SELECT 1')": "table function query is refused",
    "SELECT * FROM query_table('manifest')": "query_table is refused",
    "SELECT * FROM json_execute_serialized_sql('{}')": "json_execute_serialized_sql is refused",
    "SELECT json_deserialize_sql('{}')": "is refused",
    "SELECT * FROM arrow_scan(1, 2, 3)": "arrow_scan is refused",
    "SELECT * FROM pandas_scan(1)": "pandas_scan is refused",
    "SELECT * FROM python_map_function(1)": "python_map_function is refused",
    "SELECT write_log('x')": "write_log is refused",
    "SELECT nextval('s')": "nextval is refused",
    "SELECT system.main.getvariable('x')": "is refused",
    "SELECT other.lower('x')": "lower is refused",
    "SELECT $1": "PARAMETER is refused",
    "SELECT ?": "PARAMETER is refused",
    # names that WITH defines somewhere else
    "SELECT * FROM x, (WITH x AS (SELECT 1) SELECT * FROM x)": "table 'x' is refused",
    "WITH duckdb_views AS (SELECT * FROM duckdb_views) SELECT * FROM duckdb_views": "is refused",
    "WITH a AS (SELECT * FROM pg_class), pg_class AS (SELECT 1) SELECT * FROM a": "table 'pg_class' is refused",
    "WITH RECURSIVE pg_class AS (SELECT * FROM pg_class UNION ALL SELECT * FROM pg_class) FROM pg_class": "refused",
    'WITH "x.csv" AS (SELECT 1) SELECT * FROM "x.csv"': "WITH name",
    "WITH x AS (SELECT 1) SELECT * FROM main.x": "is refused",
    # what grows or waits
    "SELECT repeat('x', 1000000000000)": "function repeat is refused",
    "SELECT lpad('x', 2000000000, 'y')": "function lpad is refused",
    "SELECT range(10000000000)": "function range is refused",
    "SELECT generate_series(1, 10000000000)": "function generate_series is refused",
    "SELECT list_resize([1], 1000000000)": "function list_resize is refused",
    "SELECT printf('%2000000000d', 1)": "function printf is refused",
    "SELECT format('{:>2000000000}', 1)": "function format is refused",
    "SELECT sleep_ms(1000000)": "function sleep_ms is refused",
    "SELECT pg_sleep(1000000)": "function pg_sleep is refused",
    "SELECT * FROM repeat(1, 1000000000000)": "table function repeat is refused",
    "SELECT " + "(" * 5000 + "1" + ")" * 5000: "cannot be parsed|too deeply|exactly one",
    "SELECT " + "1+" * 60_000 + "1": "characters",
}  # fmt: skip

LEGITIMATE = {
    "SELECT * FROM manifest": {"manifest"},
    "select Task, count(*) from MANIFEST group by all order by 2 desc limit 3": {"manifest"},
    "FROM main.samples SELECT n_turns WHERE n_characters BETWEEN 1 AND 2": {"samples"},
    "WITH t AS (SELECT task FROM manifest), u AS (SELECT * FROM t) SELECT * FROM u JOIN t USING (task)": {"manifest"},
    "WITH RECURSIVE r AS (SELECT 1 n UNION ALL SELECT n + 1 FROM r WHERE n < 5) SELECT * FROM r": set(),
    "WITH manifest AS (SELECT 1 AS x) SELECT x FROM manifest": set(),
    "SELECT *, row_number() OVER w FROM presel_scores WINDOW w AS (PARTITION BY task ORDER BY typicality DESC)": {
        "presel_scores"
    },
    "SELECT * FROM presel_scores QUALIFY percent_rank() OVER (PARTITION BY task ORDER BY typicality) > 0.85": {
        "presel_scores"
    },
    "SELECT * FROM (SELECT task, n_rows FROM presel_tasks) PIVOT (sum(n_rows) FOR task IN ('a', 'b'))": {"presel_tasks"},
    "SELECT * FROM presel_tasks UNPIVOT (value FOR name IN (n_rows, n_reference))": {"presel_tasks"},
    "SELECT json_extract_string(row_json, '$.id'), row_json->>'task', row_json->'a' FROM samples": {"samples"},
    "SELECT key, value FROM samples, json_each(row_json)": {"samples"},
    "SELECT list_transform(image_ids, x -> x[:8]), [i for i in image_ids if i <> ''] FROM samples": {"samples"},
    "SELECT list_cosine_similarity(a.vector, b.vector) FROM image_embeddings a, image_embeddings b": {"image_embeddings"},
    "SELECT unnest(inputs) FROM lineage": {"lineage"},
    "SELECT i FROM range(3) t(i), unnest([1, 2]) u(j), generate_series(1, 2) g(k)": set(),
    "SELECT CAST(1 AS DECIMAL(10, 2)), TRY_CAST('x' AS INTEGER), '2026-01-01'::DATE + INTERVAL 1 DAY, 1.5::DOUBLE": set(),
    "SELECT CASE WHEN loss_sum IS NULL THEN 0 ELSE 1 END, coalesce(loss_mean, 0) FROM losses": {"losses"},
    "SELECT DISTINCT ON (task) * FROM presel_scores ORDER BY task, typicality DESC NULLS LAST": {"presel_scores"},
    "SELECT task FROM manifest INTERSECT SELECT task FROM presel_tasks EXCEPT SELECT 'x'": {"manifest", "presel_tasks"},
    "SELECT * EXCLUDE (row_json), COLUMNS('n_.*') FROM samples USING SAMPLE 10": {"samples"},
    "SELECT quantile_cont(typicality, [0.1, 0.5]), histogram(cluster) FROM presel_scores": {"presel_scores"},
    "SELECT {'a': 1, 'b': [1, 2]}, MAP {'k': 1}, (1, 2)": set(),
    "SELECT 'it''s; DROP VIEW x', E'\\n', $$a;b$$ -- ; comment": set(),
    "SELECT task FROM manifest WHERE task LIKE 'a%' AND task ~ 'b' AND sample_id IN (SELECT sample_id FROM losses);": {
        "manifest",
        "losses",
    },
    "SELECT * FROM manifest m WHERE EXISTS (FROM losses l WHERE l.sample_id = m.sample_id)": {"manifest", "losses"},
    "SELECT * FROM manifest ASOF JOIN quarantine USING (dataset, position)": {"manifest", "quarantine"},
    "SELECT task, dataset, sum(position) FROM manifest GROUP BY GROUPING SETS ((task), (dataset), ())": {"manifest"},
    "DESCRIBE manifest": {"manifest"},
    "SUMMARIZE SELECT typicality FROM presel_scores": {"presel_scores"},
    "VALUES (1, 'a'), (2, 'b')": set(),
    "SELECT * FROM (VALUES (1)) t(x)": set(),
    "SELECT * FROM columns WHERE table_name = 'losses'": {"columns"},
    "SELECT current_date, now(), epoch(created_at::TIMESTAMPTZ) FROM lineage": {"lineage"},
    "SELECT sum(list_sum(vector)) OVER (ORDER BY id ROWS 2 PRECEDING) FROM image_embeddings": {"image_embeddings"},
}


@pytest.mark.parametrize("sql", list(ATTACKS), ids=lambda sql: sql[:60])
def test_an_attack_is_refused_and_named(sql):
    with pytest.raises(QueryError, match=ATTACKS[sql]):
        check_query(sql, catalog_tables())


@pytest.mark.parametrize("sql", list(LEGITIMATE), ids=lambda sql: sql[:60])
def test_an_analytical_query_is_accepted_with_the_tables_it_reads(sql):
    assert check_query(sql, catalog_tables()) == LEGITIMATE[sql]


def test_a_refused_table_names_the_allowed_ones():
    with pytest.raises(QueryError, match="presel_scores"):
        check_query("SELECT * FROM preselscores", catalog_tables())


def test_a_refused_function_names_similar_ones():
    with pytest.raises(QueryError, match="median"):
        check_query("SELECT medan(1)", catalog_tables())


def test_a_syntax_error_keeps_its_place():
    with pytest.raises(QueryError, match="cannot be parsed.*LINE 1"):
        check_query("SELECT FROM WHERE", catalog_tables())


def test_the_length_limit_counts_characters():
    check_query("SELECT 1" + " " * (MAX_CHARACTERS - 8), [])
    with pytest.raises(QueryError, match="characters"):
        check_query("SELECT 1" + " " * (MAX_CHARACTERS - 7), [])


def test_every_allowed_function_exists_and_none_is_a_table_function_in_disguise():
    import duckdb

    rows = duckdb.connect().execute("SELECT DISTINCT lower(function_name), function_type FROM duckdb_functions()")
    kinds: dict[str, set[str]] = {}
    for name, kind in rows.fetchall():
        kinds.setdefault(name, set()).add(kind)
    assert set(kinds) >= FUNCTIONS
    assert all(kinds[name] & {"scalar", "aggregate", "macro"} for name in FUNCTIONS - {"unnest"})
    assert all("table" in kinds[name] for name in TABLE_FUNCTIONS)


@given(st.text(max_size=40))
def test_any_text_is_accepted_or_refused_but_never_breaks(text):
    for sql in (text, f"SELECT {text}", f"SELECT * FROM {text}", f"SELECT '{text}'"):
        try:
            check_query(sql, catalog_tables())
        except QueryError as error:
            assert str(error)
