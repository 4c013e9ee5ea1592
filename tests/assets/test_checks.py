import dagster as dg
import pytest
from report_store import full_context, publish

from assets import checks
from vsel_platform.pipeline.context import Context


@pytest.fixture(scope="module")
def ctx(tmp_path_factory) -> Context:
    return full_context(tmp_path_factory.mktemp("store"))


def detail(result: dg.AssetCheckResult) -> str:
    return str(result.metadata["detail"].value)


def test_a_detail_names_the_partition_that_it_is_about(ctx):
    rows = ctx.store.read_partition("presel_scores", {"dataset": "shapes", "mode": "default"}).to_pylist()
    publish(ctx, "presel_scores", {"dataset": "shapes", "mode": "released"}, rows)
    references = [
        ctx.store.require("presel_scores", {"dataset": "shapes", "mode": mode}).reference
        for mode in ("default", "released")
    ]
    found = {r.check_name: r for r in checks.results(ctx, "presel_scores", "presel_scores", references)}
    assert detail(found["finite_numbers"]) == (
        "presel_scores/dataset=shapes/mode=default: 0 non-finite numbers; "
        "presel_scores/dataset=shapes/mode=released: 0 non-finite numbers"
    )


def test_results_fit_the_specs(ctx):
    specs = {spec.name: spec for spec in checks.adapter_specs("reference_model")}
    found = {r.check_name: r for r in checks.adapter_results(ctx, "reference_model", {"dataset": "shapes"})}
    assert specs.keys() == found.keys()
    assert {name for name, spec in specs.items() if not spec.blocking} == {"loss_fell"}
    # The published directory holds the losses alone.
    assert {name for name, result in found.items() if not result.passed} == {"adapter_is_complete"}
    assert found["loss_fell"].severity == dg.AssetCheckSeverity.WARN
