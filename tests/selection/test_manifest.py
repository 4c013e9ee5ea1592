"""A manifest proves what was selected: any change of it, or of the file, is found."""

import json

import orjson
import pytest

from vsel_platform.errors import VerificationError
from vsel_platform.selection.manifest import (
    ManifestRow,
    build_manifest,
    library_versions,
    read_manifest,
    row_hash,
    selection_hash,
    verify_rows,
)

ROWS = [{"id": str(i), "conversations": [{"from": "human", "value": f"q{i}"}]} for i in range(5)]


def manifest_of(rows):
    entries = [ManifestRow(i + 1, f"{i:064x}", i, "typical", row_hash(row)) for i, row in enumerate(rows)]
    return build_manifest(entries, settings={"recipe": "r"}, lineage={"inputs": []})


def test_file_with_the_rows_matches_in_any_order_and_spacing():
    rows = [json.dumps(row, indent=3).encode() for row in reversed(ROWS)]
    result = verify_rows(manifest_of(ROWS), rows)
    assert result.matches
    assert result.found == 5


def test_missing_changed_and_doubled_rows_are_named():
    changed = {**ROWS[1], "id": "other"}
    result = verify_rows(manifest_of(ROWS), [ROWS[0], changed, ROWS[2], ROWS[3], ROWS[3]])
    assert not result.matches
    assert result.missing == [2, 5]
    assert result.unexpected == [1, 4]


def test_key_order_counts_as_a_change():
    row = {"a": 1, "b": 2}
    assert row_hash(row) != row_hash({"b": 2, "a": 1})
    assert row_hash(row) == row_hash(b'{ "a": 1,\n "b": 2 }')


def test_selection_hash_depends_on_order():
    assert selection_hash(["a", "b"]) != selection_hash(["b", "a"])
    assert selection_hash(["ab"]) != selection_hash(["a", "b"])


def test_manifest_names_its_libraries():
    versions = library_versions()
    assert {"python", "vsel-platform", "numpy", "pyarrow"} <= set(versions)
    assert manifest_of(ROWS)["versions"] == versions


def test_round_trip_through_a_file(tmp_path):
    file = tmp_path / "manifest.json"
    file.write_bytes(orjson.dumps(manifest_of(ROWS)))
    assert read_manifest(file)["n_rows"] == 5


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda m: m["rows"].pop(), "was changed"),
        (lambda m: m["rows"].reverse(), "was changed"),
        (lambda m: m.update(kind="other"), "kind is 'other'"),
        (lambda m: m.pop("rows"), "not a selection manifest"),
    ],
)
def test_edited_manifest_is_refused(tmp_path, edit, message):
    manifest = manifest_of(ROWS)
    edit(manifest)
    file = tmp_path / "manifest.json"
    file.write_bytes(orjson.dumps(manifest))
    with pytest.raises(VerificationError, match=message):
        read_manifest(file)


def test_missing_and_broken_files_are_refused(tmp_path):
    with pytest.raises(VerificationError, match="no manifest"):
        read_manifest(tmp_path / "none.json")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(VerificationError, match="not a selection manifest"):
        read_manifest(tmp_path / "broken.json")
