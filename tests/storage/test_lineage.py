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


def test_an_unknown_name_tells_the_known_ones(store):
    publish(store, {"dataset": "a"}, [])
    with pytest.raises(StorageError, match=r"nothing is published as .*known: quarantine/dataset=a"):
        trace(store, "quarantine/dataset=b")
    with pytest.raises(StorageError, match="not a pointer reference"):
        trace(store, "quarantine/dataset=a@yesterday")
