"""What every stage needs: project, store, vectors, and a place to report progress."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from vsel_platform.config import Project
from vsel_platform.identity import fingerprint
from vsel_platform.ranks import ALONE, Share

if TYPE_CHECKING:
    from vsel_platform.storage.pointers import Pointer
    from vsel_platform.storage.store import Store
    from vsel_platform.storage.vectors import VectorStore

ProgressCallback = Callable[[str, int, int], None]


def no_progress(message: str, done: int, total: int) -> None:
    """Progress callback that reports nothing."""


@dataclass(frozen=True)
class Context:
    """Project and run of a stage, and this process's share of it.

    Stores are opened on first use, so that making a context costs nothing.
    """

    project: Project
    run_id: str = ""
    progress: ProgressCallback = no_progress
    share: Share = ALONE

    @cached_property
    def store(self) -> "Store":
        """Tables and artifacts."""
        from vsel_platform.storage.store import Store

        return Store(self.project.store_root)

    @cached_property
    def vectors(self) -> "VectorStore":
        """Embeddings."""
        from vsel_platform.storage.vectors import VectorStore

        return VectorStore(self.project.store_root)


@dataclass(frozen=True)
class StageResult:
    """What a stage did. `computed` and `reused` count contents, so that "computed once" can be checked."""

    stage: str
    partition: dict[str, str]
    data_version: str
    rows: int
    computed: int = 0
    reused: int = 0
    failed: int = 0
    seconds: float = 0.0
    references: list[str] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Inputs:
    """What a stage would read now: pointer references, and the fingerprint that reselection compares."""

    fingerprint: str
    references: list[str]


def inputs_of(pointers: "list[Pointer]", **settings: Any) -> Inputs:
    """Inputs made of pointers (by data version, so that a repeated run changes nothing) and settings."""
    states = sorted((p.key, p.data_version, p.fingerprint) for p in pointers)
    return Inputs(fingerprint(states=states, settings=settings), sorted(p.reference for p in pointers))
