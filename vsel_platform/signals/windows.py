"""Windows of rows: images once per window, batches of a token budget, failures by row.

Rows are taken in windows of a fixed number, in the given order, and a window is computed without regard to any
other. So a job that stops after some windows and goes on with the rows behind them gets the same numbers, to the
last bit, as one that was never stopped.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from vsel_platform.models.batching import (
    BatchLimits,
    free_memory,
    is_out_of_memory,
    run_with_oom_ladder,
    token_batches,
    usable_batch_tokens,
)
from vsel_platform.models.image_features import TowerFeatures
from vsel_platform.models.images import ContentFailure, ImageProvider
from vsel_platform.models.vlm import ConversationRow, ModelForward, ShownImage

if TYPE_CHECKING:
    import torch

WINDOW_ROWS = 128
Row = TypeVar("Row", bound=ConversationRow)
Result = TypeVar("Result")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class WindowOptions:
    """How rows are batched. `batch_tokens` counts padding; `window_rows` is the unit of resumption."""

    batch_tokens: int = 8192
    window_rows: int = WINDOW_ROWS
    decode_workers: int = 2


class RowWindow(Generic[Row]):
    """Some consecutive rows on their way through a model. `failures` says, by row number, why a row has no value."""

    def __init__(
        self,
        model: ModelForward,
        rows: Sequence[Row],
        images: ImageProvider,
        options: WindowOptions,
        limits: BatchLimits,
    ) -> None:
        self.rows = rows
        self.failures: dict[int, ContentFailure] = {}
        self._model = model
        self._images = images
        self._options = options
        self._limits = limits
        self._features: dict[str, torch.Tensor] = {}
        self._layouts: dict[str, tuple[int, ...]] = {}

    def fail(self, i: int, reason: str, detail: str) -> None:
        """Row `i` has no value."""
        self.failures[i] = ContentFailure(self.rows[i].sample_id, reason, detail)

    def load_images(self, members: Sequence[int]) -> None:
        """Projected features of the distinct images of some rows; a row with a bad image fails."""
        import torch

        wanted = [image for i in members for image in self.rows[i].images]
        tower = TowerFeatures(
            self._model, self._images, limits=self._limits, decode_workers=self._options.decode_workers
        )
        features, failures = tower.get(wanted)
        self._layouts = tower.layouts
        with torch.inference_mode():
            self._features = {i: self._model.project(feature[None])[0] for i, feature in features.items()}
        for i in members:
            failed = next((failures[image] for image in self.rows[i].images if image in failures), None)
            if failed is not None:
                self.fail(i, failed.reason, f"image {failed.content_id}: {failed.detail}")

    def features_of(self, i: int, part: slice = slice(None)) -> "list[torch.Tensor]":
        """Projected features [image tokens, model width] of the images of row `i` (or a part of them), in order."""
        return self._model.row_features([self._features[image] for image in self.rows[i].images[part]])

    def shown(self, i: int, part: slice = slice(None)) -> list[ShownImage]:
        """What a prompt has to know of the same images."""
        layouts = [self._layouts.get(image, ()) for image in self.rows[i].images[part]]
        features = self.features_of(i, part)
        return [ShownImage(len(feature), layout) for feature, layout in zip(features, layouts, strict=True)]

    def run(
        self,
        members: Sequence[int],
        lengths: Sequence[int],
        run_part: Callable[[Sequence[int]], Result],
        row_of: Callable[[int], int] = lambda member: member,
    ) -> Iterator[tuple[Sequence[int], Result]]:
        """`run_part` on batches of rows of like length within the token budget; `lengths` [tokens] of the members.

        Members are row numbers, or what `row_of` gives the (first) row of.

        When memory is short the budget is halved and stays so. Raises OutOfMemoryError if a row does not fit alone.
        """
        length_of = dict(zip(members, lengths, strict=True))
        key = (self._model.fingerprint, self._model.device, "tokens")
        budget = usable_batch_tokens(self._options.batch_tokens, self._model.device)
        for batch in token_batches(lengths, lambda: self._limits.limit(key, budget)):
            yield from run_with_oom_ladder(
                [members[i] for i in batch],
                run_part,
                key=key,
                limits=self._limits,
                size_of=lambda part: len(part) * max(length_of[i] for i in part),
                name_of=lambda member: f"row {self.rows[row_of(member)].sample_id}",
            )


def by_unit(units: Sequence[Sequence[T]], run: Callable[[Sequence[T]], list[Result]]) -> list[Result]:
    """`run` on the members of some units together, which share something.

    When memory is short for a unit alone, its members run one by one, so that the one that does not fit can be named.
    """
    members = [member for unit in units for member in unit]
    try:
        return run(members)
    except Exception as error:
        if len(units) > 1 or len(members) == 1 or not is_out_of_memory(error):
            raise
    free_memory()
    return [result for member in members for result in run([member])]


def windows(
    model: ModelForward,
    rows: Sequence[Row],
    images: ImageProvider,
    options: WindowOptions,
    limits: BatchLimits | None = None,
) -> Iterator[RowWindow[Row]]:
    """Consecutive windows of the rows. `limits` remembers batch sizes that do not fit."""
    limits = limits or BatchLimits()
    for start in range(0, len(rows), options.window_rows):
        yield RowWindow(model, rows[start : start + options.window_rows], images, options, limits)
