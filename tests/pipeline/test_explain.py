import json

import pyarrow as pa
import pytest
from small_project import row

from vsel_platform.errors import ConfigError, NotMaterializedError, SelectionError
from vsel_platform.pipeline.explain import explain_row, find_row
from vsel_platform.tables import TABLES


@pytest.fixture(scope="module")
def rows(ctx):
    """Scored rows of the dataset, by what PreSel made of them."""
    scored = ctx.store.read_partition("presel_scores", {"dataset": "shapes", "mode": "default"}).to_pylist()
    taken = {row["sample_id"] for row in ctx.store.read_partition("selected_subset", {"recipe": "presel"}).to_pylist()}
    found = {}
    for value in scored:
        kind = "text" if value["image_id"] is None else "reference" if value["is_reference"] else "image"
        found.setdefault((kind, value["sample_id"] in taken), []).append(value)
    return found


def position_of(ctx, sample_id):
    table = ctx.store.read_partition("manifest", {"dataset": "shapes"})
    return next(r["position"] for r in table.to_pylist() if r["sample_id"] == sample_id and not r["is_duplicate"])


@pytest.mark.parametrize("recipe", ["presel", "random"])
def test_the_answer_agrees_with_the_selection_for_every_row_that_is_in(ctx, selected, recipe):
    for wanted in selected(recipe)[::4]:
        found = explain_row(ctx, recipe, wanted["sample_id"])
        assert found.selected
        assert {name: found.facts[name] for name in ("rank", "round", "reason", "task", "position")} == {
            name: wanted[name] for name in ("rank", "round", "reason", "task", "position")
        }


@pytest.mark.parametrize("recipe", ["presel", "random"])
def test_the_budget_of_the_task_is_told(ctx, selected, recipe):
    first = selected(recipe)[0]
    facts = explain_row(ctx, recipe, first["sample_id"]).facts
    budgets = ctx.store.read_partition("selected_tasks", {"recipe": recipe}).to_pylist()
    budget = next(b for b in budgets if b["task"] == first["task"])
    assert {f"task {name}": budget[name] for name in ("budget", "n_available", "n_selected", "difficulty")} == {
        name: facts[name] for name in ("task budget", "task n_available", "task n_selected", "task difficulty")
    }


def test_a_typical_row_is_in_by_its_place_in_the_cluster(ctx, rows):
    for value in rows["image", True]:
        found = explain_row(ctx, "presel", value["sample_id"])
        assert found.facts["place in cluster"] <= found.facts["cluster rows selected"]
        assert found.facts["typicality"] >= found.facts["lowest typicality taken"]
        assert found.facts["typicality"] == value["typicality"]
        assert found.sentences[0].startswith("In: place")


def test_a_row_that_is_out_is_told_how_far(ctx, rows):
    for value in rows["image", False][::9]:
        found = explain_row(ctx, "presel", value["sample_id"])
        place, quota = found.facts["place in cluster"], found.facts["cluster rows selected"]
        assert not found.selected
        assert found.facts["rank"] is None
        assert place > quota
        assert f"{place - quota} more places for the cluster" in found.sentences[0]
        assert f"typicality above {found.facts['lowest typicality taken']:.6f}" in found.sentences[0]


def test_the_change_that_is_named_brings_the_row_in(copied, rows):
    """A larger budget, for the row that lacks the fewest places."""
    before = copied.context()
    facts = {value["sample_id"]: explain_row(before, "presel", value["sample_id"]) for value in rows["image", False]}
    nearest = min(facts, key=lambda i: (facts[i].facts["place in cluster"], i))
    changes = {"recipes.presel.budget": {"rows": 60}}
    copied.drive(["presel"], changes)
    assert not facts[nearest].selected
    assert explain_row(copied.context(changes), "presel", nearest).selected


def test_a_reference_row_is_in_because_it_has_instructions(ctx, rows):
    found = explain_row(ctx, "presel", rows["reference", True][0]["sample_id"])
    assert found.facts["reason"] == "reference"
    assert found.facts["instruction relevance"] == rows["reference", True][0]["relevance"]
    assert found.facts["place in cluster"] is None
    assert "reference row" in found.sentences[0]


def test_a_reference_row_is_out_when_the_budget_is_smaller_than_the_reference_subset(copied, rows):
    changes = {"recipes.presel.budget": {"rows": 5}}
    copied.drive(["presel"], changes)
    found = [explain_row(copied.context(changes), "presel", r["sample_id"]) for r in rows["reference", True]]
    assert 0 < sum(one.selected for one in found) <= 5
    assert all("budget is smaller than the reference subset" in one.sentences[0] for one in found if not one.selected)


@pytest.mark.parametrize("is_in", [True, False])
def test_text_only_rows_form_a_stratum_of_their_own(ctx, rows, is_in):
    found = explain_row(ctx, "presel", rows["text", is_in][0]["sample_id"])
    assert found.selected is is_in
    assert found.facts["cluster"] is None
    assert found.sentences[0].startswith("In: a text-only row" if is_in else "Out: a text-only row")


def test_a_random_recipe_tells_the_share_of_the_task(ctx, selected):
    taken = {value["sample_id"] for value in selected("random")}
    manifest = ctx.store.read_partition("manifest", {"dataset": "shapes"}).to_pylist()
    out = next(value for value in manifest if value["sample_id"] not in taken)
    drawn, left = explain_row(ctx, "random", next(iter(taken))), explain_row(ctx, "random", out["sample_id"])
    assert drawn.sentences[0].startswith("Drawn")
    assert left.sentences[0].startswith("Not drawn")
    for found in (drawn, left):
        assert (
            f"gets {found.facts['task n_selected']} of its {found.facts['task n_available']} rows" in found.sentences[0]
        )
        assert "typicality" not in found.facts


def test_a_row_is_found_by_every_one_of_its_names(ctx):
    found = find_row(ctx, "shapes", "row-7")
    assert found["position"] == 7
    for name in ("position:7", found["sample_id"], found["sample_id"][:20]):
        assert find_row(ctx, "shapes", name)["sample_id"] == found["sample_id"]


@pytest.mark.parametrize(
    "name",
    ["bad-1", "position:98", "position:99", f"position:{10**20}", "zzzz", "", "abc", "0" * 64],
)
def test_quarantined_and_unknown_rows_are_refused_with_the_names_that_a_row_has(ctx, name):
    with pytest.raises(SelectionError, match=rf"no accepted row is named '{name}'; give a sample_id .* position:N"):
        explain_row(ctx, "presel", name)


@pytest.mark.parametrize("number", ["x", "-1", "", "²", "1.0"])
def test_a_position_that_is_no_number_is_named(ctx, number):
    with pytest.raises(SelectionError, match=f"'{number}' is no position"):
        explain_row(ctx, "presel", f"position:{number}")


@pytest.fixture
def named(fresh):
    """A dataset with unusual source ids."""

    def write(ids):
        fresh.write([{**row(i), "id": name} for i, name in enumerate(ids)])
        fresh.drive(["random"], {"recipes.random.budget": {"percent": 100}})
        return fresh.context()

    return write


def test_source_ids_may_hold_any_character_and_may_be_numbers(named):
    ids = ['say "hi"', "back\\slash", "größe", 17, "ab", "new\nline"]
    ctx = named(ids)
    for position, name in enumerate(ids):
        assert find_row(ctx, "shapes", str(name))["position"] == position


def test_a_source_id_of_two_rows_is_ambiguous(named):
    with pytest.raises(SelectionError, match=r"'twin' names 2 rows.* N = 0, 2$"):
        find_row(named(["twin", "one", "twin"]), "shapes", "twin")


def test_a_prefix_has_to_be_unique_and_at_least_four_characters_long(named):
    ctx = named([f"n{i}" for i in range(3)])
    ids = ctx.store.read_partition("manifest", {"dataset": "shapes"})["sample_id"].to_pylist()
    assert find_row(ctx, "shapes", ids[1][:4])["sample_id"] == ids[1]
    with pytest.raises(SelectionError):
        find_row(ctx, "shapes", ids[1][:3])


def test_an_ambiguous_prefix_is_refused(ctx, fresh):
    rows = ctx.store.read_partition("manifest", {"dataset": "shapes"}).slice(0, 3).to_pylist()
    for value, name in zip(rows, ("abcd1", "abcd2", "abce"), strict=True):
        value["sample_id"] = name.ljust(64, "0")
    store = fresh.context().store
    store.publish("manifest", {"dataset": "shapes"}, pa.Table.from_pylist(rows, TABLES["manifest"].arrow_schema()))
    with pytest.raises(SelectionError, match="'abcd' names 2 rows"):
        find_row(fresh.context(), "shapes", "abcd")
    assert find_row(fresh.context(), "shapes", "abcd1")["position"] == 0
    assert find_row(fresh.context(), "shapes", "abce")["position"] == 2


def test_duplicates_are_one_row(fresh):
    fresh.write([row(0), row(1), {**row(0), "id": "again"}])
    fresh.drive(["random"], {"recipes.random.budget": {"percent": 100}})
    ctx = fresh.context()
    assert find_row(ctx, "shapes", "again")["sample_id"] == find_row(ctx, "shapes", "row-0")["sample_id"]
    assert find_row(ctx, "shapes", find_row(ctx, "shapes", "again")["sample_id"])["position"] == 0


def test_before_the_first_selection_there_is_nothing_to_explain(fresh):
    fresh.drive(["random"])
    with pytest.raises(NotMaterializedError, match="selected_subset of recipe presel"):
        explain_row(fresh.context(), "presel", "row-1")
    with pytest.raises(ConfigError):
        explain_row(fresh.context(), "unknown", "row-1")


def test_it_reads_well_and_goes_into_json(ctx, rows):
    found = explain_row(ctx, "presel", rows["image", False][0]["sample_id"])
    text = found.to_text()
    assert text.startswith(f"{found.sample_id}  not selected by presel")
    assert "rank                     NULL" in text
    assert text.endswith(found.sentences[0])
    assert json.loads(json.dumps(found.to_dict())) == found.to_dict()
