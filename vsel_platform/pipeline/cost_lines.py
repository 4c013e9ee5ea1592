"""The costs that an estimate tells: one line per stage, and their table for people."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from vsel_platform.errors import NotMaterializedError
from vsel_platform.pipeline.context import Context
from vsel_platform.pipeline.timing import known_seconds


@dataclass(frozen=True)
class Line:
    """One stage: partitions, rows (images for `image_embeddings`) to compute, model passes, bytes to read, seconds.

    `n_bytes` are those of source files and images; None for stages that read neither, or where nothing is known.
    `exact` is False for estimates, and behind another stage, whose output decides. `seconds` are None where nothing
    is known. `note`: what the counts mean, where that is not plain.
    """

    stage: str
    partitions: int
    rows: int
    model_passes: int
    n_bytes: int | None
    seconds: float | None
    exact: bool
    note: str = ""


def stage_line(
    ctx: Context,
    stage: str,
    partitions: int,
    rows: int,
    *,
    passes: int = 0,
    n_bytes: int | None = None,
    model: str = "",
    units: int | None = None,
    exact: bool = True,
    note: str = "",
) -> Line | None:
    """The line of a stage, with the time of `units` of its work (rows, if they are not given); None without work."""
    if not partitions:
        return None
    seconds = known_seconds(ctx, stage, model, rows if units is None else units)
    return Line(stage, partitions, rows, passes, n_bytes, seconds, exact, note)


def is_stale(ctx: Context, is_current: Callable[[Context, str], bool], key: str) -> bool:
    """Whether a key is not current, or cannot be while something before it is missing."""
    try:
        return not is_current(ctx, key)
    except NotMaterializedError:
        return True


@dataclass(frozen=True)
class Estimate:
    """What would be computed. Seconds are at the rate of the stage's last run in this store under this model."""

    recipes: list[str]
    lines: list[Line] = field(default_factory=list)
    older_checkpoints: int = 0

    @property
    def seconds(self) -> float | None:
        """Seconds in all, as far as they are known; None if no stage's are."""
        known = [line.seconds for line in self.lines if line.seconds is not None]
        return sum(known) if any(known) else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**asdict(self), "seconds": self.seconds}

    def to_text(self) -> str:
        """A table for people."""
        older = [_older(self.older_checkpoints)] if self.older_checkpoints else []
        if not self.lines:
            current = f"{', '.join(self.recipes)}: everything is current; nothing would be computed"
            return "\n".join([current, *older])
        head = f"{'stage':22}{'partitions':>11}{'rows':>12}{'model passes':>14}{'bytes read':>16}{'time':>12}"
        lines = [head, *(_text(line) for line in self.lines)]
        if self.seconds is not None:
            some = any(line.seconds is None for line in self.lines)
            lines.append(f"{'what is known' if some else 'in all':22}{duration(self.seconds):>65}")
        if any(not line.exact for line in self.lines):
            lines.append(
                "~ depends on what the stages before it find; a changed source is taken to keep the rows that it had"
            )
        lines += dict.fromkeys(line.note for line in self.lines if line.note)
        if self.seconds is None:
            lines.append("times are known after the first run in this store: no stage has run under these models yet")
        elif any(line.seconds is None for line in self.lines):
            lines.append("unknown: this stage has not run in this store under this model yet")
        return "\n".join(lines + older)


def _older(n: int) -> str:
    what = "1 checkpoint is older than its selection" if n == 1 else f"{n} checkpoints are older than their selection"
    return f"{what} (--train)"


def _text(line: Line) -> str:
    def count(value: int | None) -> str:
        return "-" if value is None else f"{'' if line.exact else '~'}{value:,}"

    time = "unknown" if line.seconds is None else duration(line.seconds)
    passes = count(line.model_passes) if line.model_passes else "0"
    return (
        f"{line.stage:22}{count(line.partitions):>11}{count(line.rows):>12}{passes:>14}"
        f"{count(line.n_bytes):>16}{time:>12}"
    )


def duration(seconds: float) -> str:
    """Seconds in the unit that fits."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
