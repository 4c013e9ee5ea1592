"""Several processes on the rows of one job, each with its own copy of the model (data parallel).

The process that runs the job is rank 0. It starts the others, which run the same job up to the rows that they compute;
what they compute reaches rank 0 through the parts in the store, so a killed job resumes whoever had done what. Rows
are shared out in whole windows, which are computed without regard to each other: the values are those of one process,
to the last bit.
"""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import orjson

from vsel_platform import errors
from vsel_platform.errors import ModelError, VselError

ERROR = "vsel-error-"
NOTICE_S = 1.0
"""How long a process that closed its connections may take to end [s]."""
T = TypeVar("T")
WAIT_S = 30.0
"""How long rank 0 waits for the others to end [s], once all have handed in their results."""


@dataclass(frozen=True)
class Share:
    """This process's share of a job: its number and how many there are."""

    rank: int = 0
    world: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the process that publishes."""
        return self.rank == 0

    def part(self, items: Sequence[T], size: int) -> list[T]:
        """The items of this process: every `world`-th block of `size` consecutive ones."""
        blocks = [items[start : start + size] for start in range(0, len(items), size)]
        return [item for block in blocks[self.rank :: self.world] for item in block]

    def agreed(self, value: T) -> T:
        """Rank 0's value, in every process."""
        if self.world == 1:
            return value
        from accelerate.utils import broadcast_object_list

        box = [value]
        broadcast_object_list(box, from_process=0)
        return box[0]

    def together(self, work: Callable[[], list[T]]) -> list[T]:
        """What `work` gives in all processes, in the order of their ranks. Raises the first error of any of them."""
        if self.world == 1:
            return work()
        from accelerate.utils import gather_object

        try:
            mine: list[Any] = [work()]
        except Exception as error:
            mine = [error]
        try:
            everyone = gather_object(mine)
        except RuntimeError as error:
            raise ModelError(f"one of the {self.world} processes of the job ended before its work was done") from error
        for found in everyone:
            if isinstance(found, Exception):
                raise found
        return [item for found in everyone for item in found]

    def report(self, error: VselError) -> None:
        """Tell rank 0 why this process ends; needed where rank 0 may not be waiting in `together`."""
        _store().set(f"{ERROR}{self.rank}", orjson.dumps([type(error).__name__, str(error)]))

    def reported(self) -> VselError | None:
        """What another process ended of, if one told so."""
        store = _store()
        for rank in range(1, self.world):
            if store.check([f"{ERROR}{rank}"]):
                kind, message = orjson.loads(store.get(f"{ERROR}{rank}"))
                found: VselError = getattr(errors, kind)(message)
                return found
        return None


def _store() -> Any:
    """Names and values that all processes of the group see."""
    from torch.distributed.distributed_c10d import _get_default_store

    return _get_default_store()


ALONE = Share()


@contextmanager
def started(job: bytes, world: int, device: str, threads: int) -> Iterator[Share]:
    """Rank 0 of `world` processes; the others are started with the bytes of the job and end with the work inside."""
    with socket.socket() as probe, tempfile.TemporaryDirectory(prefix="vsel-ranks-") as name:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
        probe.close()
        job_file = Path(name) / "job.json"
        job_file.write_bytes(job)
        common = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        common["OMP_NUM_THREADS"] = str(threads or max(1, (os.cpu_count() or 1) // world))
        # The package of this process, whatever the current directory holds.
        root = str(Path(__file__).parents[1])
        path = {"PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]), "PYTHONSAFEPATH": "1"}
        command = [sys.executable, "-m", "vsel_platform.rank", str(job_file)]
        others = [
            subprocess.Popen(  # noqa: S603 (this interpreter, a fixed command)
                command, env={**os.environ, **common, **path, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            )
            for rank in range(1, world)
        ]
        try:
            with joined({**common, "RANK": "0", "LOCAL_RANK": "0"}, device) as share:
                try:
                    yield share
                except RuntimeError as error:
                    # Whoever waits for a process that has ended only learns that a connection is closed.
                    found = share.reported() or _ended(others)
                    if found is None:
                        raise
                    raise found from error
            for process in others:
                process.wait(WAIT_S)
        finally:
            for process in others:
                process.kill()  # has no effect on one that has ended
                process.wait()


def _ended(others: Sequence[subprocess.Popen[bytes]]) -> VselError | None:
    """An error if one of the other processes has ended."""
    for process in others:
        try:
            process.wait(NOTICE_S)
        except subprocess.TimeoutExpired:
            continue
        return ModelError(f"one of the {len(others) + 1} processes of the job ended before its work was done")
    return None


@contextmanager
def joined(environment: dict[str, str], device: str) -> Iterator[Share]:
    """This process in the group that the environment describes. Raises ModelError if the group has another size."""
    from accelerate import PartialState

    with environment_of(environment):
        forget_accelerate()
        state = PartialState(cpu=device.startswith("cpu"))
        try:
            world = int(environment["WORLD_SIZE"])
            if state.num_processes != world:
                raise ModelError(f"{state.num_processes} processes joined the job, {world} were started")
            yield Share(state.process_index, world)
        finally:
            state.destroy_process_group()
            forget_accelerate()


@contextmanager
def environment_of(changes: dict[str, str]) -> Iterator[None]:
    """The environment with some variables replaced; afterwards it is as before, whatever was set inside."""
    before = dict(os.environ)
    os.environ.update(changes)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def forget_accelerate() -> None:
    """Have accelerate look anew at how many processes and which devices there are: it keeps what it once saw."""
    from accelerate.state import AcceleratorState, GradientState

    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def device_of(share: Share, device: str) -> str:
    """The device of a process: each has a CUDA device of its own, if the project leaves the choice."""
    if share.world == 1 or device not in ("auto", "cuda"):
        return device
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    if share.world > torch.cuda.device_count():
        raise ModelError(
            f"compute.processes: {share.world} processes, but {torch.cuda.device_count()} CUDA devices; one each"
        )
    return f"cuda:{share.rank}"
