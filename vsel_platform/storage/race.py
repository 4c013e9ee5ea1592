"""A tight race that shows whether a store's conditional writes are atomic.

Some S3-compatible servers refuse a second writer that comes later, but let several through that come at once, or
ignore the condition. Both Lance's commits and the pointers of this platform would then lose updates without an error.
"""

import secrets
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from vsel_platform.errors import ConflictError
from vsel_platform.storage.files import FileStore

WRITERS = 8
ROUNDS = 10


@dataclass(frozen=True, slots=True)
class RaceReport:
    """Rounds in which not exactly one of the writers won, for creating a file and for replacing one."""

    rounds: int
    writers: int
    bad_creates: int
    bad_replaces: int

    @property
    def safe(self) -> bool:
        """Every round had exactly one winner."""
        return self.bad_creates == 0 and self.bad_replaces == 0

    @property
    def summary(self) -> str:
        """Counts in words."""
        if self.safe:
            return "exactly one won each, creating (If-None-Match) and replacing (If-Match)"
        return f"updates were lost in {self.bad_creates} creating and {self.bad_replaces} replacing rounds"


def race(files: FileStore, folder: str, *, writers: int = WRITERS, rounds: int = ROUNDS) -> RaceReport:
    """Let `writers` threads create, then replace, the same file at the same moment, `rounds` times."""
    bad_creates = bad_replaces = 0
    with ThreadPoolExecutor(writers) as pool:
        for number in range(rounds):
            name = f"{folder}/{number}-{secrets.token_hex(4)}"
            bad_creates += not _one_winner(files, name, None, pool, writers)
            found = files.read_versioned(name)
            bad_replaces += not _one_winner(files, name, found[1] if found else "", pool, writers)
    return RaceReport(rounds, writers, bad_creates, bad_replaces)


def _one_winner(files: FileStore, name: str, token: str | None, pool: ThreadPoolExecutor, writers: int) -> bool:
    """Whether exactly one writer won and the file holds what it wrote."""
    barrier = threading.Barrier(writers)
    kind = "create" if token is None else "replace"
    attempts = [f"{kind}-{number}".encode() for number in range(writers)]
    won = list(pool.map(_attempt(files, name, token, barrier), attempts))
    return sum(won) == 1 and files.read(name) == attempts[won.index(True)]


def _attempt(files: FileStore, name: str, token: str | None, barrier: threading.Barrier) -> Callable[[bytes], bool]:
    def attempt(data: bytes) -> bool:
        barrier.wait(timeout=60)
        try:
            files.swap(name, data, token)
        except ConflictError:
            return False
        return True

    return attempt
