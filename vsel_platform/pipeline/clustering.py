"""Stage `clusters`: k-means of a dataset's rows, once for all methods that ask for the same."""

import math
import time
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from vsel_platform.errors import SelectionError
from vsel_platform.methods.api import Clustering, Clusters
from vsel_platform.methods.presets import OWN_PIPELINE
from vsel_platform.methods.registry import composition
from vsel_platform.pipeline import embeddings, hidden_states, representations
from vsel_platform.pipeline.context import Context, Inputs, StageResult, inputs_of
from vsel_platform.pipeline.lookup import dataset_shards
from vsel_platform.pipeline.method_signals import StoreSignals
from vsel_platform.pipeline.quality import publish_checked
from vsel_platform.pipeline.timing import record_rate
from vsel_platform.selection.diversity import normalise_rows
from vsel_platform.selection.kmeans import fit_kmeans
from vsel_platform.storage.pointers import Pointer
from vsel_platform.tables import TABLES

TABLE = "clusters"
CLUSTER_CODE = "clusters-1"
STAGES = {stage.signal: stage for stage in (embeddings.STAGE, representations.STAGE, hidden_states.STAGE)}
# The cosine is a float32 figure; what is behind these digits must not decide ranks.
DECIMALS = 6
ROWS_PER_BLOCK = 8192


def partition(dataset: str, clustering: Clustering) -> dict[str, str]:
    """Partition of a clustering of a dataset."""
    return {"dataset": dataset, "clustering": clustering.name}


def clusterings_of(ctx: Context, dataset: str) -> list[Clustering]:
    """Clusterings that the recipes of a dataset need, each once, sorted by name."""
    recipes = [r for r in ctx.project.recipes.values() if r.dataset == dataset and r.method not in OWN_PIPELINE]
    found = {c for recipe in recipes for c in composition(ctx.project, recipe).clusterings}
    return sorted(found, key=lambda clustering: clustering.name)


def source_pointers(ctx: Context, dataset: str, clustering: Clustering) -> list[Pointer]:
    """What a clustering is made from. Raises NotMaterializedError while a signal is missing."""
    shards = dataset_shards(ctx, dataset)
    stage = STAGES[clustering.space]
    return [
        ctx.store.require("manifest", {"dataset": dataset}),
        *(ctx.store.require("samples", {"shard": shard}) for shard in shards),
        *(ctx.store.require(clustering.space, stage.partition(ctx, shard)) for shard in shards),
    ]


def inputs(ctx: Context, dataset: str, clustering: Clustering) -> Inputs:
    """Inputs of one clustering."""
    return inputs_of(source_pointers(ctx, dataset, clustering), clustering=clustering.name, code=CLUSTER_CODE)


def is_current(ctx: Context, dataset: str) -> bool:
    """Whether every clustering that recipes need is of the present rows and vectors."""
    return all(_is_current(ctx, dataset, clustering) for clustering in clusterings_of(ctx, dataset))


def _is_current(ctx: Context, dataset: str, clustering: Clustering) -> bool:
    pointer = ctx.store.pointer(TABLE, partition(dataset, clustering))
    return pointer is not None and pointer.input_fingerprint == inputs(ctx, dataset, clustering).fingerprint


def want(ctx: Context, dataset: str) -> str:
    """The state that the clusterings should reach."""
    return "-".join(inputs(ctx, dataset, clustering).fingerprint for clustering in clusterings_of(ctx, dataset))


def run(ctx: Context, dataset: str) -> StageResult:
    """Make the clusterings that are missing or stale."""
    start = time.perf_counter()
    published: list[Pointer] = []
    computed = reused = 0
    for clustering in clusterings_of(ctx, dataset):
        if _is_current(ctx, dataset, clustering):
            published.append(ctx.store.require(TABLE, partition(dataset, clustering)))
            reused += published[-1].rows
            continue
        pointers = source_pointers(ctx, dataset, clustering)
        wanted = inputs(ctx, dataset, clustering)
        signals = StoreSignals(ctx, pointers)
        found = cluster_rows(*signals.vectors(clustering.space), clustering)
        published.append(
            publish_checked(
                ctx,
                TABLE,
                partition(dataset, clustering),
                cluster_table(signals.sample_ids, found),
                input_fingerprint=wanted.fingerprint,
                inputs=wanted.references,
                code_version=CLUSTER_CODE,
                run_id=ctx.run_id,
                metadata={"clusters": found.n_clusters},
            )
        )
        computed += published[-1].rows
        ctx.progress("clusterings made", len(published), len(clusterings_of(ctx, dataset)))
    seconds = time.perf_counter() - start
    record_rate(ctx, TABLE, "", computed, seconds)
    return StageResult(
        TABLE,
        {"dataset": dataset},
        "-".join(pointer.data_version for pointer in published) or "none",
        sum(pointer.rows for pointer in published),
        computed=computed,
        reused=reused,
        seconds=seconds,
        references=[pointer.reference for pointer in published],
        metadata={"clusterings": len(published)},
    )


def cluster_rows(index: np.ndarray, matrix: np.ndarray, clustering: Clustering) -> Clusters:
    """k-means of the distinct vectors [m, d], and the cluster of every row by its place in them, `index` [n].

    Raises SelectionError if no row has a vector.
    """
    if not len(matrix):
        raise SelectionError(f"clustering {clustering.name}: no row has a vector; see the table signal_failures")
    unit = normalise_rows(matrix)
    count = clustering.n_clusters or max(1, math.isqrt(int((index >= 0).sum())))
    fit = fit_kmeans(unit, min(count, len(unit)), seed=clustering.seed)
    centroids = normalise_rows(fit.centroids)
    cosine = np.empty(len(unit))
    for start in range(0, len(unit), ROWS_PER_BLOCK):
        block = slice(start, start + ROWS_PER_BLOCK)
        cosine[block] = np.einsum("ij,ij->i", unit[block], centroids[fit.labels[block]], dtype=np.float64)
    cosine = cosine.round(DECIMALS)
    has = index >= 0
    labels, values = np.full(len(index), -1, np.int64), np.full(len(index), np.nan)
    labels[has], values[has] = fit.labels[index[has]], cosine[index[has]]
    return Clusters(labels, values)


def cluster_table(sample_ids: Sequence[str], found: Clusters) -> pa.Table:
    """Rows of `clusters`."""
    missing = found.labels < 0
    columns = {
        "sample_id": pa.array(sample_ids, pa.string()),
        "cluster": pa.array(found.labels.astype(np.int32), mask=missing),
        "cosine": pa.array(found.cosine, mask=missing),
    }
    return pa.table(columns, schema=TABLES[TABLE].arrow_schema())
