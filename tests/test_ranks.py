"""Several processes on the rows of one job."""

import os
import subprocess
import sys

import pytest

from vsel_platform import ranks
from vsel_platform.errors import ModelError
from vsel_platform.ranks import ALONE, Share, device_of, started

PROGRAM = """
import os, signal, sys
from pathlib import Path
from vsel_platform.errors import ModelError
from vsel_platform.ranks import joined

act = Path(sys.argv[1]).read_text()
names = ("WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "RANK", "LOCAL_RANK")

def work():
    if act == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    raise ModelError("rank 1 says no")

with joined({name: os.environ[name] for name in names}, "cpu") as share:
    if act == "report":
        share.report(ModelError("rank 1 says no"))
    else:
        share.together(list if act == "wait" else work)
"""


@pytest.fixture(autouse=True)
def _own_program(monkeypatch, tmp_path):
    """The other process is PROGRAM instead of a job's."""
    (tmp_path / "program.py").write_text(PROGRAM)
    popen = subprocess.Popen
    monkeypatch.setattr(
        ranks.subprocess,
        "Popen",
        lambda command, **options: popen([sys.executable, str(tmp_path / "program.py"), command[-1]], **options),
    )


def test_an_error_of_another_process_is_the_job_s():
    with pytest.raises(ModelError, match="rank 1 says no"), started(b"raise", 2, "cpu", 1) as share:
        share.together(list)


@pytest.mark.parametrize(("act", "message"), [("report", "rank 1 says no"), ("die", "one of the 2 processes")])
def test_who_waits_elsewhere_learns_why_another_process_ended(act, message):
    import torch

    with pytest.raises(ModelError, match=message) as caught, started(act.encode(), 2, "cpu", 1):
        for _ in range(2):
            torch.distributed.all_reduce(torch.zeros(1))
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_an_error_of_the_first_process_is_its_own():
    with pytest.raises(RuntimeError, match="of my own"), started(b"wait", 2, "cpu", 1):
        raise RuntimeError("of my own")


def test_a_process_that_dies_ends_the_job_with_an_error():
    with (
        pytest.raises(ModelError, match="one of the 2 processes of the job ended"),
        started(b"die", 2, "cpu", 1) as share,
    ):
        share.together(list)


def test_the_environment_and_the_group_are_left_as_they_were():
    before = dict(os.environ)
    with pytest.raises(ModelError), started(b"raise", 2, "cpu", 1) as share:
        share.together(list)
    assert dict(os.environ) == before
    with (
        pytest.raises(ModelError, match="rank 1 says no"),
        started(b"raise", 2, "cpu", 1) as share,
    ):  # another group in the same process
        share.together(list)


def test_rows_are_shared_out_in_whole_windows():
    shares = [Share(rank, 3).part(range(10), 2) for rank in range(3)]
    assert shares == [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5]]
    assert ALONE.part("abc", 1) == ["a", "b", "c"]


def test_one_process_needs_no_group():
    assert ALONE.agreed(3) == 3
    assert ALONE.together(lambda: [1]) == [1]
    assert ALONE.is_main


def test_each_process_has_a_device_of_its_own(monkeypatch):
    assert device_of(ALONE, "auto") == "auto"
    assert device_of(Share(1, 2), "cpu") == "cpu"
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert device_of(Share(1, 2), "auto") == "cpu"
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert device_of(Share(1, 2), "auto") == "cuda:1"
    with pytest.raises(ModelError, match="3 processes, but 2 CUDA devices"):
        device_of(Share(1, 3), "cuda")
