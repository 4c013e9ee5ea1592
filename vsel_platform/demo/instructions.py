"""The demo's instructions: which rows the pool, the evaluation and the later batch hold."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vsel_platform.demo.artwork import Concept, Drawing
from vsel_platform.demo.broken import broken_rows
from vsel_platform.demo.chance import Chance
from vsel_platform.demo.picture_tasks import PICTURE_TASKS
from vsel_platform.demo.pictures import Variant, single
from vsel_platform.demo.rows import Row, Source
from vsel_platform.demo.scene_tasks import SCENE_TASKS
from vsel_platform.demo.splits import Splits, is_held_out
from vsel_platform.demo.text_tasks import text_row

POOL_ROWS = {
    "name": 750,
    "group": 650,
    "colour": 650,
    "yes_no": 500,
    "choice": 500,
    "caption": 700,
    "count": 650,
    "position": 650,
    "reading": 450,
    "text": 400,
}
"""Task -> rows of the full pool; a smaller list of concepts gets proportionally fewer."""

EVALUATION_ROWS_PER_TASK = 60
NEW_ROWS_PER_TASK = 10
COPIED_ROWS = 10
"""So many rows stand in the pool's file twice as they are, and so many others once more under another id."""
ALL_CONCEPTS = 1861
_GENERATED_TASKS = {**SCENE_TASKS, "text": text_row}
_ATTEMPTS_PER_ROW = 20


def pool_rows(splits: Splits, concepts: Sequence[Concept], seed: int) -> list[Row]:
    """Rows to select from, in random order: every task of `POOL_ROWS`, drawings of the pool, two variants."""
    share = min(1.0, len({drawing.concept.key for drawing in splits.pool}) / ALL_CONCEPTS)
    counts = {task: max(1, round(rows * share)) for task, rows in POOL_ROWS.items()}
    return make_rows(_source(splits.pool, concepts, held_out=False), counts, Chance(seed, "pool"), ("plain", "inset"))


def evaluation_rows(splits: Splits, concepts: Sequence[Concept], seed: int) -> list[Row]:
    """Held-out rows: the same tasks on drawings, and text-only rows on concepts, that the pool does not have."""
    counts = dict.fromkeys(POOL_ROWS, EVALUATION_ROWS_PER_TASK)
    source = _source(splits.evaluation, concepts, held_out=True)
    return make_rows(source, counts, Chance(seed, "evaluation"), ("plain", "inset"))


def new_rows(splits: Splits, concepts: Sequence[Concept], seed: int) -> list[Row]:
    """A batch that arrives later, about 1 % of the pool: drawings of the pool in a third variant."""
    counts = dict.fromkeys(PICTURE_TASKS, NEW_ROWS_PER_TASK)
    return make_rows(_source(splits.pool, concepts, held_out=False), counts, Chance(seed, "new"), ("turned",))


def _source(drawings: tuple[Drawing, ...], concepts: Sequence[Concept], *, held_out: bool) -> Source:
    asked = tuple(concept for concept in concepts if is_held_out(concept) == held_out)
    return Source(drawings, asked, tuple(concepts))


def make_rows(source: Source, counts: Mapping[str, int], chance: Chance, variants: Sequence[Variant]) -> list[Row]:
    """`counts[task]` different rows of every task, shuffled; fewer where the source does not have as many."""
    rows = []
    for task, count in counts.items():
        if task in PICTURE_TASKS:
            candidates = _picture_rows(task, source, chance, variants, _ATTEMPTS_PER_ROW * count)
        else:
            candidates = (_GENERATED_TASKS[task](source, chance) for _ in range(_ATTEMPTS_PER_ROW * count))
        rows += _first_different(candidates, count)
    return chance.sample(rows, len(rows))


def _picture_rows(
    task: str, source: Source, chance: Chance, variants: Sequence[Variant], attempts: int
) -> Iterable[Row | None]:
    drawings = chance.cycle(source.drawings)
    for _, drawing in zip(range(attempts), drawings, strict=False):
        variant = chance.pick(variants)
        turns = PICTURE_TASKS[task](drawing, variant, source, chance)
        yield Row(task, single(drawing, variant), turns) if turns else None


def _first_different(candidates: Iterable[Row | None], count: int) -> list[Row]:
    """The first `count` different rows. The candidates are made one by one, as they are asked for."""
    found: dict[Row, None] = {}
    for row in candidates:
        if row is not None:
            found.setdefault(row)
        if len(found) == count:
            break
    return list(found)


def pool_json(rows: Sequence[Row], seed: int) -> list[Any]:
    """The pool as JSON values: the rows, and in between copies of some of them and the broken ones."""
    chance = Chance(seed, "pool order")
    values: list[Any] = numbered(rows, "emoji")
    chosen = chance.sample(values, min(2 * COPIED_ROWS, len(values) // 10))
    copies = [*chosen[::2], *({**row, "id": f"{row['id']}-copy"} for row in chosen[1::2])]
    image = next(row.picture.path for row in rows if row.picture)
    for value in [*copies, *broken_rows(image)]:
        # Not at the very start: the first rows are what a reader looks at.
        values.insert(len(values) // 10 + chance.below(len(values) - len(values) // 10), value)
    return values


def numbered(rows: Sequence[Row], prefix: str) -> list[dict[str, Any]]:
    """Rows as JSON values with the ids `prefix-00000` and so on."""
    return [row.to_json(f"{prefix}-{number:05d}") for number, row in enumerate(rows)]
