"""Rows as people see them: a short text of the conversation, and the picture as a tile."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vsel_platform.pipeline.context import Context
from vsel_platform.pipeline.lookup import open_image, samples_of, turns_of
from vsel_platform.reports.data import parts
from vsel_platform.storage.pointers import Pointer

if TYPE_CHECKING:
    from PIL import Image

    from vsel_platform.reports.thumbnails import Tile

PER_SECTION = 6


@dataclass(frozen=True, slots=True)
class Excerpt:
    """Begin of a conversation: the first question and the first answer on one line each, and the row's images."""

    question: str
    answer: str
    image_ids: tuple[str, ...]

    def text(self, question_limit: int, answer_limit: int) -> str:
        """`question → answer`, each cut to its limit [characters]."""
        sides = (_cut(self.question, question_limit), _cut(self.answer, answer_limit))
        return " → ".join(side for side in sides if side)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def excerpts(ctx: Context, dataset: str, sample_ids: Collection[str]) -> dict[str, Excerpt]:
    """Excerpts of rows of a dataset by id; rows that the store does not hold are left out."""
    manifest = ctx.store.pointer("manifest", {"dataset": dataset})
    if manifest is None or not sample_ids:
        return {}
    wanted = pa.array(sorted(set(sample_ids)), pa.string())
    shards: set[str] = set()
    for part in parts(ctx, manifest, ["sample_id", "shard"]):
        shards.update(pc.unique(part.filter(pc.is_in(part["sample_id"], wanted))["shard"]).to_pylist())
    return shard_excerpts(ctx, shards, sample_ids)


def shard_excerpts(ctx: Context, shards: Collection[str], sample_ids: Collection[str]) -> dict[str, Excerpt]:
    """Excerpts of rows of some shards by id."""
    table = samples_of(ctx, shards, set(sample_ids), ["sample_id", "conversation", "image_ids"])
    found = {}
    for row in table.to_pylist():
        turns = turns_of(row["conversation"])
        question, answer = (_first(turns, role) for role in ("user", "assistant"))
        found[row["sample_id"]] = Excerpt(question, answer, tuple(row["image_ids"]))
    return found


def _first(turns: list[tuple[str, str]], role: str) -> str:
    text = next((text for who, text in turns if who == role), "")
    return " ".join(text.replace("<image>", " ").split())


@dataclass(frozen=True, slots=True)
class Caption:
    """A row to show as a tile: which, its task, and a measure in words."""

    sample_id: str
    task: str
    measure: str = ""


def distinct_pictures(
    captions: Iterable[Caption], texts: dict[str, Excerpt], limit: int = PER_SECTION
) -> list[Caption]:
    """The first `limit` captions that do not repeat a picture; rows without a picture count as different."""
    seen: set[str] = set()
    kept: list[Caption] = []
    for caption in captions:
        excerpt = texts.get(caption.sample_id)
        image = excerpt.image_ids[0] if excerpt is not None and excerpt.image_ids else None
        if image in seen or len(kept) == limit:
            continue
        if image is not None:
            seen.add(image)
        kept.append(caption)
    return kept


def tiles(
    ctx: Context,
    captions: Sequence[Caption],
    texts: dict[str, Excerpt],
    change: "Callable[[str, Image.Image], Image.Image] | None" = None,
) -> "list[Tile]":
    """Tiles of rows; a picture that cannot be read is a tile that says so. `change(sample_id, picture)` draws on it."""
    from vsel_platform.reports.thumbnails import Tile, thumbnail

    first = {c.sample_id: texts[c.sample_id].image_ids[:1] for c in captions if c.sample_id in texts}
    paths = _paths(ctx, {image for images in first.values() for image in images})
    made = []
    for caption in captions:
        excerpt = texts.get(caption.sample_id, Excerpt("", "", ()))
        images = first.get(caption.sample_id, ())
        picture = _open(ctx, paths.get(images[0], "")) if images else None
        if picture is not None and change is not None:
            picture = change(caption.sample_id, picture)
        made.append(
            Tile(
                thumbnail(picture) if picture is not None else None,
                caption.task,
                excerpt.text(26, 24),
                caption.measure,
                missing="not readable" if images else "text only",
            )
        )
    return made


def typicality_sheet(ctx: Context, scores: Pointer) -> bytes | None:
    """Contact sheet of the most and the least typical images of a scored dataset; None if none is scored."""
    from vsel_platform.reports.thumbnails import contact_sheet

    dataset = scores.partition["dataset"]
    most, least = (extremes(ctx, scores, descending=down) for down in (True, False))
    texts = excerpts(ctx, dataset, {caption.sample_id for caption in (*most, *least)})
    head = distinct_pictures(most, texts)
    shown = {caption.sample_id for caption in head}
    tail = distinct_pictures([caption for caption in least if caption.sample_id not in shown], texts)
    return contact_sheet(
        [("Most typical", tiles(ctx, head, texts)), ("Least typical", tiles(ctx, tail, texts))],
        title=f"Most and least typical images of dataset {dataset}",
        subtitle="one of each task in turn; typicality: mean cosine to the nearest neighbours in the cluster",
    )


def score_sheet(ctx: Context, scores: Pointer, name: str) -> bytes | None:
    """Contact sheet of the rows with the highest and the lowest scores; None if none has one."""
    from vsel_platform.reports.thumbnails import contact_sheet

    dataset = scores.partition["dataset"]
    highest, lowest = (extremes(ctx, scores, descending=down, column="value") for down in (True, False))
    texts = excerpts(ctx, dataset, {caption.sample_id for caption in (*highest, *lowest)})
    head = distinct_pictures(highest, texts)
    shown = {caption.sample_id for caption in head}
    tail = distinct_pictures([caption for caption in lowest if caption.sample_id not in shown], texts)
    return contact_sheet(
        [("Highest scores", tiles(ctx, head, texts)), ("Lowest scores", tiles(ctx, tail, texts))],
        title=f"Highest and lowest {name} scores of dataset {dataset}",
        subtitle="one of each task in turn",
    )


def _paths(ctx: Context, image_ids: set[str]) -> dict[str, str]:
    """Paths of a few images; only as many shards are read as it takes to find them."""
    wanted = pa.array(sorted(image_ids), pa.string())
    paths: dict[str, str] = {}
    for pointer in ctx.store.pointers("images"):
        if len(paths) == len(image_ids):
            break
        for part in parts(ctx, pointer, ["image_id", "path"]):
            found = part.filter(pc.is_in(part["image_id"], wanted))
            paths.update(zip(found["image_id"].to_pylist(), found["path"].to_pylist(), strict=True))
    return paths


def _open(ctx: Context, path: str) -> "Image.Image | None":
    from vsel_platform.models.images import ContentFailure, attempt_image

    limit = max(dataset.images.max_pixels for dataset in ctx.project.datasets.values())
    found = attempt_image(path, partial(open_image, path, max_pixels=limit)) if path else None
    return None if isinstance(found, ContentFailure) else found


def extremes(ctx: Context, scores: Pointer, *, descending: bool, column: str = "typicality") -> list[Caption]:
    """Rows with the highest (or lowest) value of a column, one task after the other, as captions.

    The first of every task come first, then the second ones, and so on, so that one large task does not fill the page.
    """
    names = ["sample_id", "task", "image_id", column]
    best: pa.Table | None = None
    for part in parts(ctx, scores, names):
        known = part.filter(pc.is_valid(part[column]))
        best = _first_of_tasks(known if best is None else pa.concat_tables([best, known]), column, descending)
    if best is None:
        return []
    place = _place_in_task(best["task"])
    rows: list[dict[str, Any]] = best.to_pylist()
    sign = -1 if descending else 1
    order = sorted(range(len(rows)), key=lambda i: (place[i], sign * rows[i][column], rows[i]["sample_id"]))
    word = "typicality" if column == "typicality" else "score"
    return [Caption(rows[i]["sample_id"], rows[i]["task"], f"{word} {rows[i][column]:.3g}") for i in order]


def _first_of_tasks(table: pa.Table, column: str, descending: bool) -> pa.Table:
    """The most extreme rows of every task, each picture once, sorted by task and column."""
    order = [
        ("task", "ascending"),
        (column, "descending" if descending else "ascending"),
        ("image_id", "ascending"),
        ("sample_id", "ascending"),
    ]
    table = table.sort_by(order)
    if table.num_rows > 1:
        same = [
            pc.fill_null(pc.equal(table[name].slice(1), table[name].slice(0, table.num_rows - 1)), False)
            for name in ("task", "image_id")
        ]
        repeated = pa.chunked_array([pa.array([False]), *pc.and_(*same).chunks])
        table = table.filter(pc.invert(repeated))
    return table.filter(pa.array(_place_in_task(table["task"]) < PER_SECTION))


def _place_in_task(tasks: pa.ChunkedArray) -> NDArray[np.int64]:
    """0-based place of every row among the rows of its task, in a column sorted by task."""
    first = np.asarray(pc.rank(tasks, sort_keys="ascending", tiebreaker="min"), dtype=np.int64)
    return np.arange(1, len(first) + 1, dtype=np.int64) - first
