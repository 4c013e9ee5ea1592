"""Asset checks: of tables, made from their schemas, and of what is no table. All but `loss_fell` block."""

from collections.abc import Callable, Sequence

import dagster as dg

from vsel_platform.pipeline import product_checks, quality
from vsel_platform.pipeline.context import Context
from vsel_platform.pipeline.vector_stage import VectorStage
from vsel_platform.storage.pointers import Pointer, parse_reference, read_version


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
    outcomes: dict[str, list[tuple[str, quality.Outcome]]] = {name: [] for name in quality.check_names(table)}
    for reference in references:
        key, version = parse_reference(reference)
        pointer = read_version(ctx.store.files, key, version) if key.startswith(f"{table}/") else None
        for outcome in quality.check_published(ctx, pointer) if pointer is not None else []:
            outcomes[outcome.name].append((key, outcome))
    return [
        dg.AssetCheckResult(
            asset_key=asset,
            check_name=name,
            passed=all(outcome.passed for _, outcome in found),
            metadata={"detail": "; ".join(f"{key}: {o.detail}" for key, o in found) or "nothing was published"},
        )
        for name, found in outcomes.items()
    ]


def vector_specs(asset: str) -> list[dg.AssetCheckSpec]:
    """Check specs of an asset that gives contents vectors."""
    return [_spec(asset, product_checks.every_content_has_a_vector)]


def vector_results(ctx: Context, asset: str, stage: VectorStage, shard: str) -> list[dg.AssetCheckResult]:
    """Check the stored vectors of a shard."""
    return [_result(asset, product_checks.every_content_has_a_vector(ctx, stage, shard))]


_OF_ADAPTERS: tuple[Callable[[Context, Pointer], quality.Outcome], ...] = (
    product_checks.adapter_is_complete,
    product_checks.losses_are_finite,
)


def adapter_specs(asset: str) -> list[dg.AssetCheckSpec]:
    """Check specs of an asset that trains an adapter. A loss that did not fall is a warning: the adapter is usable."""
    return [*(_spec(asset, check) for check in _OF_ADAPTERS), _spec(asset, product_checks.loss_fell, blocking=False)]


def adapter_results(ctx: Context, asset: str, partition: dict[str, str]) -> list[dg.AssetCheckResult]:
    """Check the stored adapter."""
    pointer = ctx.store.require(asset, partition)
    fell = product_checks.loss_fell(ctx, pointer)
    return [
        *(_result(asset, check(ctx, pointer)) for check in _OF_ADAPTERS),
        _result(asset, fell, dg.AssetCheckSeverity.WARN),
    ]


def _spec(asset: str, check: Callable[..., quality.Outcome], *, blocking: bool = True) -> dg.AssetCheckSpec:
    text = (check.__doc__ or "").strip()
    return dg.AssetCheckSpec(check.__name__, asset=asset, blocking=blocking, description=text)


def _result(
    asset: str, outcome: quality.Outcome, severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR
) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=asset,
        check_name=outcome.name,
        passed=outcome.passed,
        severity=severity,
        metadata={"detail": outcome.detail},
    )
