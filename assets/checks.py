"""Asset checks made from the tables' schemas; all of them block."""

from collections.abc import Sequence

import dagster as dg

from vsel_platform.pipeline import quality
from vsel_platform.pipeline.context import Context
from vsel_platform.storage.pointers import parse_reference, read_version


def specs(asset: str, table: str) -> Sequence[dg.AssetCheckSpec]:
    """Check specs of the asset that publishes `table`."""
    functions = {
        "no_missing_values": quality.no_missing_values,
        "key_is_unique": quality.key_is_unique,
        **quality.SPECIAL_CHECKS.get(table, {}),
    }
    return [
        dg.AssetCheckSpec(name, asset=asset, blocking=True, description=(functions[name].__doc__ or "").strip())
        for name in quality.check_names(table)
    ]


def results(ctx: Context, asset: str, table: str, references: Sequence[str]) -> list[dg.AssetCheckResult]:
    """Check the published partitions of `table` among `references`; one result per check, worst over partitions."""
    outcomes: dict[str, list[quality.Outcome]] = {name: [] for name in quality.check_names(table)}
    for reference in references:
        key, version = parse_reference(reference)
        pointer = read_version(ctx.store.files, key, version) if key.startswith(f"{table}/") else None
        for outcome in quality.check_published(ctx, pointer) if pointer is not None else []:
            outcomes[outcome.name].append(outcome)
    return [
        dg.AssetCheckResult(
            asset_key=asset,
            check_name=name,
            passed=all(outcome.passed for outcome in found_outcomes),
            metadata={"detail": "; ".join(outcome.detail for outcome in found_outcomes) or "nothing was published"},
        )
        for name, found_outcomes in outcomes.items()
    ]
