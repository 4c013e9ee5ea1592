import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sql_cases import ATTACKS, LEGITIMATE

from vsel_platform.errors import QueryError
from vsel_platform.storage.catalog_schema import catalog_tables
from vsel_platform.storage.sql_check import MAX_CHARACTERS, check_query
from vsel_platform.storage.sql_functions import FUNCTIONS, TABLE_FUNCTIONS


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
    with pytest.raises(QueryError, match=r"cannot be parsed.*\(at character 13\)"):
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
@settings(deadline=None, max_examples=40)
def test_any_text_is_accepted_or_refused_but_never_breaks(text):
    for sql in (text, f"SELECT {text}", f"SELECT * FROM {text}", f"SELECT '{text}'"):
        try:
            check_query(sql, catalog_tables())
        except QueryError as error:
            assert str(error)
