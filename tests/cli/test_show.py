"""`vsel config show`: a project file again, with the defaults of what differs from them."""

from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from vsel_platform.cli.show import project_yaml, yaml_text
from vsel_platform.config import load_project, parse_project

ROOT = Path(__file__).parents[2]
PROJECT = """
name: p
datasets:
  "no": {source: a.json, image_root: "C:# odd: 'root'", task: {files: {vqa: one.json}, default: "null"}}
  "17": {source: b.json, images: {formats: [PNG]}, max_quarantine_rate: 0.5}
vlm: {model: embedded:demo, dtype: float32}
recipes:
  r: {dataset: "no", method: random, budget: {tokens: 900}, options: {}}
  s: {dataset: "17"}
"""


def reloaded(project):
    return parse_project(project_yaml(project), base_dir=project.base_dir)


@pytest.mark.parametrize(
    "project", [parse_project(PROJECT, base_dir="/x"), load_project(ROOT / "examples" / "llava_665k.yaml")]
)
def test_what_is_shown_loads_as_the_same_project(project):
    assert reloaded(project) == project


def test_only_what_differs_has_its_default_beside_it():
    lines = {line.strip() for line in project_yaml(parse_project(PROJECT, base_dir="/x")).splitlines()}
    assert {"dtype: float32  # default: bfloat16", "max_quarantine_rate: 0.5  # default: 0.05"} <= lines
    assert {"max_quarantine_rate: 0.05", "method: presel", "source: a.json", "shard_rows: 10000"} <= lines
    assert {"tokens: 900  # default: null", "percent: null  # default: 15.0"} <= lines


def test_where_the_file_lies_is_not_part_of_it():
    assert "base_dir" not in project_yaml(parse_project(PROJECT, base_dir="/x"))


@example("\n")
@example(["a\nb", "\u2028", "plain"])
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda v: st.lists(v, max_size=4)))
def test_a_value_is_one_line_that_reads_back(value):
    text = yaml_text(value)
    assert "\n" not in text
    assert yaml.safe_load(f"key: {text}")["key"] == value
