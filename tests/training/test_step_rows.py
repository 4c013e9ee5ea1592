"""Rows of optimiser steps: what is rendered, weighted, left out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_families import picture as family_picture
from tiny_families import tiny_family
from tiny_llava import conversation, picture, tiny_adapter

from vsel_platform.config_training import LoraSettings, SelfQuestioningSettings
from vsel_platform.models.images import ContentFailure
from vsel_platform.ranks import ALONE, Share
from vsel_platform.signals.losses import LossRow
from vsel_platform.training.step_rows import StepLoader, normalise


def dialogue(name, images=("i",)):
    tag = "<image>\n" * len(images)
    turns = conversation(f"{tag}What colour?", "It is red.", "Is it two people?", "Yes.")
    return LossRow(name, turns, list(images))


ROWS = [dialogue(f"row{i}", [f"i{i}"]) for i in range(6)]
SETTINGS = LoraSettings(batch_rows=4, order="random", seed=3)


@pytest.fixture
def made():
    """Makes loaders and closes them."""
    loaders = []

    def make(rows=ROWS, settings=SETTINGS, *, model=None, images=picture, share=ALONE):
        model = model or tiny_adapter()
        loaders.append(StepLoader(model, rows, settings, images, share, keep_bytes=2**20))
        return loaders[-1]

    yield make
    for loader in loaders:
        loader.close()


def test_steps_have_the_planned_rows_with_their_images(made):
    loader = made()
    steps = [loader.load(number) for number in range(len(loader.steps))]
    assert [len(step.rows) for step in steps] == [4, 2]
    assert sorted(row.sample_id for step in steps for row in step.rows) == [row.sample_id for row in ROWS]
    assert all(set(row.images) <= step.images.features.keys() for step in steps for row in step.rows)
    assert steps[0].tokens == sum(len(row.rendered) for row in steps[0].rows)


def test_targets_weigh_the_same_and_units_are_their_number(made):
    step = made().load(0)
    assert step.units == sum(row.rendered.n_targets for row in step.rows)
    assert {float(weight) for own in step.weights for weight in own} == {1.0}
    assert not any(own.any() for own in step.is_question)


def test_questions_that_are_asked_have_a_weight_of_their_own(made):
    questions = SelfQuestioningSettings(ratio=1.0, question_weight=0.25)
    step = made(settings=SETTINGS.model_copy(update={"self_questioning": questions})).load(0)
    for weights, is_question in zip(step.weights, step.is_question, strict=True):
        assert is_question.any()
        np.testing.assert_array_equal(weights, np.where(is_question, 0.25, 1.0))
    assert step.units == pytest.approx(sum(float(own.sum()) for own in step.weights))


def test_epochs_draw_questions_anew(made):
    settings = SETTINGS.model_copy(update={"epochs": 8.0, "self_questioning": SelfQuestioningSettings(ratio=0.5)})
    loader = made(settings=settings)
    drawn = {epoch: loader.asked(loader.rows[0], epoch) for epoch in range(8)}
    assert set(drawn.values()) == {(), (2,)}
    assert loader.asked(loader.rows[0], 3) == drawn[3]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=9), st.integers(1, 4))
def test_the_mean_of_every_group_of_rows_counts_the_same(targets, mean_rows):
    weights = [np.ones(n, np.float32) for n in targets]
    units = normalise(weights, mean_rows)
    groups = [weights[start : start + mean_rows] for start in range(0, len(weights), mean_rows)]
    assert units == len(groups)
    assert [sum(float(own.sum()) for own in group) for group in groups] == pytest.approx([1.0] * len(groups), abs=1e-5)


def test_rows_with_a_broken_image_fail_by_name(made):
    def images(image_id):
        if image_id == "i2":
            raise FileNotFoundError(image_id)
        return picture(image_id)

    loader = made(settings=SETTINGS.model_copy(update={"batch_rows": 6}), images=images)
    step = loader.load(0)
    assert step.failed == (ContentFailure("row2", "image_missing", "image i2: FileNotFoundError: i2"),)
    assert sorted(row.sample_id for row in step.rows) == ["row0", "row1", "row3", "row4", "row5"]
    assert len(step.weights) == len(step.is_question) == 5


def test_a_step_of_broken_images_is_empty(made):
    def gone(image_id):
        raise FileNotFoundError(image_id)

    step = made(images=gone).load(0)
    assert (step.rows, step.units, step.tokens) == ([], 0.0, 0)


def test_processes_share_the_rows_of_every_step(made):
    loaders = [made(share=Share(rank, 2)) for rank in range(2)]
    for number in range(2):
        names = [[row.sample_id for row in loader.load(number).rows] for loader in loaders]
        assert {len(own) for own in names} in ({2}, {1})
        alone = {row.sample_id for row in made().load(number).rows}
        assert set(names[0]) | set(names[1]) == alone
    assert [row.sample_id for row, _ in loaders[0].planned()] == [row.sample_id for row, _ in loaders[1].planned()]


def test_the_images_of_the_next_step_are_loaded_ahead(made, monkeypatch):
    loader = made()
    asked = []
    monkeypatch.setattr(loader._images, "ahead", asked.extend)
    loader.load(0)
    following = {image for row, _ in loader.steps[1] for image in loader.rows[row].images}
    assert set(asked) == following
    asked.clear()
    loader.load(1)
    assert asked == []


def test_images_have_the_tokens_that_a_row_of_so_many_shows(made):
    model = tiny_family("llava_onevision").adapter()
    rows = [dialogue("one", ["p"]), dialogue("two", ["p", "q"])]
    step = made(rows, model=model, images=family_picture).load(0)
    for row in step.rows:
        shown = model.row_features([step.images.features[image] for image in row.images])
        assert len(model.image_places(row.rendered)) == sum(len(feature) for feature in shown)


def test_what_only_shows_when_images_are_there_fails_then(made):
    model = tiny_family("qwen2_vl").adapter(max_tokens=24)
    long = conversation("<image>\nWhat colour is the bus on the street, and how many people are there?", "Red.")
    rows = [LossRow("long", long, ["p"]), LossRow("short", conversation("hi", "Yes"))]
    settings = SETTINGS.model_copy(update={"max_unusable": 1.0})
    step = made(rows, settings, model=model, images=family_picture).load(0)
    ((name, reason),) = [(failure.content_id, failure.reason) for failure in step.failed]
    assert (name, reason) == ("long", "nothing_to_learn")
