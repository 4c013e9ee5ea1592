import base64
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from report_store import NASTY

from vsel_platform.reports.html import figures, selection_page
from vsel_platform.reports.plots import TaskBudget
from vsel_platform.reports.ranking import RankedRow, ReasonPlace
from vsel_platform.reports.selection_report import Plot, SelectionReport

REASONS = ("reference", NASTY)
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Tags, attributes and texts of a page; raises on a tag that is not closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def count(self, name: str) -> int:
        return sum(tag == name for tag, _ in self.tags)

    def attributes(self, name: str, attribute: str) -> list[str]:
        return [attrs[attribute] for tag, attrs in self.tags if tag == name and attribute in attrs]


def report(**changes) -> SelectionReport:
    ranking = [
        RankedRow(
            i, "ab" * 32, 10 * i, f"task {NASTY}", "image", REASONS[i > 5], None if i <= 5 else 0.5, f"text {NASTY}"
        )
        for i in range(1, 51)
    ]
    plain = SelectionReport(
        recipe="typical",
        dataset="shapes",
        method="presel",
        mode="default",
        budget="25 % of the rows",
        seed=12345,
        rounds=3,
        n_selected=1500,
        n_rows=6000,
        reasons={NASTY: 1500},
        tasks=[TaskBudget(NASTY, 10, 2, 5, 4, 0.25, None), TaskBudget("count", 4000, 0, 9, 9, 0.75, 0.5)],
        ranking=ranking,
        places=[ReasonPlace("reference", 245, 1, 245, False), ReasonPlace(NASTY, 45, 246, 290, True)],
        notes=[NASTY],
        files={"Manifest": "manifest.json", "Training file": 'a "file"&.json'},
        plots=[Plot("budgets", b"\x89PNG one"), Plot(f'map" {NASTY}', b"\x89PNG two")],
    )
    return replace(plain, **changes)


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(selection_page(report()))


def test_data_is_never_markup(page):
    assert page.count("script") == 0
    assert sum(NASTY in text for text in page.texts) >= 50 * 2 + 3


def test_nothing_is_loaded_from_anywhere(page):
    html = selection_page(report())
    assert page.attributes("img", "src") == [
        "data:image/png;base64," + base64.b64encode(png).decode() for png in (b"\x89PNG one", b"\x89PNG two")
    ]
    assert page.count("link") == 0
    assert not re.search(r"url\(|@import|https?://", html)
    assert any("default-src 'none'" in value for value in page.attributes("meta", "content"))


def test_every_row_of_tasks_ranking_and_files_is_there(page):
    assert page.count("tr") == (1 + 2) + (1 + 2) + (1 + 2 + 50)
    assert {"12", "4,000", "75.0%", "–"} <= set(page.texts)


def test_every_reason_says_where_its_rows_stand(page):
    assert "Ranks 1 to 245 are reference rows, none with a score." in page.texts
    assert f"Ranks 246 to 290 are {NASTY} rows." in page.texts


def test_tasks_have_totals_with_reference_and_a_named_share(page):
    assert {"With reference", "Share of the image rows left after reference"} <= set(page.texts)
    cells = page.texts[page.texts.index("With reference") :]
    assert cells[cells.index(NASTY) : cells.index("count")].count("6") == 1
    assert any(text.startswith("Share, budget and selected rows are without the reference rows") for text in page.texts)
    text_only = [TaskBudget("text", 400, 0, 60, 60, 0.0, 0.4), TaskBudget("none", 4, 0, 0, 0, 0.0, 0.4)]
    assert {"own stratum", "0.0%"} <= set(Page(selection_page(report(tasks=text_only))).texts)
    assert "own stratum" not in Page(selection_page(report(tasks=text_only, method="visnec"))).texts
    assert "Share of the budget" in Page(selection_page(report(method="random"))).texts


def test_links_are_relative_file_names(page):
    assert page.attributes("a", "href") == ["./manifest.json", "./a%20%22file%22%26.json"]


def test_numbers_lead(page):
    assert "1,500 of 6,000 distinct rows (25.0%) of dataset shapes, chosen by presel." in page.texts
    assert {"25 % of the rows", "presel (default)", "12345"} <= set(page.texts)


def test_light_and_dark(page):
    assert "prefers-color-scheme: dark" in selection_page(report())


def test_a_report_without_rows_has_no_empty_sections():
    bare = Page(selection_page(report(tasks=[], ranking=[], notes=[], files={}, plots=[], reasons={}, n_rows=0)))
    assert bare.count("section") == bare.count("table") == 0


def test_the_plots_of_a_page_can_be_read_back():
    plots = [Plot(NASTY, b"\x89PNG one"), Plot("scores", b"\x89PNG two")]
    assert figures(selection_page(report(plots=plots, recipe='<figure><img alt="x"'))) == plots
    assert figures("") == []
