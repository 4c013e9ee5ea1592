"""What the UI shows of a real training, with everything that one can measure."""

import pytest
from small_project import project_values, small_project

from assets import checks, plots
from vsel_platform.pipeline.context import Context
from vsel_platform.pipeline.drive import drive

RECIPES = {"random": {"dataset": "shapes", "method": "random", "budget": {"rows": 8}}}
SQ_LLAVA = {
    "rank": 4,
    "alpha": 8,
    "batch_rows": 4,
    "projector_learning_rate": 1e-4,
    "self_questioning": {"ratio": 1.0, "dedicated_token": True},
    "prototypes": {"prototypes": 4},
    "vision": {"rank": 2, "alpha": 2},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    directory, models = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("models")
    training = project_values(directory, models)["training"] | {"lora": SQ_LLAVA}
    project = small_project(directory, models, recipes=RECIPES, benchmarks={}, training=training)
    ctx = Context(project, run_id="test")
    drive(ctx, ["random"], train=True, log=lambda _: None)
    return ctx


def test_a_training_of_sq_llava_has_its_curves(trained):
    shown = plots.training_curve(trained, "finetuned_checkpoint", "recipe", "random")
    assert {"training loss", "throughput"} <= set(shown)


def test_a_training_of_sq_llava_passes_its_checks(trained):
    found = checks.adapter_results(trained, "finetuned_checkpoint", {"recipe": "random"})
    assert found
    assert all(one.passed for one in found if one.check_name != "loss_fell")
