"""Answer scores of rows under conditions, window by window (`signals.windows`)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic

from vsel_platform.errors import DataError
from vsel_platform.models.batching import BatchLimits
from vsel_platform.models.images import ContentFailure, ImageProvider
from vsel_platform.models.packing import packed_length
from vsel_platform.models.scoring import TokenScores, score_batch
from vsel_platform.models.vlm import Condition, ModelForward, RenderedRow
from vsel_platform.signals.windows import Row, RowWindow, WindowOptions, windows

Conditions = dict[Condition, RenderedRow]


@dataclass(frozen=True, slots=True)
class RowScores(Generic[Row]):
    """Scores of one row by condition; none, and a failure, if the row cannot be scored."""

    row: Row
    rendered: Conditions = field(default_factory=dict)
    scores: dict[Condition, TokenScores] = field(default_factory=dict)
    failure: ContentFailure | None = None


Render = Callable[[Row, Condition], RenderedRow]


def score_windows(
    model: ModelForward,
    rows: Sequence[Row],
    images: ImageProvider,
    *,
    conditions: Callable[[Row], Sequence[Condition]],
    options: WindowOptions,
    render: Render[Row],
    limits: BatchLimits | None = None,
) -> Iterator[list[RowScores[Row]]]:
    """Scores of the answers of `rows`, window by window, in the order of the rows.

    `conditions(row)` are those that a row is scored under; a row with none is passed over. All of them have the same
    targets: if the row is cut under one, its last targets are left out under the others too. `render(row, condition)`
    makes the tokens, and a DataError of it fails the row. `limits` remembers batch sizes that do not fit. Raises
    OutOfMemoryError if a row does not fit alone.
    """
    for window in windows(model, rows, images, options, limits):
        yield _score(model, window, _render(window, conditions, render))


def _render(
    window: RowWindow[Row], conditions: Callable[[Row], Sequence[Condition]], make: Render[Row]
) -> dict[int, Conditions]:
    """Every row under every condition, all conditions of a row with the same targets; others fail."""
    found: dict[int, Conditions] = {}
    for i, row in enumerate(window.rows):
        try:
            rendered = {condition: make(row, condition) for condition in conditions(row)}
        except DataError as error:
            window.fail(i, "row_not_renderable", str(error))
            continue
        if not rendered:
            continue
        count = min(item.n_targets for item in rendered.values())
        if count == 0:
            window.fail(i, "no_answer_tokens", _why_no_targets(rendered))
            continue
        rendered = {c: r if r.n_targets == count else r.with_targets(count) for c, r in rendered.items()}
        if len({r.labels[r.answer_index >= 0].tobytes() for r in rendered.values()}) > 1:
            # A tokenizer may join blanks at the end of a question with blanks at the start of the answer.
            window.fail(i, "targets_differ", "the answer's tokens differ between the conditions")
            continue
        found[i] = rendered
    return found


def _score(model: ModelForward, window: RowWindow[Row], rendered: dict[int, Conditions]) -> list[RowScores[Row]]:
    """Scores of the rendered rows batched by length, all conditions of a row together."""
    window.load_images(list(rendered))
    todo = [i for i in rendered if i not in window.failures]
    groups = {i: list(rendered[i].values()) for i in todo}

    def score_part(part: Sequence[int]) -> list[list[TokenScores]]:
        return score_batch(model, [groups[i] for i in part], [window.features_of(i) for i in part])

    scores: dict[int, dict[Condition, TokenScores]] = {}
    for part, found in window.run(todo, [packed_length(groups[i]) for i in todo], score_part):
        for i, own in zip(part, found, strict=True):
            scores[i] = dict(zip(rendered[i], own, strict=True))
    return [
        RowScores(row, failure=window.failures[i])
        if i in window.failures
        else RowScores(row, rendered.get(i, {}), scores.get(i, {}))
        for i, row in enumerate(window.rows)
    ]


def _why_no_targets(rendered: Conditions) -> str:
    cut = max(item.n_cut for item in rendered.values())
    if cut:
        return f"the answers begin behind the length limit; {cut} tokens were cut (vlm.max_tokens)"
    return "the row has no answer with text"
