from dataclasses import replace

import numpy as np
import orjson
import pytest
from answer_models import Answers

from vsel_platform.errors import DataError
from vsel_platform.evaluation.benchmark import ratio_measure
from vsel_platform.evaluation.leaderboard import leaderboard
from vsel_platform.evaluation.run_groups import Run


@pytest.fixture
def answers() -> Answers:
    return Answers(np.random.default_rng(0), 100)


def with_full(answers: Answers, **options):
    runs = answers.runs({"good": 0.7, "bad": -0.7}, seeds=2, **options)
    return [*runs, *(answers.run("full", 100.0, seed, 1.5) for seed in range(2))]


def test_rows_stand_by_budget_and_rank_with_full_data_last(answers):
    board = leaderboard(with_full(answers), answers.clusters)
    assert [(row.budget, row.label, row.rank) for row in board.rows] == [
        (5.0, "good", 1), (5.0, "random", 2), (5.0, "bad", 3),
        (20.0, "good", 1), (20.0, "random", 2), (20.0, "bad", 3),
        (100.0, "full", None),
    ]  # fmt: skip
    assert (board.n_questions, board.n_clusters) == (300, 100)
    assert all(row.rank_low <= row.rank <= row.rank_high for row in board.rows if row.rank)
    assert board.notes == ()


def test_values_are_means_over_seeds_and_relative_to_full_data(answers):
    runs = with_full(answers)
    board = leaderboard(runs, answers.clusters)
    rows = {(row.label, row.budget): row for row in board.rows}

    def mean(label, budget):
        return np.mean([run.measure.estimate for run in runs if (run.label, run.budget) == (label, budget)])

    good, full = rows["good", 5.0], rows["full", 100.0]
    assert good.value == pytest.approx(mean("good", 5.0))
    assert good.low < good.value < good.high
    assert good.relative == pytest.approx(100 * mean("good", 5.0) / mean("full", 100.0))
    assert good.relative_low < good.relative < good.relative_high
    assert good.difference == pytest.approx(mean("good", 5.0) - mean("random", 5.0))
    assert (full.verdict, full.relative, full.difference, full.rank) == ("full data", None, None, None)
    assert good.recipes == ("good-5-0", "good-5-1")


def test_costs_are_means_of_what_is_known(answers):
    board = leaderboard(with_full(answers), answers.clusters)
    rows = {row.label: row for row in board.rows}
    assert rows["good"].selection_seconds == 3.5
    assert rows["full"].selection_seconds is None
    assert rows["full"].training_seconds == 60.0
    assert rows["good"].n_rows == 200


@pytest.mark.parametrize(
    ("seeds", "text"), [(1, "1 random seed,"), (2, "2 random seeds,"), (4, "4 random seeds,"), (5, "")]
)
def test_a_band_takes_five_random_seeds_and_the_note_says_so(seeds, text):
    answers = Answers(np.random.default_rng(0), 40)
    board = leaderboard(answers.runs({}, (5.0,), random=seeds), answers.clusters, n_resamples=20)
    (band,) = board.bands
    assert ((band.low, band.high) == (None, None)) == bool(text)
    assert band.smallest <= band.mean <= band.largest
    assert any(f"Budget 5%: {text} 5 are needed for a band." in note for note in board.notes) == bool(text)


def test_a_band_of_shares_stays_possible():
    runs = [Answers(np.random.default_rng(seed), 4, seed_sd=3.0).run("random", 5.0, seed) for seed in range(5)]
    (band,) = leaderboard(runs, [str(i) for i in range(len(runs[0].measure.statistics))], n_resamples=20).bands
    assert 0 <= band.low < band.high <= 100
    assert (band.low, band.high) == (0, 100), "the spread of these reaches beyond"


def test_the_random_band_is_where_one_more_random_run_falls():
    rng = np.random.default_rng(2)
    inside = 0
    for _ in range(200):
        answers = Answers(rng, 40, 2, 0.5, 0.2)
        *runs, new = (answers.run("random", 5.0, seed) for seed in range(6))
        (band,) = leaderboard(runs, answers.clusters, n_resamples=20).bands
        assert band.low < band.smallest <= band.mean <= band.largest < band.high
        inside += band.low <= new.measure.estimate <= band.high
    assert 0.90 <= inside / 200 <= 0.99


def test_less_is_better_where_the_measure_says_so(answers):
    runs = with_full(answers)
    turned = [replace(run, measure=replace(run.measure, name="errors", lower_is_better=True)) for run in runs]
    board = leaderboard(turned, answers.clusters)
    rows = {(row.label, row.budget): row for row in board.rows}
    assert rows["good", 5.0].verdict == "worse than random"
    assert (rows["bad", 5.0].verdict, rows["bad", 5.0].rank) == ("better than random", 1)
    assert rows["bad", 5.0].difference < 0


def test_the_order_of_runs_changes_nothing(answers):
    runs = with_full(answers)
    assert leaderboard(runs, answers.clusters, seed=3) == leaderboard(runs[::-1], answers.clusters, seed=3)


def test_without_random_runs_a_budget_is_not_judged(answers):
    runs = [run for run in with_full(answers) if (run.label, run.budget) != ("random", 20.0)]
    board = leaderboard(runs, answers.clusters)
    verdicts = {(row.label, row.budget): row.verdict for row in board.rows}
    assert verdicts["good", 20.0] == "not judged"
    assert verdicts["good", 5.0] == "better than random"
    assert board.notes == ("Budget 20%: no random run, so no method is judged.",)


def test_few_random_seeds_are_told(answers):
    board = leaderboard(with_full(answers, random=3), answers.clusters, budget_unit="rows")
    assert board.notes == (
        "Budget 5 rows: 3 random seeds, 5 are needed for a band.",
        "Budget 20 rows: 3 random seeds, 5 are needed for a band.",
    )


def test_without_a_second_seed_nothing_is_judged(answers):
    board = leaderboard(answers.runs({"a": 3.0}, (5.0,), random=1), answers.clusters)
    assert {row.verdict for row in board.rows} == {"random", "not judged"}
    assert (board.n_comparisons, board.critical, board.bands[0].low) == (0, None, None)
    assert any("spread between seeds is unknown" in note for note in board.notes)


def test_few_clusters_are_not_judged():
    answers = Answers(np.random.default_rng(0), 19)
    board = leaderboard(answers.runs({"a": 9.0}, (5.0,)), answers.clusters)
    assert {row.verdict for row in board.rows} == {"random", "not judged"}
    assert board.notes == ("19 clusters of questions: below 20 nothing is judged.",)


def test_a_label_without_a_value_never_ranks(answers):
    n = len(answers.clusters)
    nothing = ratio_measure("exact match", np.zeros(n), np.zeros(n))
    runs = [*answers.runs({"a": 0.0}, (5.0,)), replace(answers.run("mute", 5.0, 0), measure=nothing)]
    board = leaderboard(runs, answers.clusters)
    (mute,) = (row for row in board.rows if row.label == "mute")
    assert (mute.value, mute.low, mute.rank, mute.verdict) == (None, None, None, "not judged")
    assert board.rows[-1] is mute
    assert board.notes == ("No value, as the metric is not defined on its answers: mute at 5%.",)


def test_full_data_has_one_budget(answers):
    with pytest.raises(DataError, match="budgets 50, 100"):
        leaderboard([*with_full(answers), answers.run("full", 50.0, 0)], answers.clusters)


def test_it_is_plain_values_for_json(answers):
    found = orjson.loads(orjson.dumps(leaderboard(with_full(answers), answers.clusters).to_dict()))
    assert any(row["p_adjusted"] is not None for row in found["rows"])
    assert found["rows"][0]["label"] == "good"
    assert {one["budget"] for one in found["seed_noise"]} == {5.0, 20.0, 100.0}


def test_a_board_names_its_dataset_and_what_was_noted_before():
    answers = Answers(np.random.default_rng(0))
    runs = answers.runs({"a": 0.0}, (5.0,), random=1)
    board = leaderboard(runs, answers.clusters, dataset="shapes", notes=["first"], n_resamples=50)
    assert (board.dataset, board.notes[0]) == ("shapes", "first")
    assert len(board.notes) == 1 + len(leaderboard(runs, answers.clusters, n_resamples=50).notes)
    assert board.to_dict()["dataset"] == "shapes"


def shares(label, right, seed, n=25):
    """A run with `right` of n answers right, each about an image of its own."""
    scores = np.array([1.0] * right + [0.0] * (n - right))
    return Run(label + str(seed), label, 5.0, seed, ratio_measure("accuracy", scores, np.ones(n)), None, None, n)


@pytest.mark.parametrize(("right", "low", "high"), [(0, 0.0, 13.7), (25, 86.3, 100.0)])
def test_a_share_at_an_end_has_the_exact_interval(right, low, high):
    clusters = [str(i) for i in range(25)]
    (row,) = leaderboard([shares("random", right, 0)], clusters).rows
    assert (row.low, row.high) == (pytest.approx(low, abs=0.05), pytest.approx(high, abs=0.05))


def test_noise_between_seeds_does_not_lead_a_share_out_of_what_is_possible():
    clusters = [str(i) for i in range(25)]
    runs = [shares("random", right, seed) for seed, right in enumerate((0, 5, 0, 6, 1))]
    runs += [shares("full", right, seed) for seed, right in enumerate((25, 20))]
    board = leaderboard([*runs, shares("x", 0, 0)], clusters)
    assert all(0 <= row.low <= row.value <= row.high <= 100 for row in board.rows)
    assert all(row.relative_low >= 0 for row in board.rows if row.relative_low is not None)
