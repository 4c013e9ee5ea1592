"""What a training did, and which state of a selection a recipe's checkpoint or evaluation belongs to."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from vsel_platform.errors import StorageError
from vsel_platform.pipeline.context import Context
from vsel_platform.pipeline.timing import SMALL_SHARE, record_rate
from vsel_platform.storage.pointers import Pointer, parse_reference, read_version


def record_training(
    ctx: Context, stage: str, model: str, passes: int, report: Mapping[str, Any], seconds: float
) -> None:
    """Remember how fast a training of so many row passes was that took this process `seconds`.

    After a resume only the steps behind it count, and fewer than a tenth of all not at all: their time is mostly that
    of loading the model. `report` is that of the training, as a dictionary.
    """
    own = 1 - report["resumed_at"] / max(1, report["steps"])
    if own >= SMALL_SHARE:
        record_rate(ctx, stage, model, round(passes * own), seconds)


@dataclass(frozen=True, slots=True)
class TrainedOn:
    """Rows that a checkpoint was trained on (None: not known any more), and whether the selection changed since."""

    rows: int | None
    is_earlier: bool

    @property
    def sentence(self) -> str:
        """`trained on N rows of the present selection` (or: of an earlier state of it)."""
        rows = "rows" if self.rows is None else f"{self.rows:,} rows"
        state = "an earlier state of the selection" if self.is_earlier else "the present selection"
        return f"trained on {rows} of {state}"


def trained_on(
    ctx: Context,
    recipe: str,
    table: Literal["finetuned_checkpoint", "evaluation"] = "evaluation",
    benchmark: str | None = None,
) -> TrainedOn | None:
    """What the stored checkpoint, or the one that was evaluated on a benchmark (the project's first, if none is named),
    was trained on; None if there is none."""
    partition = {"recipe": recipe}
    if table == "evaluation":
        name = benchmark or next(iter(ctx.project.benchmarks), None)
        if name is None:
            return None
        partition["benchmark"] = name
    found = ctx.store.pointer(table, partition)
    if found is None:
        return None
    checkpoint = found if table == "finetuned_checkpoint" else _input(ctx, found, "finetuned_checkpoint")
    if checkpoint is None:
        return TrainedOn(None, is_earlier=True)
    rows = checkpoint.metadata.get("rows")
    selection = _input(ctx, checkpoint, "selected_subset")
    present = ctx.store.pointer("selected_subset", {"recipe": recipe})
    same = selection is not None and present is not None and selection.data_version == present.data_version
    return TrainedOn(rows if isinstance(rows, int) else None, is_earlier=not same)


def _input(ctx: Context, pointer: Pointer, table: str) -> Pointer | None:
    """The state of a table that `pointer` was made from; None if garbage collection removed it."""
    reference = next((name for name in pointer.inputs if name.startswith(f"{table}/")), None)
    if reference is None:
        return None
    try:
        return read_version(ctx.store.files, *parse_reference(reference))
    except StorageError:
        return None
