import pytest
from small_project import row, text_row

from vsel_platform.errors import SelectionError
from vsel_platform.models.tokens import load_tokenizer
from vsel_platform.pipeline.selection import present_sources, select_rows
from vsel_platform.pipeline.tokens import largest_within_tokens, token_counts
from vsel_platform.selection.result import SelectedRow, SelectionResult


@pytest.fixture(scope="module")
def manifest(ctx):
    return ctx.store.require("manifest", {"dataset": "shapes"})


@pytest.fixture(scope="module")
def counts(ctx, manifest):
    return token_counts(ctx, manifest)


def first(ids):
    """A method that takes the first rows of a list."""
    rows = [SelectedRow(name, rank, "task", "image", "random") for rank, name in enumerate(ids, start=1)]
    return lambda n: SelectionResult(rows[:n], [])


def length(ctx, text):
    return len(load_tokenizer(ctx.project.vlm)(text, add_special_tokens=False)["input_ids"])


def test_every_distinct_row_is_counted(ctx, manifest, counts):
    assert set(counts) == set(ctx.store.read(manifest, ["sample_id"])["sample_id"].to_pylist())
    assert min(counts.values()) > 0


@pytest.mark.parametrize(
    ("position", "text"),
    [(4, "\nWhat is the colour?\nIt is colour 4."), (91, "Say the number 1.\n1")],
)
def test_questions_and_answers_are_counted_and_image_tags_are_not(ctx, manifest, counts, position, text):
    table = ctx.store.read(manifest, ["position", "sample_id"]).to_pylist()
    assert counts[next(r["sample_id"] for r in table if r["position"] == position)] == length(ctx, text)


def test_a_longer_answer_counts_more(fresh):
    longer = text_row(1)
    longer["conversations"][1]["value"] += " and then some more"
    fresh.write([text_row(0), longer, row(0)])
    fresh.drive(["random"], {"recipes.random.budget": {"rows": 1}})
    ctx = fresh.context()
    pointer = ctx.store.require("manifest", {"dataset": "shapes"})
    found = token_counts(ctx, pointer)
    short, long, _ = (found[i] for i in ctx.store.read(pointer, ["sample_id"])["sample_id"].to_pylist())
    assert long - short == length(ctx, "1 and then some more") - length(ctx, "0")


@pytest.mark.parametrize("extra", [0, 1, 7, 100, 5_000])
def test_the_largest_number_of_rows_within_the_limit_is_taken(ctx, manifest, counts, extra):
    ids = sorted(counts)
    limit = counts[ids[0]] + extra
    result = largest_within_tokens(ctx, manifest, first(ids), limit, len(ids))
    expected = sum(sum(counts[i] for i in ids[:n]) <= limit for n in range(1, len(ids) + 1))
    assert len(result.rows) == expected


def test_a_limit_below_the_first_row_is_refused(ctx, manifest, counts):
    ids = sorted(counts)
    with pytest.raises(SelectionError, match=f"budget of {counts[ids[0]] - 1} tokens"):
        largest_within_tokens(ctx, manifest, first(ids), counts[ids[0]] - 1, len(ids))


@pytest.mark.parametrize("recipe", ["presel", "random"])
@pytest.mark.parametrize("limit", [600, 1100])
def test_a_recipe_stays_within_its_tokens_and_leaves_no_room_for_one_row_more(finished, counts, recipe, limit):
    ctx = finished.context({f"recipes.{recipe}.budget": {"tokens": limit}})
    settings = ctx.project.recipe(recipe)
    rows = select_rows(ctx, settings, present_sources(ctx, settings)).rows
    assert sum(counts[value.sample_id] for value in rows) <= limit
    more = finished.context({f"recipes.{recipe}.budget": {"rows": len(rows) + 1}}).project.recipe(recipe)
    larger = select_rows(ctx, more, present_sources(ctx, more)).rows
    assert sum(counts[value.sample_id] for value in larger) > limit


def test_a_limit_that_holds_everything_selects_everything(finished, counts):
    ctx = finished.context({"recipes.random.budget": {"tokens": sum(counts.values())}})
    settings = ctx.project.recipe("random")
    assert len(select_rows(ctx, settings, present_sources(ctx, settings)).rows) == len(counts)
