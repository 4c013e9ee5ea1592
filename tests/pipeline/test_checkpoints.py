"""A recipe's checkpoint as files, and a project that goes on from them."""

import pytest
import yaml
from small_project import project_values, write_small_project

from vsel_platform.config import load_project
from vsel_platform.errors import ConfigError, NotMaterializedError
from vsel_platform.models.availability import availability
from vsel_platform.models.load import load_vlm
from vsel_platform.models.lora_adapter import ADAPTER_WEIGHTS, BASE_ADAPTER
from vsel_platform.pipeline.checkpoints import write_checkpoint
from vsel_platform.pipeline.context import Context
from vsel_platform.pipeline.drive import drive

RECIPES = {
    "random": {"dataset": "shapes", "method": "random", "budget": {"rows": 8}},
    "other": {"dataset": "shapes", "method": "random", "budget": {"rows": 8}, "seed": 1},
    "never": {"dataset": "shapes", "method": "random", "budget": {"rows": 8}, "train": False},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Context of a project with a trained recipe, and the directory of its models."""
    models = tmp_path_factory.mktemp("models")
    directory = tmp_path_factory.mktemp("trained")
    project = load_project(write_small_project(directory, models, recipes=RECIPES, benchmarks={}))
    ctx = Context(project, run_id="test")
    drive(ctx, ["random"], train=True, log=lambda _: None)
    return ctx, directory, models


def test_the_adapter_is_written_whole_and_a_project_goes_on_from_it(trained):
    ctx, directory, models = trained
    assert write_checkpoint(ctx, "random", directory / "adapters" / "random") > 0
    vlm = {"model": str(models / "vlm"), "dtype": "float32", "max_tokens": 256, "adapter": "adapters/random"}
    file = directory / "next.yaml"
    file.write_text(yaml.safe_dump(project_values(directory, models, recipes=RECIPES, benchmarks={}, vlm=vlm)))
    following = load_project(file)
    same = load_vlm(ctx.project.vlm, "cpu", adapter_dir=str(directory / "adapters" / "random"))
    assert load_vlm(following.vlm, "cpu").fingerprint == same.fingerprint
    results = drive(Context(following, run_id="test"), ["random"], train=True, log=lambda _: None)
    assert "finetuned_checkpoint" in [result.stage for result in results]  # another model: trained anew
    write_checkpoint(Context(following), "random", directory / "next")
    assert (directory / "next" / BASE_ADAPTER / ADAPTER_WEIGHTS).is_file()
    assert "trained on top of" in (directory / "next" / "README.md").read_text()
    assert (directory / "next").stat().st_mode & 0o777 == (directory / "store").stat().st_mode & 0o777


def test_the_whole_model_is_written(trained):
    ctx, directory, _ = trained
    write_checkpoint(ctx, "random", directory / "whole", merged=True)
    settings = ctx.project.vlm.model_copy(update={"model": str(directory / "whole")})
    assert load_vlm(settings, "cpu").name == str(directory / "whole")
    assert (directory / "whole" / "README.md").read_text().count("merged into its weights") == 1


def test_nothing_is_written_over(trained):
    ctx, directory, _ = trained
    (directory / "full").mkdir()
    (directory / "full" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is there already"):
        write_checkpoint(ctx, "random", directory / "full")
    assert [file.name for file in (directory / "full").iterdir()] == ["notes.txt"]


def test_what_is_not_trained_is_said(trained):
    ctx, directory, _ = trained
    with pytest.raises(NotMaterializedError):
        write_checkpoint(ctx, "other", directory / "none")
    with pytest.raises(ConfigError, match="is not trained"):
        write_checkpoint(ctx, "never", directory / "none")
    assert not (directory / "none").exists()


def test_directories_of_models_are_relative_to_the_project_file(trained, monkeypatch, tmp_path):
    _, directory, models = trained
    values = project_values(directory, models)
    (models / "vsel.yaml").write_text(
        yaml.safe_dump(values | {"vlm": {"model": "vlm"}, "image_encoder": {"model": "encoder"}})
    )
    monkeypatch.chdir(tmp_path)
    project = load_project(models / "vsel.yaml")
    assert project.vlm.place == str(models / "vlm")
    assert project.image_encoder.place == str(models / "encoder")
    assert project.text_encoder.place == "bert-base-uncased"
    assert all(
        availability(key, found).available for key, found in (("vlm", project.vlm), ("e", project.image_encoder))
    )
    assert project.vlm.model == "vlm"  # the name, which does not change when the project is moved


def test_a_missing_adapter_is_told(trained):
    ctx, _, _ = trained
    found = availability("vlm", ctx.project.vlm.model_copy(update={"adapter": "gone"}))
    assert not found.available
    assert found.key == "vlm.adapter"
    assert "no such directory" in found.to_text()
