import json
from dataclasses import replace

import numpy as np
import pytest
from answer_models import Answers

from vsel_platform.errors import ConfigError, DataError
from vsel_platform.evaluation.benchmark import ratio_measure
from vsel_platform.evaluation.promotion import decide


@pytest.fixture
def answers() -> Answers:
    return Answers(np.random.default_rng(0), 400, 1, seed_sd=0.0, own=0.3)


def test_a_better_candidate_is_promoted(answers):
    found = decide([answers.measure(0.5)], [answers.measure()], answers.clusters)
    assert found.ruling == "promote"
    assert found.low > 0
    assert found.reason.startswith("Better than the champion beyond the interval")
    assert found.reason.endswith("the spread between training runs is not in the interval.")
    assert found.difference == pytest.approx(found.candidate - found.champion)


def test_a_candidate_worse_beyond_the_interval_is_kept_out(answers):
    found = decide([answers.measure(-0.5)], [answers.measure()], answers.clusters, margin=2.0, max_loss=50.0)
    assert (found.ruling, found.reason[:37]) == ("keep", "Worse than the champion beyond the in")
    assert found.high < -2.0


def test_an_equal_candidate_is_promoted_where_the_benchmark_sees_enough(answers):
    same = answers.measure()
    assert decide([same], [same], answers.clusters, max_loss=1.0).ruling == "promote"
    found = decide([answers.measure()], [answers.measure()], answers.clusters)
    assert found.low < 0 < found.high
    assert found.ruling == "promote"


def test_a_wide_interval_is_no_evidence():
    """Thirty questions cannot rule a large loss out: not being shown to be worse is not enough."""
    answers = Answers(np.random.default_rng(0), 30, 1, seed_sd=0.0)
    found = decide([answers.measure()], [answers.measure()], answers.clusters)
    assert found.high > 0 > -5 > found.low
    assert found.ruling == "keep"
    assert "more questions or more seeds" in found.reason
    assert decide([answers.measure()], [answers.measure()], answers.clusters, max_loss=60).ruling == "promote"


def test_margin_as_largest_loss_is_non_inferiority(answers):
    candidate, champion = [answers.measure(-0.02)], [answers.measure()]
    low = decide(candidate, champion, answers.clusters).low
    below, above = -low + 0.1, -low - 0.1
    assert decide(candidate, champion, answers.clusters, margin=below, max_loss=below).ruling == "promote"
    assert decide(candidate, champion, answers.clusters, margin=above, max_loss=above).ruling == "keep"


def test_a_candidate_that_loses_what_matters_hardly_ever_passes():
    """True loss about 10 percent points, twice the largest loss to risk: at most one in twenty gets through."""
    rng = np.random.default_rng(3)
    through = equal = 0
    for number in range(120):
        answers = Answers(rng, 500, 1, seed_sd=0.0, own=0.2)
        champion = [answers.measure()]
        through += (
            decide([answers.measure(-0.35)], champion, answers.clusters, n_resamples=300, seed=number).ruling
            == "promote"
        )
        equal += (
            decide([answers.measure()], champion, answers.clusters, n_resamples=300, seed=number).ruling == "promote"
        )
    assert through / 120 <= 0.05
    assert equal / 120 >= 0.90


def test_spread_between_seeds_widens_the_interval():
    answers = Answers(np.random.default_rng(5), 400, 1, seed_sd=0.4)
    candidate = [answers.measure() for _ in range(3)]
    champion = [answers.measure() for _ in range(3)]
    several = decide(candidate, champion, answers.clusters)
    one = decide(candidate[:1], champion[:1], answers.clusters)
    assert (several.seed_df, one.seed_df) == (4, 0)
    assert (several.candidate_seeds, several.champion_seeds) == (3, 3)
    assert several.high - several.low > one.high - one.low
    assert "One seed each" not in several.reason


@pytest.mark.parametrize(("share", "told"), [(0.0, "wrong"), (1.0, "right"), (0.4, "alike on every question")])
@pytest.mark.parametrize(("n", "ruling"), [(25, "keep"), (71, "keep"), (72, "promote"), (400, "promote")])
def test_without_any_spread_the_number_of_clusters_says_what_is_ruled_out(share, told, n, ruling):
    right = (np.arange(n) < share * n).astype(float)
    one = ratio_measure("exact match", right, np.ones(n))
    found = decide([one], [one], [str(i) for i in range(n)])
    half = 100 * (1 - 0.025 ** (1 / n))
    assert (found.difference, found.low, found.high) == pytest.approx((0, -half, half))
    assert found.ruling == ruling
    assert told in found.reason
    assert ("is not ruled out" in found.reason) == (ruling == "keep")


def test_all_right_against_all_wrong_is_better_without_spread():
    n = 30
    wrong, right = (ratio_measure("exact match", np.full(n, share), np.ones(n)) for share in (0.0, 1.0))
    found = decide([right], [wrong], [str(i) for i in range(n)])
    assert (found.ruling, found.difference, found.high) == ("promote", 100, 100)
    assert 75 < found.low < 80
    assert found.reason.startswith("All answers were alike: right of the candidate, wrong of the champion.")
    assert decide([wrong], [right], [str(i) for i in range(n)]).ruling == "keep"


def test_only_clusters_that_count_rule_a_loss_out():
    n = 100
    counts = (np.arange(n) < 30).astype(float)
    one = ratio_measure("exact match", np.zeros(n), counts)
    assert decide([one], [one], [str(i) for i in range(n)]).low == pytest.approx(-100 * (1 - 0.025 ** (1 / 30)))


def test_equal_losses_have_no_interval_and_keep_the_champion(answers):
    n = len(answers.clusters)
    one = ratio_measure("loss", np.ones(n), np.ones(n), unit="nat/token", scale=1.0, lower_is_better=True)
    found = decide([one], [one], answers.clusters)
    assert (found.ruling, found.low, found.high) == ("keep", None, None)
    assert "no interval of a difference in nat/token" in found.reason


def test_less_is_better_turns_the_difference(answers):
    candidate, champion = ([replace(answers.measure(quality), lower_is_better=True)] for quality in (-0.5, 0.0))
    found = decide(candidate, champion, answers.clusters)
    assert found.ruling == "promote"
    assert found.difference > 0
    assert found.difference == pytest.approx(found.champion - found.candidate)


def test_what_is_not_defined_keeps_the_champion(answers):
    n = len(answers.clusters)
    nothing = ratio_measure("exact match", np.zeros(n), np.zeros(n))
    found = decide([nothing, nothing], [answers.measure()], answers.clusters)
    assert (found.ruling, found.candidate, found.difference, found.low) == ("keep", None, None, None)
    assert found.reason.startswith("The difference is not defined")


def test_few_clusters_keep_the_champion():
    answers = Answers(np.random.default_rng(0), 19, 10, seed_sd=0.0)
    found = decide([answers.measure(3.0)], [answers.measure()], answers.clusters)
    assert (found.ruling, found.low) == ("keep", None)
    assert found.reason == "The benchmark has 19 clusters of questions, fewer than 20; the champion stays."


def test_wrong_options_and_other_measures_are_refused(answers):
    one = answers.measure()
    with pytest.raises(ConfigError, match="margin 3 and max_loss 2"):
        decide([one], [one], answers.clusters, margin=3, max_loss=2)
    with pytest.raises(DataError, match="the candidate has no evaluation"):
        decide([], [one], answers.clusters)
    with pytest.raises(DataError, match=r"'loss' \[nat/token\]"):
        decide([replace(one, name="loss", unit="nat/token")], [one], answers.clusters)


def test_it_is_plain_values_and_repeatable(answers):
    candidate, champion = [answers.measure()], [answers.measure()]
    first = decide(candidate, champion, answers.clusters, seed=2)
    assert first == decide(candidate, champion, answers.clusters, seed=2)
    assert json.loads(json.dumps(first.to_dict()))["ruling"] == first.ruling
