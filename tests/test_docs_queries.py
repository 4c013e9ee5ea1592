import re
from pathlib import Path

import pytest
from synthetic_store import ENCODER, FAILED, RECIPE, build

from vsel_platform.storage.catalog import open_catalog
from vsel_platform.storage.catalog_schema import catalog_tables
from vsel_platform.storage.sql_check import check_query
from vsel_platform.tables import TABLES

PAGE = Path(__file__).parents[1] / "docs" / "queries.md"
BLOCK = re.compile(r"(?P<title>[^\n]+)\n\n```sql\n(?P<sql>.*?)```", re.DOTALL)
KNOWN = [*catalog_tables(), "vig_scores", "perplexity_scores"]
QUERIES = [(match["title"], match["sql"]) for match in BLOCK.finditer(PAGE.read_text("utf-8"))]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return build(str(tmp_path_factory.mktemp("docs") / "store"))


@pytest.fixture(scope="module")
def catalog(store):
    return open_catalog(store)


def test_the_page_has_sixteen_queries_each_with_a_sentence_before_it():
    assert len(QUERIES) == PAGE.read_text("utf-8").count("```sql") == 16
    assert all(title.rstrip()[-1] in ":." for title, _ in QUERIES)


@pytest.mark.parametrize(("title", "sql"), QUERIES, ids=[title[:40] for title, _ in QUERIES])
def test_a_query_of_the_page_is_allowed_and_finds_rows(catalog, title, sql):
    assert check_query(sql, KNOWN)
    assert catalog.execute(sql).fetchall()


def test_the_queries_read_most_tables():
    used = set().union(*(check_query(sql, KNOWN) for _, sql in QUERIES))
    assert len(used & {*TABLES, "image_embeddings", "lineage"}) >= 14


def find(catalog, title: str) -> list[tuple]:
    (sql,) = [sql for text, sql in QUERIES if title in text]
    return catalog.execute(sql).fetchall()


def test_the_best_fifteen_percent_are_exactly_that_many(catalog):
    rows = find(catalog, "15 %")
    for task, count in catalog.execute("SELECT task, count(typicality) FROM presel_scores GROUP BY task").fetchall():
        assert sum(row[2] == task for row in rows) == -(-count * 3 // 20)


def test_an_image_without_embedding_is_found_with_its_reason(catalog):
    assert [row[:2] + row[3:] for row in find(catalog, "no embedding")] == [(ENCODER, FAILED, "unreadable")]


def test_lineage_says_what_has_changed_since(catalog):
    rows = find(catalog, "changed since")
    assert len(rows) == 12
    assert all(row[3] for row in rows)


def test_wrong_answers_are_counted_by_task(catalog):
    rows = {row[1:3]: row[3:] for row in find(catalog, "wrong answer that is given most often")}
    assert rows["base", "caption"] == (10, 9, 1, 0, "no")
    assert rows[RECIPE, "colour"] == (10, 2, 1, 0, "no")


def test_an_answer_that_became_wrong_is_found(catalog):
    rows = find(catalog, "became wrong")
    assert [row[1:4] + row[6:] for row in rows] == [(RECIPE, "position", "position-3", "no")]


def test_what_was_learned_is_paired_by_task(catalog):
    rows = {row[3]: row[4:] for row in find(catalog, "changed, by task")}
    assert rows["colour"] == (20, 80, 60)
    assert rows[""] == (20, 42.5, 22.5)


def test_a_leak_counts_its_questions_once(catalog):
    assert find(catalog, "stand in the selected rows") == [(RECIPE, "held_out", "image", 2, 2, "colour-1")]
