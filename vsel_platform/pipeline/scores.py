"""Stage `presel_scores`: difficulty of tasks, clusters and typicality of a dataset, from the stored signals."""

import math
import time
from collections import defaultdict
from dataclasses import dataclass

import pyarrow as pa

from vsel_platform.errors import ConfigError, NotMaterializedError
from vsel_platform.methods.presel import (
    ImageScores,
    Mode,
    PreselOptions,
    TaskScore,
    instruction_relevance,
    score_images,
    task_importance,
)
from vsel_platform.pipeline import embeddings, losses
from vsel_platform.pipeline.context import Context, Inputs, StageResult, inputs_of
from vsel_platform.pipeline.lookup import Content, dataset_shards, distinct_contents
from vsel_platform.pipeline.models import embedding_fingerprint
from vsel_platform.pipeline.quality import publish_checked
from vsel_platform.pipeline.reference import first_images
from vsel_platform.pipeline.timing import record_rate
from vsel_platform.storage.pointers import Pointer
from vsel_platform.tables import TABLES

SCORE_CODE = "presel_scores-1"
SCORE_OPTIONS = ("n_neighbours", "cluster_fraction", "min_reference_rows")
SEED = 12345


def dataset_options(ctx: Context, dataset: str) -> PreselOptions:
    """Options that scores depend on; all recipes of a dataset share them, because they share its scores.

    Raises ConfigError if two recipes disagree.
    """
    found: dict[str, object] = {}
    for name, recipe in ctx.project.recipes.items():
        if recipe.dataset != dataset or recipe.method != "presel":
            continue
        for option, value in recipe.options.items():
            if option in SCORE_OPTIONS and found.setdefault(option, value) != value:
                raise ConfigError(
                    f"recipe {name}: option {option}={value} differs from another recipe's {found[option]} on dataset "
                    f"{dataset}; scores are shared, so give both the same value"
                )
    return PreselOptions.model_validate(found)


def source_pointers(ctx: Context, dataset: str) -> list[Pointer]:
    """What scores are made from: manifest, reference subset, embeddings and losses of every shard."""
    shards = dataset_shards(ctx, dataset)
    pointers = [ctx.store.require(t, {"dataset": dataset}) for t in ("manifest", "reference_subset")]
    pointers += [ctx.store.require("images", {"shard": shard}) for shard in shards]
    for shard in shards:
        pointers.append(ctx.store.require(embeddings.SIGNAL, embeddings.partition(ctx, shard)))
        found = ctx.store.pointer("losses", losses.partition(ctx, dataset, shard))
        if found is not None:
            pointers.append(found)
    return pointers


def inputs(ctx: Context, dataset: str) -> Inputs:
    """Inputs of the stage. Raises NotMaterializedError while a signal is missing."""
    options = dataset_options(ctx, dataset).model_dump(include=set(SCORE_OPTIONS))
    return inputs_of(source_pointers(ctx, dataset), options=options, seed=SEED, code=SCORE_CODE)


def is_current(ctx: Context, dataset: str) -> bool:
    """Whether the stored scores, in every mode that a recipe uses, are of the present signals and options."""
    wanted = inputs(ctx, dataset).fingerprint
    keys = [(table, mode) for mode in modes(ctx, dataset) for table in ("presel_scores", "presel_tasks")]
    found = (ctx.store.pointer(table, partition(dataset, mode)) for table, mode in keys)
    return all(pointer is not None and pointer.input_fingerprint == wanted for pointer in found)


def modes(ctx: Context, dataset: str) -> list[Mode]:
    """Modes that the recipes of a dataset use; `default` if there is none."""
    used = {r.mode for r in ctx.project.recipes.values() if r.dataset == dataset and r.method == "presel"}
    return sorted(used) or ["default"]


def partition(dataset: str, mode: Mode = "default") -> dict[str, str]:
    """Partition of a dataset's scores."""
    return {"dataset": dataset, "mode": mode}


@dataclass(frozen=True)
class _Signals:
    """Signals of a dataset's distinct rows, by id."""

    contents: list[Content]
    image: dict[str, str]
    reference: set[str]
    relevance: dict[str, float | None]


def _signals(ctx: Context, dataset: str) -> _Signals:
    manifest, contents = distinct_contents(ctx, dataset)
    reference = ctx.store.read_partition("reference_subset", {"dataset": dataset}, ["sample_id"])["sample_id"]
    values: dict[str, dict[str, float | None]] = defaultdict(dict)
    for shard in dataset_shards(ctx, dataset):
        pointer = ctx.store.pointer("losses", losses.partition(ctx, dataset, shard))
        for row in ctx.store.read(pointer).to_pylist() if pointer is not None else []:
            values[row["sample_id"]][row["condition"]] = row["loss_mean"]
    ids = set(reference.to_pylist())
    relevance = {i: instruction_relevance(values[i].get("full"), values[i].get("no_question")) for i in ids}
    return _Signals(contents, first_images(ctx, manifest), ids, relevance)


def run(ctx: Context, dataset: str) -> StageResult:
    """Score a dataset: no model runs here."""
    start = time.perf_counter()
    wanted = inputs(ctx, dataset)
    options = dataset_options(ctx, dataset)
    signals = _signals(ctx, dataset)
    tasks = {row.sample_id: row.task for row in signals.contents}
    importance = task_importance({i: v for i, v in signals.relevance.items() if i in tasks}, tasks, options)
    lineage = {
        "input_fingerprint": wanted.fingerprint,
        "inputs": wanted.references,
        "code_version": SCORE_CODE,
        "run_id": ctx.run_id,
    }
    published: list[Pointer] = []
    for mode in modes(ctx, dataset):
        table = _score_table(ctx, signals, options, mode)
        key = partition(dataset, mode)
        # Scores last: whoever sees them finds the tasks that belong to them.
        task_pointer = ctx.store.publish("presel_tasks", key, _task_table(signals, importance), **lineage)
        published += [publish_checked(ctx, "presel_scores", key, table, **lineage), task_pointer]
        ctx.progress("modes scored", len(published) // 2, len(modes(ctx, dataset)))
    missing = table["cluster"].null_count - sum(1 for row in signals.contents if row.sample_id not in signals.image)
    finite = sum(value is not None for value in signals.relevance.values())
    record_rate(ctx, "presel_scores", "", len(signals.contents), time.perf_counter() - start)
    return StageResult(
        "presel_scores",
        {"dataset": dataset},
        "-".join(pointer.data_version for pointer in published),
        len(signals.contents),
        failed=missing,
        seconds=time.perf_counter() - start,
        references=[pointer.reference for pointer in published],
        metadata={
            "reference_rows": len(signals.reference),
            "finite_relevances": finite,
            "missing_relevances": len(signals.relevance) - finite,
            "rows_without_embedding": missing,
        },
    )


def _task_table(signals: _Signals, importance: dict[str, TaskScore]) -> pa.Table:
    rows: dict[str, int] = defaultdict(int)
    reference: dict[str, int] = defaultdict(int)
    for row in signals.contents:
        rows[row.task] += 1
        reference[row.task] += row.sample_id in signals.reference
    records = [
        {
            "task": task,
            "n_rows": rows[task],
            "n_reference": reference[task],
            "n_relevance": score.n_relevance,
            "difficulty": score.difficulty,
        }
        for task, score in sorted(importance.items())
    ]
    return pa.Table.from_pylist(records, schema=TABLES["presel_tasks"].arrow_schema())


def _score_table(ctx: Context, signals: _Signals, options: PreselOptions, mode: Mode) -> pa.Table:
    """Scores of all rows. In the default mode the images of a task are the points, in the released mode its rows."""
    by_task: dict[str, dict[str, str]] = defaultdict(dict)
    drawn: dict[str, set[str]] = defaultdict(set)
    for row in signals.contents:
        image = signals.image.get(row.sample_id)
        if image is None:
            continue
        point = image if mode == "default" else row.sample_id
        by_task[row.task][point] = image
        if row.sample_id in signals.reference:
            drawn[row.task].add(point)
    scores = {task: _task_scores(ctx, points, drawn[task], options, mode) for task, points in sorted(by_task.items())}
    records = []
    for row in sorted(signals.contents, key=lambda c: c.sample_id):
        shown = signals.image.get(row.sample_id)
        place = shown if mode == "default" else row.sample_id
        found = scores.get(row.task, ImageScores())
        typical = found.typicality.get(place) if place else None
        records.append(
            {
                "sample_id": row.sample_id,
                "task": row.task,
                "image_id": shown,
                "is_reference": row.sample_id in signals.reference,
                "relevance": signals.relevance.get(row.sample_id),
                "cluster": found.clusters.get(place) if place else None,
                "typicality": typical if typical is not None and math.isfinite(typical) else None,
            }
        )
    return pa.Table.from_pylist(records, schema=TABLES["presel_scores"].arrow_schema())


def _task_scores(
    ctx: Context, points: dict[str, str], drawn: set[str], options: PreselOptions, mode: Mode
) -> ImageScores:
    """Scores of the points (id -> image) of one task; points without an embedding have none."""
    name = embedding_fingerprint(ctx.project.image_encoder)
    ids, matrix = ctx.vectors.read(embeddings.SIGNAL, name, sorted(set(points.values())))
    row_of = {image: index for index, image in enumerate(ids)}
    known = [point for point, image in sorted(points.items()) if image in row_of]
    if not known:
        raise NotMaterializedError("a task has no image with an embedding; see the table signal_failures")
    vectors = matrix[[row_of[points[point]] for point in known]]
    return score_images(known, vectors, drawn, options, seed=SEED, mode=mode)
