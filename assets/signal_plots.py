"""Plots of signals: each reads what was published and returns metadata; {} if there is nothing."""

from typing import TYPE_CHECKING

import dagster as dg
import numpy as np
import pyarrow.compute as pc

from assets import reporting
from vsel_platform.pipeline.context import Context
from vsel_platform.pipeline.vector_stage import VectorStage
from vsel_platform.storage.pointers import parse_reference, read_version

if TYPE_CHECKING:
    from vsel_platform.reports.map_data import MapData

Metadata = dict[str, dg.MetadataValue]

SPECTRUM_DIMENSIONS = 1024
"""Widest vectors whose spectrum is drawn: an eigenvalue decomposition grows with the cube."""


def embeddings(ctx: Context, shard: str) -> Metadata:
    """Map of a shard's images."""
    from vsel_platform.reports import map_data

    return _map(map_data.shard_map(ctx, shard), f"Images of shard {shard}", "image")


def row_vectors(ctx: Context, stage: VectorStage, shard: str) -> Metadata:
    """Map of a shard's rows by a signal."""
    from vsel_platform.reports import map_data

    title = f"Rows of shard {shard} by {stage.signal.replace('_', ' ')}"
    return _map(map_data.row_map(ctx, stage, shard), title, "row")


def questions(ctx: Context, shard: str) -> Metadata:
    """Map of a shard's questions."""
    from vsel_platform.reports import map_data

    return _map(map_data.question_map(ctx, shard), f"Questions of shard {shard}", "question")


def _map(found: "MapData | None", title: str, unit: str) -> Metadata:
    from vsel_platform.reports import maps

    if found is None:
        return {}
    png = maps.embedding_map(found.vectors, found.tasks, title=title, sampled=found.sampled, unit=unit)
    return reporting.plots({"embedding map": png})


def clusters(ctx: Context, references: list[str]) -> Metadata:
    """Sizes of the clusters of every clustering that was published."""
    from vsel_platform.reports import plots

    made: dict[str, bytes | None] = {}
    for reference in references:
        pointer = read_version(ctx.store.files, *parse_reference(reference))
        dataset, name = pointer.partition["dataset"], pointer.partition["clustering"]
        labels = ctx.store.read(pointer, ["cluster"])["cluster"].drop_null()
        sizes = pc.value_counts(labels.combine_chunks()).field("counts").to_pylist() if len(labels) else []
        title = f"Sizes of the clusters of {dataset}: {name}"
        made[f"cluster sizes, {name}"] = plots.histogram(sizes, title=title, xlabel="rows in a cluster", unit="cluster")
    return reporting.plots(made)


def moments(ctx: Context, dataset: str) -> Metadata:
    """How much of the variance the leading directions hold, where finding that takes seconds."""
    from vsel_platform.pipeline import moments as stage
    from vsel_platform.reports import plots

    pointer = ctx.store.pointer(stage.SIGNAL, stage.partition(ctx, dataset))
    if pointer is None:
        return {}
    found = stage.read_moments(ctx, pointer)
    if len(found.mean) > SPECTRUM_DIMENSIONS:
        return {}
    title = f"Variance of the attended vision of {dataset}"
    return reporting.plots(
        {"variance by direction": plots.energy_curve(np.linalg.eigvalsh(found.scatter), title=title)}
    )


def losses(ctx: Context, shard: str) -> Metadata:
    """Instruction relevance of the reference rows of a shard."""
    from vsel_platform.reports import data, plots

    return reporting.plots(
        {
            f"instruction relevance, {name}": plots.histogram(
                values,
                title=f"Instruction relevance of reference rows of {name}, shard {shard}",
                xlabel="relevance [loss with the question / loss without it]",
                line=(1.0, "1: the question does not help"),
            )
            for name, values in data.relevance_of_shard(ctx, shard).items()
        }
    )


def attention(ctx: Context, shard: str) -> Metadata:
    """Pictures on which the two models look at different and at the same places."""
    from vsel_platform.reports.attention import attention_sheet

    return reporting.plots({"where two models look": attention_sheet(ctx, shard)})


def base_losses(ctx: Context, shard: str) -> Metadata:
    """What the image adds to the answers of a shard's rows."""
    from vsel_platform.reports import data, plots

    histogram = plots.histogram(
        data.visual_gain_of_shard(ctx, shard),
        title=f"What the image adds to the answers of shard {shard}",
        xlabel="answer loss without the image, minus with it [nat/token]",
        line=(0.0, "0: the image does not help"),
    )
    return reporting.plots({"visual gain": histogram})
