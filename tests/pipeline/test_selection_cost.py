import shutil

import pytest

from vsel_platform.errors import NotMaterializedError
from vsel_platform.pipeline.models import embedding_fingerprint, vlm_fingerprint
from vsel_platform.pipeline.selection_cost import selection_seconds
from vsel_platform.pipeline.timing import record_rate


@pytest.fixture
def timed(copied):
    """A finished project that remembers no rate yet, its rows, and a function that says how long all of them took."""
    shutil.rmtree(copied.directory / "store" / "timings")
    ctx = copied.context()
    rows = ctx.store.require("manifest", {"dataset": "shapes"}).rows
    return ctx, rows, lambda stage, model, seconds: record_rate(ctx, stage, model, rows, seconds)


def selected(ctx, recipe):
    return ctx.store.require("selected_subset", {"recipe": recipe}).rows


def test_nothing_is_told_while_no_rate_is_known(timed):
    ctx, *_ = timed
    assert selection_seconds(ctx, "presel") is selection_seconds(ctx, "random") is None


def test_a_random_selection_costs_its_selection_alone(timed):
    ctx, rows, record = timed
    record("image_embeddings", embedding_fingerprint(ctx.project.image_encoder), 50)
    record("selected_subset", "", 2)
    assert selection_seconds(ctx, "random") == pytest.approx(2 * selected(ctx, "random") / rows)


def test_presel_costs_its_signals_over_all_rows_its_reference_model_and_two_losses_of_reference_rows(timed):
    ctx, rows, record = timed
    model = vlm_fingerprint(ctx.project.vlm)
    record("selected_subset", "", 2)
    record("image_embeddings", embedding_fingerprint(ctx.project.image_encoder), 50)
    record("presel_scores", "", 3)
    known = 53 + 2 * selected(ctx, "presel") / rows
    assert selection_seconds(ctx, "presel") == pytest.approx(known)
    record("reference_model", model, 100)
    record("losses", model, 10)
    reference = round(0.2 * rows) / rows
    assert selection_seconds(ctx, "presel") == pytest.approx(known + 100 * reference + 2 * 10 * reference)
    record("base_losses", model, 1000)  # no part of PreSel
    assert selection_seconds(ctx, "presel") == pytest.approx(known + 120 * reference)


def test_a_composed_method_costs_the_signals_that_it_needs_and_its_score(timed, copied):
    ctx, rows, record = timed
    record("base_losses", vlm_fingerprint(ctx.project.vlm), 7)
    record("perplexity_scores", "", 1)
    record("selected_subset", "", 2)
    composed = copied.context({"recipes.presel": {"dataset": "shapes", "method": "perplexity"}})
    assert selection_seconds(composed, "presel") == pytest.approx(8 + 2 * selected(ctx, "presel") / rows)


def test_rates_of_another_model_are_not_taken(timed, copied):
    ctx, _, record = timed
    record("base_losses", vlm_fingerprint(ctx.project.vlm), 7)
    other = {"recipes.presel": {"dataset": "shapes", "method": "perplexity"}, "vlm.max_tokens": 250}
    assert selection_seconds(copied.context(other), "presel") is None


def test_it_is_the_cost_from_nothing_whatever_is_stored_already(finished, copied):
    assert selection_seconds(copied.context(), "presel") == pytest.approx(
        selection_seconds(finished.context(), "presel")
    )
    copied.drive(["presel"])  # everything is current
    assert selection_seconds(copied.context(), "presel") > selection_seconds(copied.context(), "random") > 0


def test_before_the_first_ingest_there_is_nothing_to_count(fresh):
    with pytest.raises(NotMaterializedError, match="manifest"):
        selection_seconds(fresh.context(), "random")
