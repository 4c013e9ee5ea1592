"""Source rows in quarantine, found by the names that `find_row` takes."""

import re
from dataclasses import dataclass
from typing import Any

import orjson

from vsel_platform.pipeline.context import Context
from vsel_platform.samples.sample import REASONS, Reason

POSITION = "position:"


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """A row that no selection can hold: its position in the source, the reason's code, and what exactly is wrong."""

    dataset: str
    position: int
    reason: str
    detail: str

    def to_text(self) -> str:
        """For people."""
        return (
            f"position {self.position} of dataset {self.dataset} is in quarantine, so no recipe can select it\n"
            f"  {self.reason}: {REASONS[Reason(self.reason)]}\n  {self.detail}"
        )


def refused_rows(ctx: Context, dataset: str, name: str) -> list[RefusedRow]:
    """Quarantined rows of a dataset with a source id, or at `position:N`, by position; usually none or one."""
    pointer = ctx.store.pointer("quarantine", {"dataset": dataset})
    rows = ctx.store.read(pointer).to_pylist() if pointer is not None else []
    return [RefusedRow(dataset, row["position"], row["reason"], row["detail"]) for row in rows if _has_name(row, name)]


def _has_name(row: dict[str, Any], name: str) -> bool:
    if name.startswith(POSITION):
        return str(row["position"]) == name.removeprefix(POSITION)
    # Only the beginning of the row is kept, and a refused row may be broken: it is searched, not parsed.
    texts = {orjson.dumps(name).decode(), *([name] if name.isdecimal() else [])}
    found = "|".join(re.escape(text) for text in sorted(texts))
    return re.search(rf'"id"\s*:\s*(?:{found})(?=[\s,}}]|$)', row["row_json"] or "") is not None
