"""What happens beside the steps."""

from types import SimpleNamespace

import pytest

from vsel_platform.ranks import ALONE, Share
from vsel_platform.storage.files import FileStore
from vsel_platform.training import callbacks
from vsel_platform.training.callbacks import Observer
from vsel_platform.training.resume import TrainingStates


@pytest.fixture
def clock(monkeypatch):
    """The time in seconds, which a test sets."""
    now = [0.0]
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def states(tmp_path):
    return TrainingStates(FileStore(str(tmp_path / "store")), "training-x")


def after(observer, step, total=10, report_to=()):
    """What the observer asks for after a step."""
    control = SimpleNamespace(should_save=False, should_log=False)
    args = SimpleNamespace(report_to=list(report_to))
    observer.on_step_end(args, SimpleNamespace(global_step=step, max_steps=total), control)
    return control


def test_a_state_is_saved_when_the_last_is_old_enough(clock, states):
    observer = Observer(states, 2.0, ALONE, None)
    for seconds, expected in ((100, False), (120, True)):
        clock[0] = seconds
        assert after(observer, 1).should_save == expected


def test_after_zero_minutes_every_step_but_the_last_is_saved(clock, states):
    observer = Observer(states, 0.0, ALONE, None)
    assert [after(observer, step, 3).should_save for step in (1, 2, 3)] == [True, True, False]


def test_without_a_place_nothing_is_saved(clock):
    assert not after(Observer(None, 0.0, ALONE, None), 1).should_save


def test_only_the_main_process_tells_of_steps(clock):
    seen = []
    for rank in range(2):
        after(Observer(None, 0.0, Share(rank, 1), lambda *step: seen.append(step)), 3)
    assert seen == [(3, 10)]


@pytest.mark.parametrize(
    ("step", "report_to", "expected"), [(10, ["tensorboard"], True), (10, [], False), (9, ["x"], False)]
)
def test_trackers_learn_of_the_last_steps(clock, step, report_to, expected):
    assert after(Observer(None, 0.0, ALONE, None), step, report_to=report_to).should_log == expected


def test_a_saved_state_moves_to_the_store_and_the_clock_starts_anew(clock, states, tmp_path):
    local = tmp_path / "run" / "checkpoint-4"
    local.mkdir(parents=True)
    (local / "weights").write_text("w")
    observer = Observer(states, 1.0, ALONE, None)
    clock[0] = 60.0
    assert after(observer, 4).should_save
    args = SimpleNamespace(output_dir=str(tmp_path / "run"))
    observer.on_save(args, SimpleNamespace(global_step=4), SimpleNamespace())
    assert not local.exists()
    assert (states.restore(tmp_path / "again") / "weights").read_text() == "w"
    assert not after(observer, 5).should_save
