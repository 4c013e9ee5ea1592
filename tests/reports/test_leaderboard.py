from dataclasses import replace

import numpy as np
import pytest
from answer_models import Answers
from report_store import NASTY

from vsel_platform.evaluation.leaderboard import Leaderboard, leaderboard
from vsel_platform.reports.html import figures
from vsel_platform.reports.leaderboard import (
    HEADERS,
    explanation,
    leaderboard_markdown,
    leaderboard_page,
    spread,
    summary,
)


@pytest.fixture(scope="module")
def board() -> Leaderboard:
    answers = Answers(np.random.default_rng(0), 100)
    runs = answers.runs({"good": 0.7, NASTY: 0.0}, seeds=2)
    runs += [answers.run("full", 100.0, seed, 1.5) for seed in range(2)]
    return leaderboard(runs, answers.clusters, n_resamples=500)


def test_the_summary_counts_verdicts(board):
    assert summary(board) == (
        "exact match [percent] on 300 questions in 100 clusters. Of 4 comparisons with random selection: "
        "2 better than random, 0 worse than random, 2 not distinguishable from random."
    )


def test_the_page_has_everything_and_loads_nothing(board):
    page = leaderboard_page([board], title="Selections")
    assert NASTY not in page
    assert "http://" not in page
    assert "https://" not in page
    assert page.count("data:image/png;base64,") == 1
    for heading in ("Plot", "Methods", "Random runs", "Does the ranking hold?", "How it is judged"):
        assert f"<h2>{heading}</h2>" in page
    assert page.count("not distinguishable from random") >= 2


def test_the_markdown_table_has_a_line_per_row(board):
    text = leaderboard_markdown([board])
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(board.rows)
    assert lines[0] == "| " + " | ".join(HEADERS) + " |"
    good = lines[2]
    row = board.rows[0]
    assert f"{row.value:.1f} ({row.low:.1f} to {row.high:.1f})" in good
    assert "better than random (adjusted +" in good
    assert "| 1 (1 to 1) | 3.5 s | 60.0 s |" in good
    assert "| full | full-100-0, full-100-1 | 100 % | 1,000 | 2 |" in lines[-1]


def test_figures_of_two_boards_have_names_of_their_own(board):
    boards = [replace(board, dataset=name, measure=measure) for measure in ("a", "b") for name in ("one", NASTY)]
    pages = [leaderboard_page(boards[:2], title="A"), leaderboard_page(boards[2:], title="B")]
    pages += [leaderboard_page([replace(board, measure="c")], title="C")]
    names = [plot.name for page in pages for plot in figures(page)]
    assert len(names) == len({*names}) == 5


def test_datasets_are_parts_of_the_page_and_named_only_where_there_are_several(board):
    alone = replace(board, dataset="one")
    two = [alone, replace(board, dataset=NASTY)]
    assert NASTY not in leaderboard_page(two, title="T")
    assert leaderboard_page(two, title="T").count("<h3>Methods</h3>") == 2
    assert '<h2 class="part">Dataset one</h2>' in leaderboard_page(two, title="T")
    assert 'class="part"' not in leaderboard_page([alone], title="T")
    assert leaderboard_markdown(two).startswith("## Dataset one\n")
    assert "## Dataset" not in leaderboard_markdown([alone, replace(alone, measure="loss")])


def test_what_is_not_known_is_a_dash_and_a_note():
    answers = Answers(np.random.default_rng(0), 100)
    alone = leaderboard(answers.runs({"a": 0.0}, (5.0,), random=1), answers.clusters, n_resamples=100)
    assert summary(alone).endswith("Nothing could be judged.")
    assert "| not judged |" in leaderboard_markdown([alone])
    assert "Note: Budget 5%: 1 random seed, 5 are needed" in leaderboard_markdown([alone])
    assert alone.notes[0] in leaderboard_page([alone], title="T")
    assert len(explanation([alone])) == 1
    assert spread(alone) == []


def test_measures_are_parts_of_the_page_in_their_order_and_explained_once(board):
    loss = replace(board, measure="loss", unit="nat/token", lower_is_better=True, n_resamples=700)
    boards = [replace(one, dataset=name) for name in ("one", "two") for one in (board, loss)]
    page = leaderboard_page(boards, title="T")
    parts = [f'<h2 class="part">Dataset {name}</h2>' for name in
             ("one, exact match", "one, loss", "two, exact match", "two, loss")]  # fmt: skip
    places = [page.index(part) for part in parts]
    assert places == sorted(places)
    assert '<h2 class="part">Loss</h2>' in leaderboard_page([board, loss], title="T")
    for text in (page, leaderboard_markdown(boards)):
        assert [text.count(paragraph) for paragraph in explanation(boards)] == [1, 1]
        assert text.count(spread(board)[1]) == 2
    assert "(500 or 700 times" in explanation(boards)[0]


def test_every_board_tells_its_critical_value_and_the_spread_of_seeds(board):
    texts = spread(board)
    assert texts[0] == f"Adjusted intervals of 4 comparisons: {board.critical:.2f} standard errors to either side."
    assert "standard deviation" in texts[1]
    assert texts[0] in leaderboard_page([board], title="T") and texts[0] in leaderboard_markdown([board])


def test_the_recipes_of_a_line_are_told_the_first_four_by_name(board):
    row = replace(board.rows[0], recipes=tuple("abcdef"))
    few = replace(board, rows=(row, replace(row, recipes=(NASTY,))))
    assert "| a, b, c, d and 2 more |" in leaderboard_markdown([few])
    page = leaderboard_page([few], title="T")
    assert '<span class="small">a, b, c, d and 2 more</span>' in page
    assert NASTY not in page + leaderboard_markdown([few])


def test_a_share_of_full_data_is_told_only_where_there_are_such_data_and_more_is_better(board):
    less = replace(board, lower_is_better=True)
    alone = replace(board, rows=board.rows[-1:])
    for one in (less, alone):
        assert "Of full data" not in leaderboard_page([one], title="T") + leaderboard_markdown([one])
    assert len(leaderboard_markdown([less]).split("\n")[2].split(" | ")) == len(HEADERS) - 1
    for text in (leaderboard_page([board], title="T"), leaderboard_markdown([board])):
        assert "Of full data" in text


def test_losses_are_shown_with_their_digits(board):
    row = replace(board.rows[0], value=1.23456, low=1.2, high=1.3)
    text = leaderboard_markdown([replace(board, unit="nat/token", rows=(row,))])
    assert "1.235 (1.200 to 1.300)" in text
