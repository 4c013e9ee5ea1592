import json

import pytest
from small_project import row, small_rows

from vsel_platform.errors import NotMaterializedError, StorageError, VerificationError
from vsel_platform.pipeline.selection import export_selection
from vsel_platform.pipeline.verify import replay_manifest, verify_file
from vsel_platform.selection.manifest import selection_hash
from vsel_platform.storage.pointers import history_path, parse_reference


@pytest.fixture
def exported(ctx, tmp_path):
    """Training file and manifest of a recipe."""

    def write(recipe="presel", context=ctx):
        data, manifest = tmp_path / f"{recipe}.json", tmp_path / f"{recipe}.manifest.json"
        export_selection(context, recipe, data, manifest)
        return data, manifest

    return write


def changed(path, change):
    """Edit a JSON file in place."""
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))
    return path


@pytest.mark.parametrize("recipe", ["presel", "random"])
def test_an_exported_file_matches_its_manifest(exported, recipe):
    data, manifest = exported(recipe)
    found = verify_file(manifest, data)
    assert found.matches
    assert found.expected == found.found == len(json.loads(data.read_text()))


def test_order_and_white_space_of_the_file_do_not_count(exported):
    data, manifest = exported()
    data.write_text(json.dumps(json.loads(data.read_text())[::-1], indent=3))
    assert verify_file(manifest, data).matches


def test_every_difference_is_named_by_rank_and_position(exported):
    data, manifest = exported()
    rows = json.loads(data.read_text())
    ranks = {entry["row_hash"]: entry["rank"] for entry in json.loads(manifest.read_text())["rows"]}
    whole = verify_file(manifest, data)

    rows[3]["conversations"][1]["value"] += " "
    rows[5:5] = [rows[0]]
    data.write_text(json.dumps(rows))
    found = verify_file(manifest, data)
    assert not found.matches
    assert (found.expected, found.found) == (30, 31)
    assert found.unexpected == [3, 5]
    assert len(found.missing) == 1
    assert set(found.missing) <= set(ranks.values())
    assert whole.missing == whole.unexpected == []


def test_a_row_that_cannot_be_read_is_a_difference_not_an_error(exported):
    data, manifest = exported()
    rows = [json.dumps(value) for value in json.loads(data.read_text())]
    rows[2] = rows[2][:20] + "\x00" + rows[2][20:]
    lines = data.with_suffix(".jsonl")
    lines.write_text("\n".join(rows))
    found = verify_file(manifest, lines)
    assert found.unexpected == [2]
    assert len(found.missing) == 1


def test_files_that_are_missing_or_no_manifest_are_refused(exported, tmp_path):
    data, manifest = exported()
    with pytest.raises(VerificationError, match="no training file"):
        verify_file(manifest, tmp_path / "none.json")
    with pytest.raises(VerificationError, match="no manifest"):
        verify_file(tmp_path / "none.json", data)
    with pytest.raises(VerificationError, match="not a selection manifest"):
        verify_file(data, data)
    changed(manifest, lambda value: value["rows"].pop())
    with pytest.raises(VerificationError, match="was changed"):
        verify_file(manifest, data)


@pytest.mark.parametrize("recipe", ["presel", "random"])
def test_the_store_gives_the_same_selection_again(ctx, exported, recipe):
    _, manifest = exported(recipe)
    found = replay_manifest(ctx, manifest)
    assert found.selection_hash == json.loads(manifest.read_text())["selection_hash"]
    assert found.rows == {"presel": 30, "random": 24}[recipe]


BUDGETS = [
    ("presel", {"rows": 30}),
    ("random", {"percent": 25}),
    ("presel", {"tokens": 700}),
    ("random", {"tokens": 700}),
]


@pytest.mark.parametrize(("recipe", "budget"), BUDGETS)
def test_a_replay_reads_the_states_that_the_manifest_names_and_nothing_newer(copied, exported, recipe, budget):
    """Neither other settings, nor other rows, nor a dataset that fails its checks by now make a difference."""
    changes = {f"recipes.{recipe}.budget": budget}
    copied.drive([recipe], changes)
    _, manifest = exported(recipe, copied.context(changes))
    before = replay_manifest(copied.context(changes), manifest)

    other = {f"recipes.{recipe}.seed": 99, "recipes.presel.options": {"n_neighbours": 2}}
    copied.write([row(i) for i in range(500, 540)])
    copied.drive([recipe], changes | other)
    assert replay_manifest(copied.context(other), manifest) == before

    copied.write([1, 2, 3, *small_rows(3, 0)])
    with pytest.raises(NotMaterializedError):
        copied.drive([recipe], other)
    assert replay_manifest(copied.context(other), manifest) == before


def test_a_replay_that_differs_says_in_how_many_rows_and_under_which_versions(ctx, exported):
    _, manifest = exported("random")
    changed(manifest, lambda value: value["settings"].update(seed=99))
    with pytest.raises(VerificationError, match=r"differs in \d+ rows.*'pyarrow'"):
        replay_manifest(ctx, manifest)


def test_a_forged_row_is_found_even_if_the_hash_was_mended(ctx, exported):
    _, manifest = exported("random")

    def forge(value):
        value["rows"][0]["sample_id"] = "f" * 64
        value["selection_hash"] = selection_hash(entry["sample_id"] for entry in value["rows"])

    changed(manifest, forge)
    with pytest.raises(VerificationError, match="differs in 2 rows"):
        replay_manifest(ctx, manifest)


def test_an_input_that_was_collected_is_a_storage_error(copied, exported):
    ctx = copied.context()
    _, manifest = exported("presel", ctx)
    for reference in json.loads(manifest.read_text())["inputs"]:
        path = history_path(*parse_reference(reference))
        kept = ctx.store.files.read(path)
        ctx.store.files.delete(path)
        with pytest.raises(StorageError):
            replay_manifest(ctx, manifest)
        ctx.store.files.write(path, kept)
    assert replay_manifest(ctx, manifest).rows == 30


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"inputs": ["manifest/dataset=shapes@nothing"]}, StorageError),
        ({"inputs": ["manifest/dataset=shapes@20260101T000000000000-00000000"]}, StorageError),
        ({"inputs": []}, VerificationError),
        ({"inputs": None}, VerificationError),
        ({"settings": {"method": "random"}}, VerificationError),
    ],
)
def test_a_manifest_without_states_or_a_recipe_is_refused(ctx, exported, change, error):
    _, manifest = exported("random")
    changed(manifest, lambda value: value.update(change))
    with pytest.raises(error):
        replay_manifest(ctx, manifest)
