"""The project file: what is accepted, what is refused, and how clearly."""

from pathlib import Path

import pytest

from vsel_platform.config import Budget, load_project, parse_project
from vsel_platform.errors import ConfigError

MINIMAL = """
name: p
datasets:
  a: {source: a.json, image_root: images}
"""


def parse(text: str):
    return parse_project(text, base_dir="/project")


def test_minimal_file_gets_safe_defaults():
    project = parse(MINIMAL)
    assert project.datasets["a"].format == "llava"
    assert project.compute.backend == "subprocess"
    assert project.reference.fraction == 0.05
    assert project.reference.lora.rank == 128


def test_relative_paths_start_at_the_project_file_and_urls_stay():
    project = parse(MINIMAL)
    assert project.store_root == "/project/.vsel/store"
    assert project.resolve("s3://bucket/x") == "s3://bucket/x"
    assert project.resolve("/abs") == "/abs"
    assert project.resolve("") == ""


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("name: p\ndatasets: {}\n", "at least one dataset"),
        (MINIMAL + "colour: red\n", "colour"),
        (MINIMAL + "recipes: {r: {dataset: b}}\n", "unknown dataset 'b'"),
        (MINIMAL + "recipes: {r: {dataset: a, budget: {rows: 3, percent: 5}}}\n", "exactly one"),
        (MINIMAL + "recipes: {r: {dataset: a, budget: {percent: 101}}}\n", "recipes.r.budget.percent"),
        (MINIMAL + "recipes: {'../x': {dataset: a}}\n", "recipes"),
        (MINIMAL + "base_dir: /\n", "base_dir"),
        (MINIMAL + "image_encoder: {name: efficientnet_lite0, feature: joint}\n", "efficientnet_lite0 has none"),
        (MINIMAL + "text_encoder: {name: minilm, feature: joint}\n", "minilm has none"),
        (MINIMAL + "reference: {fraction: .nan}\n", "reference.fraction"),
        ("name: p\ndatasets: {a: {source: x, task: {column: t, rule: r}}}\n", "one of column"),
        ("- a list\n", "expected a mapping"),
        ("name: [unclosed\n", "not valid YAML"),
        ("name: a\ndatasets: {d: {source: x}, d: {source: y}}\n", "'d' stands in it twice"),
        ("name: a\nname: b\n", "'name' stands in it twice"),
        ("name: !!python/object/apply:os.system ['true']\n", "not valid YAML"),
    ],
)
def test_wrong_files_are_refused_with_the_key_that_is_wrong(text, named):
    with pytest.raises(ConfigError, match=r".+") as error:
        parse(text)
    assert named in str(error.value)


def test_missing_file_says_what_to_do(tmp_path: Path):
    with pytest.raises(ConfigError, match="vsel init"):
        load_project(tmp_path / "vsel.yaml")


def test_loaded_file_knows_its_directory(tmp_path: Path):
    file = tmp_path / "vsel.yaml"
    file.write_text(MINIMAL)
    assert load_project(file).base_dir == str(tmp_path.resolve())


def test_unknown_names_list_the_known_ones():
    project = parse(MINIMAL + "recipes: {r15: {dataset: a}}\n")
    with pytest.raises(ConfigError, match="r15"):
        project.recipe("r16")
    with pytest.raises(ConfigError, match="has: a"):
        project.dataset("b")


def test_budget_needs_one_measure():
    assert Budget(rows=5).rows == 5
    with pytest.raises(ValueError, match="exactly one"):
        Budget()
