"""Metadata that every materialization carries: counts, schema, where the data lies, plots."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from vsel_platform.pipeline.context import Context, StageResult
from vsel_platform.tables import TABLES

MAX_PLOT_BYTES = 100_000


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
