"""Errors of the engine end a step in their own words, in every asset, and say whether another attempt may help."""

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from resources.failures import EXIT_CODE, RETRY_MAY_HELP, fails_in_words
from vsel_platform.errors import ConflictError, DataError

ROOT = Path(__file__).parents[2]
# Every asset and op of a project with every kind of asset is called with resources that raise.
PROBE = """
import dagster as dg
from definitions import defs
from vsel_platform.errors import DataError

class Raises:
    def __getattr__(self, name):
        raise DataError("no rows")

wrong, nodes = [], {}
for asset in defs.assets:
    if isinstance(asset, dg.AssetsDefinition) and asset.is_executable:
        nodes[asset.op.name] = asset.op
for job in ("maintenance", "reselect"):
    for node in defs.resolve_job_def(job).all_node_defs:
        nodes[node.name] = node
for name, node in nodes.items():
    function = node.compute_fn.decorated_fn
    arguments = {key: Raises() for key in function.__annotations__ if key != "return"}
    try:
        list(function(**arguments) or ())
    except dg.Failure as failure:
        assert failure.description == "no rows", failure
    except DataError:
        wrong.append(name)
print(len(nodes), wrong)
"""


@pytest.mark.parametrize("kind", ["function", "generator"])
@pytest.mark.parametrize(
    ("error", "retries", "code"),
    [
        (DataError("no rows"), 0, 3),
        (ConflictError("other writers came first"), 2, 4),
        (TypeError("no rows"), 0, 1),
    ],
)
def test_an_error_is_told_in_its_own_words_and_retried_if_that_may_help(kind, error, retries, code):
    def function(context: dg.AssetExecutionContext) -> None:
        raise error

    def generator(context: dg.AssetExecutionContext):
        yield dg.MaterializeResult(metadata={"n": 1})
        raise error

    chosen = {"function": function, "generator": generator}[kind]
    found = dg.asset(name="found", retry_policy=dg.RetryPolicy(max_retries=2))(fails_in_words(chosen))
    result = dg.materialize([found], raise_on_error=False)
    events = [event.event_type_value for event in result.all_events]
    assert events.count("STEP_UP_FOR_RETRY") == retries
    data = next(event for event in result.all_events if event.is_step_failure).step_failure_data
    assert data.user_failure_data.description.removeprefix("TypeError: ") == str(error)
    assert data.user_failure_data.metadata[EXIT_CODE].value == code
    assert data.user_failure_data.metadata[RETRY_MAY_HELP].value is bool(retries)


def test_what_is_no_error_passes():
    @dg.asset
    @fails_in_words
    def found(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        """What it is."""
        return dg.MaterializeResult(metadata={"n": 1})

    result = dg.materialize([found])
    assert result.asset_materializations_for_node("found")[0].metadata["n"].value == 1
    assert found.op.description == "What it is."


def test_what_is_unforeseen_stays_what_it_is():
    @fails_in_words
    def broken():
        raise RuntimeError

    with pytest.raises(RuntimeError):
        broken()


def test_every_asset_and_op_of_the_deployment_fails_in_words(tmp_path):
    methods = ("presel", "coincide", "scalselect", "free2ds", "perplexity", "visnec")
    recipes = ", ".join(f"{m}: {{dataset: a, method: {m}, budget: {{rows: 1}}}}" for m in methods)
    (tmp_path / "vsel.yaml").write_text(
        f"name: p\ndatasets: {{a: {{source: a.json}}}}\nsecond_vlm: {{model: b}}\nrecipes: {{{recipes}}}\n"
    )
    environment = os.environ | {"VSEL_PROJECT": str(tmp_path / "vsel.yaml"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "ignore", "-c", PROBE]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    count, wrong = done.stdout.split(maxsplit=1)
    assert int(count) > 20
    assert wrong.strip() == "[]"
