"""Stage `method_comparison`: the selections of a dataset side by side, with a band of random ones."""

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vsel_platform.errors import NotMaterializedError, SelectionError
from vsel_platform.methods.api import Clustering
from vsel_platform.methods.presets import OWN_PIPELINE
from vsel_platform.methods.registry import composition
from vsel_platform.pipeline import clustering, embeddings, method_scores, scores
from vsel_platform.pipeline.context import Context, Inputs, StageResult, inputs_of
from vsel_platform.pipeline.lookup import dataset_shards, distinct_contents, samples_of
from vsel_platform.pipeline.method_signals import StoreSignals
from vsel_platform.pipeline.models import vlm_fingerprint
from vsel_platform.pipeline.needs import need_pointers
from vsel_platform.pipeline.quality import PASSED, publish_checked
from vsel_platform.pipeline.timing import known_seconds, record_rate
from vsel_platform.pipeline.tokens import token_counts
from vsel_platform.selection.comparison import (
    Facts,
    Floats,
    Indices,
    Pool,
    facts,
    jaccard,
    random_bands,
    random_order,
    rank_correlation,
)
from vsel_platform.storage.pointers import Pointer
from vsel_platform.tables import TABLES

STAGE = "method_comparison"
RECIPES_TABLE, PAIRS_TABLE, PAGE = "compared_recipes", "compared_pairs", "comparison"
COMPARE_CODE = "method_comparison-3"
RANDOM_SEEDS = (1, 2, 3, 4, 5, 6, 7)
CLUSTERS_PER_ROOT = 4
BANDED = ("task_coverage", "cluster_coverage", "image_coverage", "repeated_images", "tokens")


@dataclass(frozen=True)
class Comparison:
    """What was compared: recipes in order, rows of both tables, and the selected row numbers by recipe."""

    dataset: str
    recipes: list[str]
    rows: list[dict[str, Any]]
    pairs: list[dict[str, Any]]
    selected: dict[str, Indices]
    pool: Pool


def compared_recipes(ctx: Context, dataset: str) -> list[str]:
    """Recipes of a dataset whose selection is of its present rows, in the order of the project file.

    One whose rows have left the dataset is stale, and is compared when it has selected again.
    """
    named = [name for name, recipe in ctx.project.recipes.items() if recipe.dataset == dataset]
    present = pa.array(_present_ids(ctx, dataset), pa.string())
    return [name for name in named if _is_of(ctx, name, present)]


def _present_ids(ctx: Context, dataset: str) -> list[str]:
    return [row.sample_id for row in distinct_contents(ctx, dataset)[1]]


def _is_of(ctx: Context, recipe: str, present: pa.Array) -> bool:
    pointer = ctx.store.pointer("selected_subset", {"recipe": recipe})
    if pointer is None or pointer.quality != PASSED:
        return False
    return bool(pc.all(pc.is_in(ctx.store.read(pointer, ["sample_id"])["sample_id"], present)).as_py())


def source_pointers(ctx: Context, dataset: str, recipes: Sequence[str]) -> list[Pointer]:
    """The dataset, the selections of the recipes, and the embeddings and scores that are there already."""
    selections = [ctx.store.require("selected_subset", {"recipe": name}) for name in recipes]
    scored = {pointer.key: pointer for name in recipes if (pointer := _score_column(ctx, name)[0]) is not None}
    embedded = (pointer for pointer in _embedded(ctx, dataset) if pointer is not None)
    return [
        ctx.store.require("manifest", {"dataset": dataset}),
        *need_pointers(ctx, dataset, []),
        *selections,
        *embedded,
        *scored.values(),
    ]


def _embedded(ctx: Context, dataset: str) -> list[Pointer | None]:
    shards = dataset_shards(ctx, dataset)
    return [ctx.store.pointer(embeddings.SIGNAL, embeddings.partition(ctx, shard)) for shard in shards]


def inputs(ctx: Context, dataset: str) -> Inputs:
    """Inputs of the stage."""
    recipes = compared_recipes(ctx, dataset)
    return inputs_of(
        source_pointers(ctx, dataset, recipes),
        methods={name: ctx.project.recipe(name).method for name in recipes},
        tokenizer=[ctx.project.vlm.model, ctx.project.vlm.revision],
        epochs=ctx.project.training.lora.epochs,
        code=COMPARE_CODE,
    )


def is_current(ctx: Context, dataset: str) -> bool:
    """Whether the stored comparison is of the present selections, scores and settings."""
    wanted = inputs(ctx, dataset).fingerprint
    tables = (RECIPES_TABLE, PAIRS_TABLE, PAGE)
    found = [ctx.store.pointer(table, {"dataset": dataset}) for table in tables]
    return all(pointer is not None and pointer.input_fingerprint == wanted for pointer in found)


def compare(ctx: Context, dataset: str, recipes: Sequence[str]) -> Comparison:
    """Compare the present selections of recipes of one dataset.

    Raises SelectionError for fewer than two recipes or recipes of another dataset, NotMaterializedError for a recipe
    without a selection.
    """
    names = list(dict.fromkeys(recipes))
    other = [name for name in names if ctx.project.recipe(name).dataset != dataset]
    if len(names) < 2 or other:
        raise SelectionError(
            f"compare at least two recipes of dataset {dataset}; got {', '.join(names) or 'none'}"
            + (f", of which {', '.join(other)} select from another dataset" if other else "")
        )
    pool = _pool(ctx, dataset)
    number = {sample: i for i, sample in enumerate(pool.sample_ids)}
    selected: dict[str, Indices] = {}
    for name in names:
        ids = ctx.store.read_partition("selected_subset", {"recipe": name}, ["sample_id"])["sample_id"].to_pylist()
        gone = [sample for sample in ids if sample not in number]
        if gone:
            raise NotMaterializedError(
                f"recipe {name}: {len(gone)} selected rows are gone from {dataset}; select again"
            )
        selected[name] = np.array([number[sample] for sample in ids], np.int64)
    values = {name: _scores(ctx, name, number) for name in names}
    orders = [random_order(pool, seed) for seed in RANDOM_SEEDS]
    rows = [_recipe_row(ctx, name, pool, selected[name], orders) for name in names]
    pairs: list[dict[str, Any]] = [
        {
            "recipe": a,
            "other": b,
            "jaccard": jaccard(selected[a], selected[b]),
            "shared_rows": len(np.intersect1d(selected[a], selected[b])),
            "rank_correlation": _correlation(values[a], values[b]),
        }
        for a, b in combinations(names, 2)
    ]
    return Comparison(dataset, names, rows, pairs, selected, pool)


def run(ctx: Context, dataset: str) -> StageResult:
    """Compare all recipes of a dataset that have a selection, and publish tables and page."""
    from vsel_platform.reports.comparison import comparison_page, sheets_note

    start = time.perf_counter()
    recipes = compared_recipes(ctx, dataset)
    wanted = inputs(ctx, dataset)
    found = compare(ctx, dataset, recipes)
    lineage = {
        "input_fingerprint": wanted.fingerprint,
        "inputs": wanted.references,
        "code_version": COMPARE_CODE,
        "run_id": ctx.run_id,
    }
    key = {"dataset": dataset}
    published = [
        publish_checked(ctx, table, key, pa.Table.from_pylist(rows, schema=TABLES[table].arrow_schema()), **lineage)
        for table, rows in ((PAIRS_TABLE, found.pairs), (RECIPES_TABLE, found.rows))
    ]
    with TemporaryDirectory() as directory:
        (Path(directory) / "page.html").write_text(comparison_page(ctx, found), "utf-8")
        published.append(ctx.store.publish_artifact(PAGE, key, Path(directory), **lineage))
    seconds = time.perf_counter() - start
    record_rate(ctx, STAGE, "", len(recipes), seconds)
    note = sheets_note(found)
    return StageResult(
        STAGE,
        key,
        "-".join(pointer.data_version for pointer in published),
        len(recipes),
        seconds=seconds,
        references=[pointer.reference for pointer in published],
        metadata={"pairs shown": note} if note else {},
    )


def _pool(ctx: Context, dataset: str) -> Pool:
    manifest = ctx.store.require("manifest", {"dataset": dataset})
    pointers = [manifest, *need_pointers(ctx, dataset, [])]
    embedded = [pointer for pointer in _embedded(ctx, dataset) if pointer is not None]
    signals = StoreSignals(ctx, [*pointers, *embedded])
    clusters = np.full(len(signals.sample_ids), -1, np.int64)
    # A shard of text-only rows has no embedding; one that was not embedded yet has no pointer.
    if len(embedded) == len(dataset_shards(ctx, dataset)) and any(pointer.rows for pointer in embedded):
        # Finer than the methods' own clusters: a random selection of a tenth would have a row of every coarse one.
        count = CLUSTERS_PER_ROOT * math.isqrt(len(signals.sample_ids))
        found = clustering.cluster_rows(*signals.vectors(embeddings.SIGNAL), Clustering(n_clusters=count))
        clusters = found.labels
    tokens = token_counts(ctx, manifest)
    return Pool(
        signals.sample_ids,
        _numbers(signals.tasks),
        *_shown_images(ctx, dataset, signals.sample_ids),
        clusters,
        np.array([tokens[sample] for sample in signals.sample_ids], np.float64),
    )


def _shown_images(ctx: Context, dataset: str, sample_ids: Sequence[str]) -> tuple[Indices, Indices]:
    """Number of every image that a row shows, and the row's number, by row; each image of a row once."""
    table = samples_of(ctx, dataset_shards(ctx, dataset), None, ["sample_id", "image_ids"])
    places = pc.index_in(table["sample_id"], pa.array(sample_ids, pa.string()))
    lists = table["image_ids"].combine_chunks()
    rows = np.asarray(pc.fill_null(places, -1).combine_chunks().take(pc.list_parent_indices(lists)), np.int64)
    images = np.asarray(pc.list_flatten(lists).dictionary_encode().indices, np.int64)
    pairs = np.unique(np.stack([rows, images])[:, rows >= 0], axis=1)
    return pairs[1], pairs[0]


def _numbers(names: Sequence[str | None]) -> Indices:
    number = {name: i for i, name in enumerate(sorted({name for name in names if name is not None}))}
    return np.array([-1 if name is None else number[name] for name in names], np.int64)


def _score_column(ctx: Context, recipe: str) -> tuple[Pointer | None, str]:
    """Where the score that a recipe ranks by stands, and the column; None if it has none, or none yet."""
    settings = ctx.project.recipe(recipe)
    if settings.method == "random":
        return None, ""
    if settings.method in OWN_PIPELINE:
        return ctx.store.pointer("presel_scores", scores.partition(settings.dataset, settings.mode)), "typicality"
    key = method_scores.partition(settings.dataset, composition(ctx.project, settings))
    return ctx.store.pointer(method_scores.TABLE, key), "value"


def _scores(ctx: Context, recipe: str, number: dict[str, int]) -> Floats | None:
    """The score that the recipe ranks by, of every row (NaN: none); None if it has none."""
    pointer, column = _score_column(ctx, recipe)
    if pointer is None:
        return None
    table = ctx.store.read(pointer, ["sample_id", column])
    values = np.full(len(number), np.nan)
    known = pc.fill_null(table[column], np.nan).to_numpy()
    for sample, value in zip(table["sample_id"].to_pylist(), known, strict=True):
        if sample in number:
            values[number[sample]] = value
    return values


def _correlation(first: Floats | None, second: Floats | None) -> float | None:
    return rank_correlation(first, second) if first is not None and second is not None else None


def _recipe_row(ctx: Context, recipe: str, pool: Pool, rows: Indices, orders: Sequence[Indices]) -> dict[str, Any]:
    own: Facts = facts(pool, rows)
    bands = random_bands(pool, rows, orders)
    values: dict[str, Any] = {"recipe": recipe, "method": ctx.project.recipe(recipe).method, **asdict(own)}
    values |= {"overlap_with_random": bands["overlap"].mean, "random_overlap_high": bands["random_overlap"].high}
    for name in BANDED:
        values |= {f"{name}_random_low": bands[name].low, f"{name}_random_high": bands[name].high}
    for name, labels in (("cluster_coverage", pool.clusters), ("image_coverage", pool.images)):
        if not (labels >= 0).any():  # nothing to cover: no image, or none with an embedding
            values |= dict.fromkeys((name, f"{name}_random_low", f"{name}_random_high"))
    return values | {"training_tokens": own.tokens * ctx.project.training.lora.epochs}


def training_hours(ctx: Context, rows: int) -> float | None:
    """Hours that fine-tuning on so many rows takes at the rate of the last one in this store; None before the first.

    Told to people and not stored: the rate is that of the machine, and the comparison is one of selections.
    """
    epochs = ctx.project.training.lora.epochs
    seconds = known_seconds(ctx, "finetuned_checkpoint", vlm_fingerprint(ctx.project.vlm), round(rows * epochs))
    return None if seconds is None else seconds / 3600
