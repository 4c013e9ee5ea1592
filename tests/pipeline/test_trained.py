from pathlib import Path

import pytest
from report_store import publish, publish_content, publish_evaluation, publish_selection, report_context

from vsel_platform.pipeline.timing import known_seconds
from vsel_platform.pipeline.trained import TrainedOn, record_training, trained_on
from vsel_platform.storage.pointers import history_path, parse_reference


@pytest.fixture
def ctx(tmp_path):
    context = report_context(tmp_path)
    publish_content(context, tmp_path)
    publish_selection(context, tmp_path)
    publish_evaluation(context)
    return context


def test_a_checkpoint_is_of_the_present_selection_until_that_changes(ctx):
    assert trained_on(ctx, "typical") == TrainedOn(14, is_earlier=False)
    publish(ctx, "selected_subset", {"recipe": "typical"}, [])
    assert trained_on(ctx, "typical") == trained_on(ctx, "typical", "finetuned_checkpoint") == TrainedOn(14, True)


def test_a_selection_made_again_is_the_same(ctx):
    rows = ctx.store.read_partition("selected_subset", {"recipe": "typical"}).to_pylist()
    publish(ctx, "selected_subset", {"recipe": "typical"}, rows)
    assert trained_on(ctx, "typical") == TrainedOn(14, is_earlier=False)


def test_an_evaluation_is_of_the_checkpoint_that_it_evaluated(ctx):
    publish(ctx, "selected_subset", {"recipe": "typical"}, [])
    selection = ctx.store.require("selected_subset", {"recipe": "typical"})
    ctx.store.publish_pointer(
        "finetuned_checkpoint", {"recipe": "typical"}, rows=0, data_version="2",
        inputs=[selection.reference], metadata={"rows": 3},
    )  # fmt: skip
    assert trained_on(ctx, "typical") == TrainedOn(14, is_earlier=True)
    assert trained_on(ctx, "typical", "finetuned_checkpoint") == TrainedOn(3, is_earlier=False)


def test_what_garbage_collection_removed_is_earlier(ctx):
    checkpoint = ctx.store.require("finetuned_checkpoint", {"recipe": "typical"})
    path = history_path(*parse_reference(checkpoint.reference))
    Path(ctx.store.files.path(path)).unlink()
    found = trained_on(ctx, "typical")
    assert found == TrainedOn(None, is_earlier=True)
    assert found.sentence == "trained on rows of an earlier state of the selection"


def test_a_recipe_without_an_evaluation_has_nothing(ctx):
    assert trained_on(ctx, "drawn") is None


def test_the_rate_of_a_resumed_training_is_that_of_the_steps_behind_the_resume(ctx):
    def seconds(resumed_at, spent):
        record_training(ctx, "stage", "model", 1000, {"steps": 50, "resumed_at": resumed_at}, spent)
        return known_seconds(ctx, "stage", "model", 1000)

    assert seconds(48, 30.0) is None
    assert seconds(0, 100.0) == pytest.approx(100)
    assert seconds(40, 30.0) == pytest.approx(150)
    assert seconds(48, 30.0) == pytest.approx(150)
