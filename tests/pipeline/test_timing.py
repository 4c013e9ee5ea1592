import pytest

from vsel_platform.pipeline.timing import known_seconds, record_rate


@pytest.fixture
def empty(fresh):
    return fresh.context()


def test_seconds_grow_with_the_units_at_the_rate_of_the_last_run(empty):
    record_rate(empty, "losses", "model", 100, 20.0)
    assert known_seconds(empty, "losses", "model", 100) == pytest.approx(20)
    assert known_seconds(empty, "losses", "model", 350) == pytest.approx(70)
    record_rate(empty, "losses", "model", 100, 10.0)
    assert known_seconds(empty, "losses", "model", 350) == pytest.approx(35)


def test_a_rate_counts_for_its_stage_and_model_only(empty):
    record_rate(empty, "losses", "model", 100, 20.0)
    assert known_seconds(empty, "losses", "other", 100) is None
    assert known_seconds(empty, "image_embeddings", "model", 100) is None
    record_rate(empty, "presel_scores", "", 10, 1.0)
    assert known_seconds(empty, "presel_scores", "", 5) == pytest.approx(0.5)


def test_a_much_smaller_run_does_not_replace_the_rate(empty):
    record_rate(empty, "losses", "model", 100, 20.0)
    record_rate(empty, "losses", "model", 9, 15.0)
    assert known_seconds(empty, "losses", "model", 100) == pytest.approx(20)
    record_rate(empty, "losses", "model", 10, 15.0)
    assert known_seconds(empty, "losses", "model", 100) == pytest.approx(150)


def test_a_run_that_computed_nothing_leaves_no_rate(empty):
    record_rate(empty, "losses", "model", 0, 5.0)
    assert known_seconds(empty, "losses", "model", 1) is None


def test_timings_publish_nothing(empty):
    record_rate(empty, "losses", "model", 100, 20.0)
    assert list(empty.store.pointers()) == []
