"""States of a training in the store."""

import pytest

from vsel_platform.storage.files import FileStore
from vsel_platform.training.resume import TrainingStates


@pytest.fixture
def files(tmp_path):
    return FileStore(str(tmp_path / "store"))


def state(directory, **texts):
    """A state's local directory, with one file in a folder."""
    directory.mkdir()
    (directory / "folder").mkdir()
    (directory / "folder" / "part").write_text("a part")
    for name, text in texts.items():
        (directory / name).write_text(text)
    return directory


def found(directory):
    return {path.relative_to(directory).as_posix(): path.read_text() for path in directory.rglob("*") if path.is_file()}


def test_a_state_comes_back_as_it_was(files, tmp_path):
    states = TrainingStates(files, "training/x")
    states.save(7, state(tmp_path / "a", weights="w", optimizer="o"))
    restored = states.restore(tmp_path / "b")
    assert restored == tmp_path / "b" / "checkpoint-7"
    assert found(restored) == {"weights": "w", "optimizer": "o", "folder/part": "a part"}


def test_the_newest_state_replaces_older_ones(files, tmp_path):
    states = TrainingStates(files, "training-x")
    for step in (9, 10):
        states.save(step, state(tmp_path / f"s{step}", weights=str(step)))
    assert found(states.restore(tmp_path / "b"))["weights"] == "10"
    assert len({name.split("/")[2] for name, _ in files.list("work/training-x")}) == 1


def test_a_state_that_was_saved_half_is_not_used(files, tmp_path):
    states = TrainingStates(files, "training-x")
    states.save(1, state(tmp_path / "a", weights="1"))
    files.write("work/training-x/000000000002-whole-model/weights", b"2")
    files.write("work/training-x/000000000002-whole-model/folder/whole", b"")
    assert found(states.restore(tmp_path / "b"))["weights"] == "1"


def test_states_of_another_key_are_not_met(files, tmp_path):
    TrainingStates(files, "training-a").save(1, state(tmp_path / "a"))
    for other in ("training-b", "training"):
        assert TrainingStates(files, other).restore(tmp_path / other) is None
    TrainingStates(files, "training-b").clear()
    assert TrainingStates(files, "training-a").restore(tmp_path / "c") is not None


def test_a_state_of_another_kind_is_passed_by_and_goes_with_the_next_one(files, tmp_path):
    states = TrainingStates(files, "training-x")
    states.save(9, state(tmp_path / "a", weights="whole"))
    shared = states.of_kind("fsdp-4-abc")
    assert shared.restore(tmp_path / "b") is None
    assert states.restore(tmp_path / "b") is not None
    shared.save(2, state(tmp_path / "c", weights="shared"))
    assert states.restore(tmp_path / "d") is None
    restored = shared.restore(tmp_path / "d")
    assert (restored.name, found(restored)["weights"]) == ("checkpoint-2", "shared")
    states.clear()
    assert list(files.list("work")) == []


def test_nothing_is_left_after_the_end(files, tmp_path):
    states = TrainingStates(files, "training-x")
    states.save(1, state(tmp_path / "a"))
    states.clear()
    assert list(files.list("work")) == []
    assert states.restore(tmp_path / "b") is None
