from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_project import row, small_rows, text_row

from vsel_platform.config import ReferenceSettings
from vsel_platform.errors import NotMaterializedError
from vsel_platform.pipeline import reference
from vsel_platform.pipeline.lookup import Content
from vsel_platform.pipeline.reference import choose_reference, drift, first_images
from vsel_platform.selection.stable_hash import stable_uniform

HALF = ReferenceSettings(fraction=0.5)
# Rows of a dataset: number of the image (None: text only) and task, by sample number.
ROWS = st.dictionaries(
    st.integers(0, 400), st.tuples(st.one_of(st.none(), st.integers(0, 60)), st.sampled_from("abc")), max_size=60
)


def choose(rows, settings=HALF):
    contents = [Content(f"s{i}", i, task, "shard") for i, (_, task) in rows.items()]
    images = {f"s{i}": f"i{image}" for i, (image, _) in rows.items() if image is not None}
    return choose_reference(contents, images, settings)


def drawn(task, image, settings=HALF):
    return stable_uniform(settings.seed, [f"{task}\n{image}"])[0] < settings.fraction


@given(ROWS)
def test_text_rows_are_never_drawn_and_every_task_with_images_is(rows):
    chosen = choose(rows)
    assert all(rows[int(sample[1:])][0] is not None for sample, _, _ in chosen)
    assert {task for _, task, _ in chosen} == {task for image, task in rows.values() if image is not None}
    assert chosen == sorted(set(chosen))


@given(ROWS)
def test_an_image_is_drawn_with_all_rows_of_the_task_that_show_it(rows):
    chosen = choose(rows)
    images = {(task, image) for _, task, image in chosen}
    expected = {(f"s{i}", task, f"i{image}") for i, (image, task) in rows.items() if (task, f"i{image}") in images}
    assert set(chosen) == expected


@given(ROWS, ROWS)
def test_growth_keeps_drawn_images_and_removes_only_the_fallback(old, new):
    grown = {**new, **old}
    before, after = choose(old), choose(grown)
    kept = {value for value in before if drawn(*value[1:])}
    assert kept <= set(after)
    added = {value for value in after if value[0] not in {sample for sample, *_ in before}}
    assert all(int(sample[1:]) in new or drawn(task, image) for sample, task, image in added)
    assert all(value in after or not drawn(*value[1:]) for value in before)


@given(ROWS, st.randoms())
def test_the_order_of_the_rows_does_not_matter(rows, random):
    shuffled = list(rows.items())
    random.shuffle(shuffled)
    assert choose(dict(shuffled)) == choose(rows)


@given(ROWS)
def test_a_larger_fraction_keeps_what_a_smaller_one_drew(rows):
    small, large = (ReferenceSettings(fraction=value) for value in (0.2, 0.7))
    assert {value for value in choose(rows, small) if drawn(*value[1:], small)} <= set(choose(rows, large))


def test_a_task_without_a_drawn_image_gets_the_one_with_the_smallest_hash():
    tiny = ReferenceSettings(fraction=1e-9)
    rows = {i: (i, "ab"[i % 2]) for i in range(40)}
    chosen = choose(rows, tiny)
    assert len(chosen) == 2
    for sample, task, image in chosen:
        names = [f"{task}\ni{i}" for i, (_, other) in rows.items() if other == task]
        smallest = min(zip(stable_uniform(tiny.seed, names), names, strict=True))[1]
        assert f"{task}\n{image}" == smallest
        assert sample[1:] == image[1:]


def test_tasks_are_drawn_independently_and_seeds_differ():
    rows = {2 * i + j: (i, "ab"[j]) for i in range(300) for j in (0, 1)}
    images = defaultdict(set)
    for _, task, image in choose(rows, ReferenceSettings(fraction=0.2)):
        images[task].add(image)
    assert images["a"] != images["b"]
    assert all(35 <= len(found) <= 85 for found in images.values())
    assert choose(rows) != choose(rows, ReferenceSettings(fraction=0.5, seed=1))


def test_the_whole_of_a_dataset_may_be_its_reference():
    rows = {i: (i, "a") for i in range(9)}
    assert len(choose(rows, ReferenceSettings(fraction=1.0))) == 9
    assert choose({0: (None, "a")}) == []


def test_drift_is_the_share_of_rows_that_came_or_went():
    assert drift({"a", "b"}, {"a", "b"}) == 0
    assert drift({"a", "b"}, {"a", "b", "c"}) == 0.5
    assert drift({"a", "b"}, {"b", "c"}) == 1
    assert drift({"a", "b"}, set()) == 1
    assert drift(set(), {"a"}) == float("inf")


def subset(ctx):
    return set(
        ctx.store.read_partition("reference_subset", {"dataset": "shapes"}, ["sample_id"])["sample_id"].to_pylist()
    )


def test_the_published_subset_shows_images_of_its_rows(ctx):
    table = ctx.store.read_partition("reference_subset", {"dataset": "shapes"}).to_pylist()
    images = first_images(ctx, ctx.store.require("manifest", {"dataset": "shapes"}))
    assert len(images) == 90
    assert [value["image_id"] for value in table] == [images[value["sample_id"]] for value in table]


def test_the_model_is_kept_while_few_reference_rows_change(copied):
    before = copied.context().store.require("reference_model", {"dataset": "shapes"})
    old = subset(copied.context())
    copied.write([*small_rows(), *(row(300 + i, task="name") for i in range(12))])
    results = [r for r in copied.drive(["presel"]) if r.stage == "reference_model"]
    ctx = copied.context()
    assert 0 < drift(old, subset(ctx)) <= ctx.project.reference.refresh_growth
    assert results == []
    assert ctx.store.require("reference_model", {"dataset": "shapes"}).version == before.version
    kept = reference.run_model(ctx, "shapes")
    assert (kept.computed, kept.reused, kept.data_version) == (0, 1, before.data_version)


def test_the_model_is_trained_anew_on_the_present_rows_when_many_changed(copied):
    old = subset(copied.context())
    changes = {"reference.refresh_growth": 0.0}
    copied.write([*small_rows(), *(row(300 + i, task="name") for i in range(12))])
    (result,) = [r for r in copied.drive(["presel"], changes) if r.stage == "reference_model"]
    ctx = copied.context(changes)
    assert drift(old, subset(ctx)) > 0
    assert result.computed == 1
    assert result.rows == len(subset(ctx))
    assert reference.model_is_current(ctx, "shapes")


def test_a_dataset_without_images_has_nothing_to_train_on(fresh):
    fresh.write([text_row(i) for i in range(5)])
    with pytest.raises(NotMaterializedError, match="no rows with images"):
        fresh.drive(["presel"])
