import pyarrow as pa
import pytest
from report_store import contents, publish_selection, rows_of

from vsel_platform.config import Budget
from vsel_platform.reports.plots import TaskBudget
from vsel_platform.reports.selection_report import budget_text, selection_report, shortfalls


def tables(ctx, recipe: str) -> tuple[pa.Table, pa.Table]:
    read = [ctx.store.read_partition(name, {"recipe": recipe}) for name in ("selected_subset", "selected_tasks")]
    return read[0], read[1]


@pytest.fixture(scope="module")
def report(ctx):
    subset, tasks = tables(ctx, "typical")
    shuffled = subset.take(pa.array(range(subset.num_rows))[::-1])
    return selection_report(ctx, "typical", shuffled, tasks, notes=["note"], files={"Manifest": "manifest.json"})


def test_report_counts_rows_and_reasons(report):
    assert (report.n_selected, report.n_rows) == (14, len(contents()))
    assert report.reasons == {"typical": 13, "text": 1}
    assert report.budget == "25 % of the rows"
    assert (report.method, report.mode, report.dataset) == ("presel", "default", "shapes")


def test_ranking_is_in_rank_order_with_texts(report):
    assert [row.rank for row in report.ranking] == list(range(1, 15))
    assert all(row.text.endswith(f"It is {row.position}.") for row in report.ranking)


def test_shortfall_is_a_note(report):
    assert report.notes[0] == "note"
    assert [note.startswith("Task count: 2 rows short") for note in report.notes[1:]] == [True]


def test_presel_has_all_plots(report):
    assert [plot.name for plot in report.plots] == ["budgets", "typicality", "embedding map", "first and last rows"]
    assert all(plot.png.startswith(b"\x89PNG") and len(plot.png) < 90_000 for plot in report.plots)


def test_equal_input_gives_equal_plots(ctx, report):
    again = selection_report(ctx, "typical", *tables(ctx, "typical"), notes=["note"], files=report.files)
    assert again == report


def test_a_method_without_typicality_shows_none(ctx, tmp_path):
    publish_selection(ctx, tmp_path, "drawn")
    report = selection_report(ctx, "drawn", *tables(ctx, "drawn"))
    assert [plot.name for plot in report.plots] == ["budgets", "first and last rows"]
    assert report.budget == "12 rows"


def test_an_empty_selection_has_no_plot(empty):
    subset, tasks = (rows_of(name).empty_table() for name in ("selected_subset", "selected_tasks"))
    report = selection_report(empty, "typical", subset, tasks)
    assert (report.n_selected, report.n_rows, report.ranking, report.plots) == (0, 0, [], [])


@pytest.mark.parametrize(
    ("budget", "text"),
    [
        (Budget(rows=1), "1 row"),
        (Budget(rows=6000), "6,000 rows"),
        (Budget(percent=7.5), "7.5 % of the rows"),
        (Budget(tokens=50_000), "50,000 tokens"),
    ],
)
def test_budget_in_words(budget, text):
    assert budget_text(budget) == text


def test_met_budgets_are_no_note():
    assert shortfalls([TaskBudget("a", 10, 0, 5, 5), TaskBudget("b", 10, 0, 0, 0)]) == []
