from dataclasses import replace

import numpy as np
import pytest
from answer_models import Answers
from report_store import NASTY

from vsel_platform.evaluation.leaderboard import Leaderboard, leaderboard
from vsel_platform.reports.html import figures
from vsel_platform.reports.leaderboard import HEADERS, explanation, leaderboard_markdown, leaderboard_page, summary


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
    assert "| full | 100 % | 1,000 | 2 |" in lines[-1]


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
    assert leaderboard_page(two, title="T").count("<h2>Methods</h2>") == 2
    assert "<h1>Dataset one</h1>" in leaderboard_page(two, title="T")
    assert "one</h1>" not in leaderboard_page([alone], title="T")
    assert leaderboard_markdown(two).startswith("## Dataset one\n")
    assert "## Dataset" not in leaderboard_markdown([alone, replace(alone, measure="loss")])


def test_what_is_not_known_is_a_dash_and_a_note():
    answers = Answers(np.random.default_rng(0), 100)
    alone = leaderboard(answers.runs({"a": 0.0}, (5.0,), random=1), answers.clusters, n_resamples=100)
    assert summary(alone).endswith("Nothing could be judged.")
    assert "| not judged |" in leaderboard_markdown([alone])
    assert "Note: Budget 5%: 1 random seeds" in leaderboard_markdown([alone])
    assert alone.notes[0] in leaderboard_page([alone], title="T")
    assert len(explanation(alone)) == 1


def test_the_explanation_names_the_critical_value_and_the_spread_of_seeds(board):
    texts = explanation(board)
    assert f"{board.critical:.2f} standard errors" in texts[1]
    assert "standard deviation" in texts[2]


def test_losses_are_shown_with_their_digits(board):
    row = replace(board.rows[0], value=1.23456, low=1.2, high=1.3)
    text = leaderboard_markdown([replace(board, unit="nat/token", rows=(row,))])
    assert "1.235 (1.200 to 1.300)" in text
