"""One pass for losses, and the vectors that it leaves for other stages."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from vsel_platform.pipeline import base_losses, hidden_states, representations, vector_stage
from vsel_platform.pipeline.estimate import estimate
from vsel_platform.pipeline.lookup import dataset_shards
from vsel_platform.pipeline.row_costs import row_costs
from vsel_platform.pipeline.timing import known_seconds
from vsel_platform.signals import hidden_states as hidden_signal
from vsel_platform.signals import losses as losses_signal
from vsel_platform.signals import vision_representations as vision_signal
from vsel_platform.signals import windows

STAGES = (hidden_states.STAGE, representations.STAGE)
RECIPES = {
    name: {"dataset": "shapes", "method": name, "budget": {"rows": 20}} for name in ("visnec", "scalselect", "coincide")
}


@pytest.fixture(scope="module")
def ingested(make_project):
    project = make_project("ingested")
    project.drive(["random"])
    return project


@pytest.fixture
def asked(monkeypatch):
    """Rows that the signals' own passes were given, by signal."""
    found = {"hidden_states": [], "vision_representations": []}

    def watch(module, function, rows):
        real = getattr(module, function)

        def watched(model, given, *arguments, **options):
            rows.extend(row.sample_id for row in given)
            return real(model, given, *arguments, **options)

        monkeypatch.setattr(module, function, watched)

    watch(hidden_signal, "pooled_hidden_states", found["hidden_states"])
    watch(vision_signal, "vision_representations", found["vision_representations"])
    return found


def with_recipes(project, tokens, *names):
    """The project with these recipes; with a length limit of its own, so that nothing of its model is stored yet."""
    return project.context({"recipes": {name: RECIPES[name] for name in names}, "vlm.max_tokens": tokens})


def stored(ctx, stage, shard):
    ids, found = ctx.vectors.read(stage.signal, stage.fingerprint(ctx), stage.wanted(ctx, shard))
    return dict(zip(ids, found, strict=True))


def alone(ctx, stage, shard):
    """The vectors of the stage's own pass."""
    batches = stage.compute(ctx, shard, stage.wanted(ctx, shard))
    return {i: vector for batch in batches for i, vector in zip(batch.ids, batch.vectors, strict=True)}


def test_the_pass_for_losses_leaves_what_the_other_stages_store(ingested, asked):
    ctx = with_recipes(ingested, 301, *RECIPES)
    shard = dataset_shards(ctx, "shapes")[0]
    base_losses.run(ctx, shard)
    assert [stage.missing(ctx, shard) for stage in STAGES] == [[], []]
    results = [stage.run(ctx, shard) for stage in STAGES]
    assert asked == {"hidden_states": [], "vision_representations": []}
    assert [r.metadata["taken_over"] for r in results] == [r.computed for r in results]
    assert [(r.computed, r.failed) for r in results] == [(len(stage.wanted(ctx, shard)), 0) for stage in STAGES]
    assert all(stage.is_current(ctx, shard) for stage in STAGES)
    assert not list(ctx.store.files.list("work"))
    for stage in STAGES:
        found, expected = stored(ctx, stage, shard), alone(ctx, stage, shard)
        assert set(found) == set(expected)
        for sample, vector in expected.items():
            np.testing.assert_allclose(found[sample], vector, atol=1e-5)


def test_only_what_recipes_need_and_is_missing_is_left(ingested):
    ctx = with_recipes(ingested, 302, "visnec", "coincide")
    first, second, *_ = dataset_shards(ctx, "shapes")
    hidden_states.run(ctx, second)
    kept = stored(ctx, hidden_states.STAGE, second)
    for shard in (first, second):
        base_losses.run(ctx, shard)
    work = {name.split("/")[1] for name, _ in ctx.store.files.list("work")}
    assert work == {f"hidden_states-{hidden_states.STAGE.fingerprint(ctx)}-{first}"}
    hidden_states.run(ctx, first)
    for sample, vector in stored(ctx, hidden_states.STAGE, second).items():
        np.testing.assert_array_equal(vector, kept[sample])
    assert not list(ctx.store.files.list("work"))


def test_a_shallow_signal_alone_runs_no_pass_for_losses(ingested, asked, monkeypatch):
    monkeypatch.setattr(losses_signal, "answer_losses", lambda *_, **__: pytest.fail("losses were computed"))
    ctx = with_recipes(ingested, 303, *RECIPES)
    shard = dataset_shards(ctx, "shapes")[0]
    representations.run(ctx, shard)
    assert sorted(asked["vision_representations"]) == sorted(representations.rows_with_images(ctx, shard))


def test_a_killed_pass_leaves_the_rest_to_the_stage_itself(ingested, asked, monkeypatch):
    monkeypatch.setattr(windows, "WindowOptions", partial(windows.WindowOptions, window_rows=8))
    monkeypatch.setattr(losses_signal, "answer_losses", partial(losses_signal.answer_losses, window_rows=8))
    monkeypatch.setattr(vector_stage, "PART_ROWS", 8)
    ctx = with_recipes(ingested, 304, *RECIPES)
    shard = dataset_shards(ctx, "shapes")[0]
    progress = []

    def killed(unit, done, total):
        progress.append(done)
        if done >= 16:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        base_losses.run(replace(ctx, progress=killed), shard)
    missing = {stage.signal: stage.missing(ctx, shard) for stage in STAGES}
    assert 0 < len(missing["hidden_states"]) < len(hidden_states.STAGE.wanted(ctx, shard))
    for stage in STAGES:
        stage.run(ctx, shard)
        assert set(asked[stage.signal]) == set(missing[stage.signal])
        assert set(stored(ctx, stage, shard)) == set(stage.wanted(ctx, shard))
    base_losses.run(ctx, shard)
    assert base_losses.is_current(ctx, shard)


def test_the_estimate_and_the_plan_count_one_pass(ingested):
    ctx = with_recipes(ingested, 305, *RECIPES)
    lines = {line.stage: line for line in estimate(ctx, list(RECIPES), train=False).lines}
    order = list(lines)
    assert lines["base_losses"].model_passes == 3 * lines["base_losses"].rows > 0
    for name in ("hidden_states", "vision_representations"):
        assert lines[name].rows > 0
        assert (lines[name].model_passes, lines[name].seconds) == (0, 0.0)
        assert order.index("base_losses") < order.index(name)
    costs = {cost.signal: cost for cost in row_costs(ctx, list(RECIPES))[1]}
    assert costs["base_losses"].flops > 0
    assert {(costs[name].flops, costs[name].tokens) for name in ("hidden_states", "vision_representations")} == {(0, 0)}
    only = with_recipes(ingested, 305, "scalselect", "coincide")
    lines = {line.stage: line for line in estimate(only, ["scalselect", "coincide"], train=False).lines}
    assert lines["hidden_states"].model_passes == lines["hidden_states"].rows
    assert row_costs(only, ["scalselect"])[1][0].flops > 0


def test_what_was_taken_over_is_no_rate_to_go_by(ingested):
    ctx = with_recipes(ingested, 306, *RECIPES)
    shard = dataset_shards(ctx, "shapes")[0]
    base_losses.run(ctx, shard)
    hidden_states.run(ctx, shard)
    model = hidden_states.STAGE.fingerprint(ctx)
    assert known_seconds(ctx, "hidden_states", model, 1) is None
    hidden_states.run(ctx, dataset_shards(ctx, "shapes")[1])
    assert known_seconds(ctx, "hidden_states", model, 1) > 0
