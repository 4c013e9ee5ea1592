"""A group of processes ends with the process that runs it, whatever signal that gets, and the exit code says which."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from dagster_services import wait_for

from vsel_platform.cli import child_group

ROOT = Path(__file__).parents[2]
# The leader starts a helper and waits; both say who they are. SIGINT ends the leader with code 0.
LEADER = """
import pathlib, signal, subprocess, sys, time
helper = subprocess.Popen([sys.executable, "-c", sys.argv[2]])
pathlib.Path(sys.argv[1]).write_text(str(helper.pid))
try:
    time.sleep(60)
except KeyboardInterrupt:
    sys.exit(0)
"""
PATIENT = "import time; time.sleep(60)"
STUBBORN = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)"
RUNNER = """
import pathlib, sys
from vsel_platform.cli import child_group
child_group.PATIENCE_S = float(sys.argv[1])
sys.exit(child_group.run_group([sys.executable, "-c", *sys.argv[2:]], {}, pathlib.Path("/")))
"""


def start(file, helper, patience_s=20.0):
    """A process that runs the group, and the id of the group's helper."""
    command = [sys.executable, "-c", RUNNER, str(patience_s), LEADER, str(file), helper]
    runner = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})
    wait_for(lambda: file.exists() and file.read_text(), 30, lambda: "the group did not start", runner)
    time.sleep(0.5)  # the helper sets its handler
    return runner, int(file.read_text())


def is_running(pid):
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 0)], ids=str)
def test_a_signal_to_the_runner_alone_ends_the_whole_group(tmp_path, number, code):
    runner, helper = start(tmp_path / "pid", PATIENT)
    runner.send_signal(number)
    assert runner.wait(15) == code
    assert not is_running(helper)


def test_what_does_not_end_is_killed(tmp_path):
    runner, helper = start(tmp_path / "pid", STUBBORN, patience_s=1)
    runner.send_signal(signal.SIGTERM)
    assert runner.wait(15) == 143
    assert not is_running(helper)


def test_a_second_signal_does_not_wait(tmp_path):
    runner, helper = start(tmp_path / "pid", STUBBORN, patience_s=60)
    runner.send_signal(signal.SIGTERM)
    time.sleep(1)
    assert is_running(helper)
    runner.send_signal(signal.SIGTERM)
    assert runner.wait(15) == 143
    assert not is_running(helper)


def test_helpers_of_a_leader_that_failed_are_ended(tmp_path):
    runner, helper = start(tmp_path / "pid", PATIENT)
    (leader,) = psutil.Process(runner.pid).children()
    leader.kill()
    assert runner.wait(15) == 128 + signal.SIGKILL
    assert not is_running(helper)


def test_the_code_of_a_command_that_ends_by_itself_is_its_own():
    assert child_group.run_group([sys.executable, "-c", "raise SystemExit(7)"], {}, ROOT) == 7
