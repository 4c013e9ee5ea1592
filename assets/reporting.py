"""Metadata that every materialization carries: counts, schema, where the data lies, plots."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import dagster as dg

from vsel_platform.pipeline.context import Context, StageResult
from vsel_platform.tables import TABLES

MAX_PLOT_BYTES = 100_000
# Artifacts that hold a page and a Markdown file for each of several things, and what those are about.
FILES_OF = {"leakage_page": "leaked questions", "leaderboard_page": "leaderboard"}


def table_schema(table: str) -> dg.TableSchema:
    """Dagster's schema of one of our tables, descriptions and units included."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name=column.name,
                type=column.type,
                description=f"{column.description} [{column.unit}]" if column.unit else column.description,
                constraints=dg.TableColumnConstraints(nullable=column.nullable),
            )
            for column in TABLES[table].columns
        ]
    )


def spec_metadata(table: str) -> dict[str, Any]:
    """Metadata of an asset's definition: its schema, so that the catalog shows it before the first run."""
    return {"dagster/column_schema": table_schema(table)}


def plot(png: bytes, title: str) -> dg.MarkdownMetadataValue:
    """A PNG as Markdown metadata. Raises ValueError if it is too large for the event log."""
    if len(png) > MAX_PLOT_BYTES:
        raise ValueError(f"plot {title!r} has {len(png)} bytes; the event log takes {MAX_PLOT_BYTES}")
    return dg.MetadataValue.md(f"![{title}](data:image/png;base64,{base64.b64encode(png).decode()})")


def plots(pngs: Mapping[str, bytes | None]) -> dict[str, Any]:
    """Those of some PNGs that there are, by title."""
    return {name: plot(png, name) for name, png in pngs.items() if png is not None}


def files(ctx: Context, artifact: str, partition: dict[str, str]) -> dict[str, dg.MetadataValue]:
    """Where the files of an artifact lie; a label is a key, so of several of a kind each has its name in it."""
    found = [PurePosixPath(path) for path in paths(ctx, artifact, partition)]
    kinds = [FILES_OF.get(artifact) or _kind(path) for path in found]
    metadata: dict[str, dg.MetadataValue] = {}
    for path, kind in zip(found, kinds, strict=True):
        which = f": {path.name}" if kinds.count(kind) > 1 else ""
        if artifact in FILES_OF:
            which = f": {path.stem} ({'page' if path.suffix == '.html' else 'Markdown'})"
        metadata[kind + which] = dg.MetadataValue.path(ctx.store.files.url(str(path)))
    return metadata


def _kind(path: PurePosixPath) -> str:
    if path.name.startswith("manifest"):
        return "manifest"
    return "plot page" if path.suffix == ".html" else "training file"


def tables(ctx: Context, artifact: str, partition: dict[str, str]) -> dict[str, dg.MetadataValue]:
    """The Markdown files of an artifact."""
    found = [PurePosixPath(path) for path in paths(ctx, artifact, partition) if path.endswith(".md")]
    return {
        f"{FILES_OF.get(artifact, 'table')}: {path.stem}": dg.MetadataValue.md(ctx.store.files.read(str(path)).decode())
        for path in found
    }


def paths(ctx: Context, artifact: str, partition: dict[str, str]) -> list[str]:
    """Paths of the files of an artifact in the store; none if there is no such artifact."""
    pointer = ctx.store.pointer(artifact, partition)
    return [file.path for file in pointer.files] if pointer is not None else []


def stage_metadata(ctx: Context, result: StageResult) -> dict[str, Any]:
    """Counts, time, location and lineage of what a stage published."""
    metadata: dict[str, Any] = {
        "dagster/row_count": result.rows,
        "computed": result.computed,
        "reused": result.reused,
        "failed": result.failed,
        "seconds": round(result.seconds, 3),
        "published": dg.MetadataValue.md("\n".join(f"* `{name}`" for name in result.references) or "nothing"),
    }
    if result.references:
        key = result.references[0].partition("@")[0]
        metadata["dagster/uri"] = ctx.store.files.url(f"tables/{key}")
    for name, value in result.metadata.items():
        if isinstance(value, bool | int | float | str):
            metadata[name] = value
    return metadata


def materialized(
    ctx: Context,
    result: StageResult,
    extra: Mapping[str, Any] | None = None,
    *,
    asset: str | None = None,
    check_results: Sequence[dg.AssetCheckResult] = (),
) -> dg.MaterializeResult:
    """What an asset returns: data version, metadata and checks of a stage's result.

    The UI shows metadata in this order: plots and tables (`extra`) come before counts, and replace one of
    the same name.
    """
    shown = dict(extra or {})
    return dg.MaterializeResult(
        asset_key=asset,
        data_version=dg.DataVersion(result.data_version or "empty"),
        metadata={**shown, **stage_metadata(ctx, result), **shown},
        check_results=list(check_results),
    )
