"""The project files in `examples/` are right: every key is known, every value allowed."""

import json
from pathlib import Path

import pytest

from vsel_platform.config import load_project
from vsel_platform.config_training import VisionLoraSettings
from vsel_platform.models.templates import load_template
from vsel_platform.training.sharding import require_possible

EXAMPLES = Path(__file__).parents[1] / "examples"
TRAININGS = {
    # batch rows, learning rate, rank, rows per mean (specification 1.11)
    "llava_lora": (128, 2e-4, 128, 16),
    "dataengine_lora": (128, 1e-4, 128, 16),
    "sq_llava_lora": (128, 2e-4, 128, 8),
}


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.yaml")), ids=lambda file: file.stem)
def test_a_project_file_of_the_examples_loads(file):
    project = load_project(file)
    assert project.recipes
    load_template(project.vlm.template or "vicuna_v1")
    runtime = project.training.runtime
    files = {name: project.resolve(path) for name in ("deepspeed", "fsdp") if (path := getattr(runtime, name))}
    require_possible(project.training.lora, runtime.model_copy(update=files))


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.json")), ids=lambda file: file.stem)
def test_a_configuration_of_the_examples_is_json(file):
    assert json.loads(file.read_text("utf-8"))


@pytest.mark.parametrize(("name", "wanted"), TRAININGS.items(), ids=TRAININGS)
def test_fine_tunings_have_the_published_settings(name, wanted):
    lora = load_project(EXAMPLES / f"{name}.yaml").training.lora
    assert (lora.batch_rows, lora.learning_rate, lora.rank, lora.mean_rows) == wanted
    assert (lora.alpha, lora.projector_learning_rate, lora.epochs, lora.weight_decay) == (256, 2e-5, 1, 0)
    assert (lora.schedule, lora.warmup_fraction, lora.order) == ("cosine", 0.03, "modality")


@pytest.mark.parametrize("name", ["llava_pretrain", "sq_llava_pretrain"])
def test_pre_trainings_train_the_projector_alone(name):
    project = load_project(EXAMPLES / f"{name}.yaml")
    lora = project.training.lora
    assert lora.projector_only
    assert (lora.projector_learning_rate, lora.batch_rows, project.vlm.template) == (1e-3, 256, "llava_plain")


@pytest.mark.parametrize(
    ("first", "second"), [("llava_pretrain", "llava_lora"), ("sq_llava_pretrain", "sq_llava_lora")]
)
def test_fine_tunings_go_on_from_their_pre_training(first, second):
    before, after = (load_project(EXAMPLES / f"{name}.yaml").vlm for name in (first, second))
    assert (before.model, before.adapter) == (after.model, None)
    text = (EXAMPLES / f"{second}.yaml").read_text("utf-8")
    assert f"vsel checkpoint all_rows --project {first}.yaml --to {after.adapter}" in text


def test_sq_llava_learns_questions_with_prototypes_and_a_trained_tower():
    lora = load_project(EXAMPLES / "sq_llava_lora.yaml").training.lora
    assert (lora.self_questioning.ratio, lora.prototypes.prototypes, lora.prototypes.iterations) == (0.5, 256, 2)
    assert lora.vision == VisionLoraSettings(rank=64, alpha=128, dropout=0.2, learning_rate=2e-5)
