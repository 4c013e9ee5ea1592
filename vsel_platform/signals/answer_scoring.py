"""Answer scores of rows under conditions, window by window (`signals.windows`)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic

from vsel_platform.errors import DataError
from vsel_platform.models.batching import BatchLimits, free_memory, is_out_of_memory
from vsel_platform.models.images import ContentFailure, ImageProvider
from vsel_platform.models.packing import packed_length
from vsel_platform.models.scoring import TokenScores, score_and_tap
from vsel_platform.models.vlm import Condition, ModelForward, RenderedRow, ShownImage
from vsel_platform.signals.row_vectors import RowVectors, Vectors
from vsel_platform.signals.windows import Row, RowWindow, WindowOptions, windows

Conditions = dict[Condition, RenderedRow]
GROUP_TOKENS = 2048
"""Largest group of rows that share their images [tokens]: its attention mask has the square of it."""


@dataclass(frozen=True, slots=True)
class RowScores(Generic[Row]):
    """Scores of one row by condition, and vectors of the whole row; none, and a failure, if it cannot be scored."""

    row: Row
    rendered: Conditions = field(default_factory=dict)
    scores: dict[Condition, TokenScores] = field(default_factory=dict)
    vectors: Vectors = field(default_factory=dict)
    failure: ContentFailure | None = None


Render = Callable[[Row, Condition, Sequence[ShownImage]], RenderedRow]


def score_windows(
    model: ModelForward,
    rows: Sequence[Row],
    images: ImageProvider,
    *,
    conditions: Callable[[Row], Sequence[Condition]],
    options: WindowOptions,
    render: Render[Row],
    limits: BatchLimits | None = None,
    vectors: RowVectors | None = None,
) -> Iterator[list[RowScores[Row]]]:
    """Scores of the answers of `rows`, window by window, in the order of the rows.

    `conditions(row)` are those that a row is scored under; a row with none is passed over. All of them have the same
    targets: if the row is cut under one, its last targets are left out under the others too. `render(row, condition,
    shown)` makes the tokens from the row and what its images show; a DataError of it fails the row. `limits` remembers
    batch sizes that do not fit; `vectors` are taken from the condition `full`. Raises OutOfMemoryError if a row does
    not fit alone.
    """
    for window in windows(model, rows, images, options, limits):
        applying = {i: found for i, row in enumerate(window.rows) if (found := conditions(row))}
        window.load_images(list(applying))
        yield _score(model, window, _render(window, applying, render), vectors)


def _render(
    window: RowWindow[Row], conditions: Mapping[int, Sequence[Condition]], make: Render[Row]
) -> dict[int, Conditions]:
    """Every row under its conditions, all of a row with the same targets; others fail."""
    found: dict[int, Conditions] = {}
    for i, applying in conditions.items():
        if i in window.failures:
            continue
        row, shown = window.rows[i], window.shown(i)
        try:
            rendered = {condition: make(row, condition, shown) for condition in applying}
        except DataError as error:
            window.fail(i, "row_not_renderable", str(error))
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


@dataclass(frozen=True, slots=True)
class _Unit:
    """Renderings that pass through the model together, because they begin alike: rows of the same images under the
    conditions that show them, or one row without. `images` names a row that has those images."""

    keys: list[tuple[int, Condition]]
    rows: list[RenderedRow]
    images: int | None


def _units(window: RowWindow[Row], rendered: dict[int, Conditions]) -> list[_Unit]:
    """All renderings of the rows that have not failed, grouped as far as GROUP_TOKENS allows."""
    by_images: dict[tuple[str, ...], list[int]] = {}
    units: list[_Unit] = []
    for i, conditions in rendered.items():
        if i in window.failures:
            continue
        blind = [c for c in conditions if c == "no_image" or not window.rows[i].images]
        if blind:
            units.append(_Unit([(i, c) for c in blind], [conditions[c] for c in blind], None))
        if len(blind) < len(conditions):
            by_images.setdefault(tuple(window.rows[i].images), []).append(i)
    for members in by_images.values():
        unit: _Unit | None = None
        for i in members:
            own = {c: r for c, r in rendered[i].items() if c != "no_image"}
            if unit is None or packed_length([*unit.rows, *own.values()]) > GROUP_TOKENS:
                unit = _Unit([], [], i)
                units.append(unit)
            unit.keys.extend((i, c) for c in own)
            unit.rows.extend(own.values())
    return units


def _score(
    model: ModelForward, window: RowWindow[Row], rendered: dict[int, Conditions], wanted: RowVectors | None
) -> list[RowScores[Row]]:
    """Scores of the rendered rows batched by length; what rows of the same images share is computed once."""
    units = _units(window, rendered)
    vectors: dict[int, Vectors] = {}

    def score(part: Sequence[_Unit]) -> list[list[TokenScores]]:
        images = [window.features_of(unit.images) if unit.images is not None else [] for unit in part]
        groups = [unit.rows for unit in part]
        keys = {(g, r): key for g, unit in enumerate(part) for r, key in enumerate(unit.keys)}
        whole = {place: i for place, (i, condition) in keys.items() if condition == "full"}
        rows = {(g, r): part[g].rows[r] for g, r in whole}
        taps = wanted.taps(model, rows) if wanted is not None and rows else None
        scores, states = score_and_tap(model, groups, images, taps)
        if wanted is not None and states is not None:
            vectors.update(zip(whole.values(), wanted.of(model, list(rows.values()), states), strict=True))
        return scores

    def score_part(part: Sequence[int]) -> list[list[TokenScores]]:
        chosen = [units[number] for number in part]
        try:
            return score(chosen)
        except Exception as error:
            if len(chosen) > 1 or len(chosen[0].rows) == 1 or not is_out_of_memory(error):
                raise
        # One group alone does not fit: its renderings one by one, so that the row that does not fit can be named.
        free_memory()
        singles = [
            _Unit([key], [row], chosen[0].images) for key, row in zip(chosen[0].keys, chosen[0].rows, strict=True)
        ]
        return [[score([single])[0][0] for single in singles]]

    scores: dict[int, dict[Condition, TokenScores]] = {}
    lengths = [packed_length(unit.rows) for unit in units]
    for part, found in window.run(range(len(units)), lengths, score_part, row_of=lambda n: units[n].keys[0][0]):
        for number, own in zip(part, found, strict=True):
            for (i, condition), value in zip(units[number].keys, own, strict=True):
                scores.setdefault(i, {})[condition] = value
    return [
        RowScores(row, failure=window.failures[i])
        if i in window.failures
        else RowScores(row, rendered.get(i, {}), {c: scores[i][c] for c in rendered.get(i, {})}, vectors.get(i, {}))
        for i, row in enumerate(window.rows)
    ]


def _why_no_targets(rendered: Conditions) -> str:
    cut = max(item.n_cut for item in rendered.values())
    if cut:
        return f"the answers begin behind the length limit; {cut} tokens were cut (vlm.max_tokens)"
    return "the row has no answer with text"
