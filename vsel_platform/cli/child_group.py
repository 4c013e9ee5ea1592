"""A command that starts processes of its own, run as one group that ends with this process."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import psutil

# `dagster dev` itself waits up to a minute for each of its two services.
PATIENCE_S = 150.0
POLL_S = 0.2


class Stopped(BaseException):
    """This process was asked to end by a signal. No Exception, so that nothing in between takes it for a fault."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


def run_group(command: list[str], environment: dict[str, str], cwd: Path, keep: Sequence[int] = ()) -> int:
    """Run a command in a process group of its own until it ends or this process is asked to; returns the exit code.

    SIGINT, SIGTERM and SIGHUP to this process alone are enough: nothing of the group is left when this returns. The
    code is the command's own after Ctrl-C, 128 + the signal's number after SIGTERM (143) and SIGHUP (129), and the same
    for a command that a signal killed. `keep` are file descriptors that the command inherits.
    """
    with _ending_signals():
        process = subprocess.Popen(  # noqa: S603
            command,
            cwd=cwd,
            env=environment,
            pass_fds=keep,
            process_group=0,
            preexec_fn=_restore_signals,  # noqa: PLW1509
        )
        stopped: Stopped | None = None
        try:
            process.wait()
        except KeyboardInterrupt:
            pass
        except Stopped as error:
            stopped = error
        finally:
            _end(process)
    if stopped:
        return stopped.exit_code
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


@contextmanager
def _ending_signals() -> Iterator[None]:
    """Raise Stopped for the signals that would end this process without a word to its children."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _restore_signals() -> None:
    """Give a child the default SIGINT: Dagster copies its handler, and an ignored one cannot be stopped."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Interrupt what is left of a group, wait for it, then kill what remains; a second signal kills at once."""
    try:
        _send(process.pid, signal.SIGINT)
        deadline = time.monotonic() + PATIENCE_S
        while _is_alive(process) and time.monotonic() < deadline:
            time.sleep(POLL_S)
    except (KeyboardInterrupt, Stopped):
        pass
    finally:
        _send(process.pid, signal.SIGKILL)
        process.wait()


def _send(group: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)


def _is_alive(process: subprocess.Popen[bytes]) -> bool:
    """Whether the group has a process that is not a zombie: nobody may be there to collect those of dead parents."""
    process.poll()
    for other in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(other.pid) == process.pid and other.status() != psutil.STATUS_ZOMBIE:
                return True
    return False
