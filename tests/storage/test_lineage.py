"""Lineage follows references back to the source, whatever characters partition values hold."""

import pytest
from store_writer import rows

from vsel_platform.errors import StorageError
from vsel_platform.storage.lineage import as_text, trace
from vsel_platform.storage.store import Store

NAME = {"dataset": "pets@home"}


@pytest.fixture
def store(root):
    return Store(root)


def publish(store, partition, inputs, reason="x"):
    return store.publish("quarantine", partition, rows(reason), inputs=inputs, run_id="run-1")


def test_inputs_are_nodes_with_their_own_inputs(store):
    source = publish(store, NAME, [])
    middle = publish(store, {"dataset": "middle"}, [source.reference])
    last = publish(store, {"dataset": "last"}, [middle.reference])
    tree = trace(store, last.key)
    assert tree["name"] == last.key
    assert (tree["rows"], tree["run_id"], tree["version"]) == (5, "run-1", last.version)
    assert tree["inputs"][0]["inputs"][0]["name"] == source.key
    assert [line.lstrip().split("  ")[0] for line in as_text(tree).splitlines()] == [
        last.key, middle.key, source.key,
    ]  # fmt: skip


def test_an_at_sign_in_a_partition_value_is_no_version(store):
    first = publish(store, NAME, [])
    second = publish(store, NAME, [first.reference], "y")
    assert trace(store, first.key)["version"] == second.version
    assert trace(store, first.reference)["version"] == first.version
    assert trace(store, second.reference)["inputs"][0]["version"] == first.version


def test_depth_ends_the_tree(store):
    source = publish(store, {"dataset": "a"}, [])
    last = publish(store, {"dataset": "b"}, [source.reference])
    assert trace(store, last.key, depth=0)["inputs"] == []


def test_a_collected_input_is_named(store):
    gone = "quarantine/dataset=gone@20260101T000000000000-00000000"
    last = publish(store, {"dataset": "b"}, [gone])
    tree = trace(store, last.key)
    assert tree["inputs"] == [{"name": gone, "missing": True, "inputs": []}]
    assert f"{gone} (collected)" in as_text(tree)


def test_a_subtree_is_written_once(store):
    source = publish(store, {"dataset": "a"}, [])
    middle = publish(store, {"dataset": "b"}, [source.reference])
    last = publish(store, {"dataset": "c"}, [middle.reference, middle.reference])
    lines = as_text(trace(store, last.key)).splitlines()
    assert [line.split()[0] for line in lines] == [last.key, middle.key, source.key, middle.key]
    assert lines[3].endswith("(as above)")
    assert not any("(as above)" in line for line in lines[:3])


def test_what_was_read_from_a_source_ends_in_its_files_and_fingerprint(store):
    found = {"source_content": "f00d", "source_files": [f"/data/{n}.json" for n in range(7)], "n_source_files": 120}
    pointer = store.publish("quarantine", NAME, rows("x"), metadata=found)
    tree = trace(store, pointer.key)
    assert tree["source"] == {"files": found["source_files"], "n_files": 120, "fingerprint": "f00d"}
    lines = [line.strip() for line in as_text(tree).splitlines()[1:]]
    assert lines[0] == "/data/0.json  source file"
    assert lines[-2:] == ["115 more source files", "source fingerprint  f00d"]


def test_an_artifact_has_files_and_no_rows(store, tmp_path):
    (tmp_path / "card.md").write_text("a card")
    pointer = store.publish_artifact("reference_model", {"dataset": "a"}, tmp_path)
    tree = trace(store, pointer.key)
    assert (tree["rows"], tree["files"]) == (None, len(pointer.files))
    assert "1 file(s)" in as_text(tree)
    assert "rows" not in as_text(tree)


def test_an_unknown_name_tells_the_known_ones(store):
    publish(store, {"dataset": "a"}, [])
    with pytest.raises(StorageError, match=r"nothing is published as .*known: quarantine/dataset=a"):
        trace(store, "quarantine/dataset=b")
    with pytest.raises(StorageError, match="not a pointer reference"):
        trace(store, "quarantine/dataset=a@yesterday")
