"""Answer scores of rows under conditions: windows of rows, images once per window, batches of a token budget.

Rows are taken in windows of a fixed number, in the given order, and a window is computed without regard to any
other. So a job that stops after some windows and goes on with the rows behind them gets the same numbers, to the
last bit, as one that was never stopped.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from vsel_platform.errors import DataError
from vsel_platform.models.batching import BatchLimits, run_with_oom_ladder, token_batches, usable_batch_tokens
from vsel_platform.models.image_features import TowerFeatures
from vsel_platform.models.images import ContentFailure, ImageProvider
from vsel_platform.models.packing import packed_length
from vsel_platform.models.scoring import TokenScores, score_batch
from vsel_platform.models.vlm import Condition, ConversationRow, ModelForward, RenderedRow

if TYPE_CHECKING:
    import torch

WINDOW_ROWS = 128
Row = TypeVar("Row", bound=ConversationRow)


@dataclass(frozen=True, slots=True)
class RowScores(Generic[Row]):
    """Scores of one row by condition; none, and a failure, if the row cannot be scored."""

    row: Row
    rendered: dict[Condition, RenderedRow] = field(default_factory=dict)
    scores: dict[Condition, TokenScores] = field(default_factory=dict)
    failure: ContentFailure | None = None


@dataclass(frozen=True, slots=True)
class ScoringOptions:
    """How rows are batched. `batch_tokens` counts padding; `window_rows` is the unit of resumption."""

    batch_tokens: int = 8192
    window_rows: int = WINDOW_ROWS
    decode_workers: int = 2


Render = Callable[[Row, Condition], RenderedRow]


def score_windows(
    model: ModelForward,
    rows: Sequence[Row],
    images: ImageProvider,
    *,
    conditions: Sequence[Condition],
    options: ScoringOptions,
    render: Render[Row],
    limits: BatchLimits | None = None,
) -> Iterator[list[RowScores[Row]]]:
    """Scores of the answers of `rows`, window by window, in the order of the rows.

    All conditions of a row have the same targets: if a row is cut under one of them, its last targets are left out
    under the others too. `render(row, condition)` makes the tokens, and a DataError of it fails the
    row. `limits` remembers batch sizes that do not fit. Raises OutOfMemoryError if a row does not fit alone.
    """
    limits = limits or BatchLimits()
    for start in range(0, len(rows), options.window_rows):
        window = _Window(model, rows[start : start + options.window_rows], images, options, limits)
        window.render(conditions, render)
        window.load_images()
        window.score()
        yield window.results


class _Window(Generic[Row]):
    def __init__(
        self,
        model: ModelForward,
        rows: Sequence[Row],
        images: ImageProvider,
        options: ScoringOptions,
        limits: BatchLimits,
    ) -> None:
        self._model = model
        self._images = images
        self._options = options
        self._limits = limits
        self._features: dict[str, torch.Tensor] = {}
        self.results: list[RowScores[Row]] = [RowScores(row) for row in rows]

    def render(self, conditions: Sequence[Condition], make: Render[Row]) -> None:
        """Render every row under every condition, and give all conditions of a row the same targets."""
        for i, result in enumerate(self.results):
            try:
                rendered = {condition: make(result.row, condition) for condition in conditions}
            except DataError as error:
                self._fail(i, "row_not_renderable", str(error))
                continue
            count = min(item.n_targets for item in rendered.values())
            if count == 0:
                self._fail(i, "no_answer_tokens", _why_no_targets(rendered))
                continue
            rendered = {c: r if r.n_targets == count else r.with_targets(count) for c, r in rendered.items()}
            if len({r.labels[r.answer_index >= 0].tobytes() for r in rendered.values()}) > 1:
                # A tokenizer may join blanks at the end of a question with blanks at the start of the answer.
                self._fail(i, "targets_differ", "the answer's tokens differ with and without the question")
                continue
            self.results[i] = RowScores(result.row, rendered)

    def load_images(self) -> None:
        """Features of the distinct images of the rows that can be scored; a row with a bad image fails."""
        import torch

        wanted = [image for result in self.results if result.rendered for image in result.row.images]
        tower = TowerFeatures(
            self._model, self._images, limits=self._limits, decode_workers=self._options.decode_workers
        )
        features, failures = tower.get(wanted)
        with torch.inference_mode():
            self._features = {i: self._model.project(feature[None])[0] for i, feature in features.items()}
        for i, result in enumerate(self.results):
            failed = next((failures[image] for image in result.row.images if image in failures), None)
            if result.rendered and failed is not None:
                self._fail(i, failed.reason, f"image {failed.content_id}: {failed.detail}")

    def score(self) -> None:
        """Score the rows batched by length, all conditions of a row together."""
        todo = [i for i, result in enumerate(self.results) if result.rendered]
        lengths = [packed_length(self._group(i)) for i in todo]
        length_of = dict(zip(todo, lengths, strict=True))
        key = (self._model.fingerprint, self._model.device, "tokens")
        budget = usable_batch_tokens(self._options.batch_tokens, self._model.device)
        for batch in token_batches(lengths, lambda: self._limits.limit(key, budget)):
            for part, scores in run_with_oom_ladder(
                [todo[i] for i in batch],
                self._score_part,
                key=key,
                limits=self._limits,
                size_of=lambda part: len(part) * max(length_of[i] for i in part),
                name_of=lambda i: f"row {self.results[i].row.sample_id}",
            ):
                for i, own in zip(part, scores, strict=True):
                    self.results[i].scores.update(zip(self.results[i].rendered, own, strict=True))

    def _group(self, i: int) -> list[RenderedRow]:
        return list(self.results[i].rendered.values())

    def _score_part(self, part: Sequence[int]) -> list[list[TokenScores]]:
        features = [[self._features[image] for image in self.results[i].row.images] for i in part]
        return score_batch(self._model, [self._group(i) for i in part], features)

    def _fail(self, i: int, reason: str, detail: str) -> None:
        row = self.results[i].row
        self.results[i] = RowScores(row, failure=ContentFailure(row.sample_id, reason, detail))


def _why_no_targets(rendered: dict[Condition, RenderedRow]) -> str:
    cut = max(item.n_cut for item in rendered.values())
    if cut:
        return f"the answers begin behind the length limit; {cut} tokens were cut (vlm.max_tokens)"
    return "the row has no answer with text"
