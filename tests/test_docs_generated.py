import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

import pytest
import yaml
from pydantic import BaseModel, Field

from vsel_platform.config import Project, parse_project
from vsel_platform.storage.catalog_schema import catalog_tables
from vsel_platform.tables import TABLES

DOCS = Path(__file__).resolve().parents[1] / "docs"


def load_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generate = load_generator()


@pytest.mark.parametrize("name", generate.PAGES)
def test_the_committed_page_is_what_the_code_gives(name: str) -> None:
    committed = (DOCS / name).read_text("utf-8")
    assert committed == generate.PAGES[name](), f"docs/{name} is out of date; type: {generate.COMMAND}"


def leaves(value: Any, path: str = "") -> list[str]:
    """Key paths of a nested mapping of plain values."""
    if not isinstance(value, dict) or not value:
        return [path]
    return [leaf for key, item in value.items() for leaf in leaves(item, f"{path}.{key}".lstrip("."))]


def test_every_key_of_a_project_file_is_documented_in_its_section() -> None:
    page = generate.project_file_page()
    everything = {
        "name": "x",
        "datasets": {"<name>": {"source": "a.json"}},
        "second_vlm": {"model": "m"},
        "benchmarks": {"<name>": {"format": "rows", "questions": "q.json"}},
        "recipes": {"<name>": {"dataset": "<name>", "budget": {"rows": 1}}},
    }
    dumped = Project.model_construct(**parse_with_any_name(everything)).model_dump(mode="json", exclude={"base_dir"})
    for path in leaves(dumped):
        section, _, key = path.rpartition(".")
        heading = f"`{section}`" if section else "Top level"
        body = re.search(rf"^## .*{re.escape(heading)}.*?(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
        assert body is not None, path
        assert f"| `{key}` |" in body[0], path


def parse_with_any_name(data: dict[str, Any]) -> dict[str, Any]:
    """Field values of a project whose one dataset, benchmark and recipe are called `<name>`, as in the headings."""
    text = yaml.safe_dump(data).replace("<name>", "placeholder")
    champion = {"recipe": "other", "benchmark": "placeholder"}
    named = yaml.safe_load(text)
    first = named["recipes"]["placeholder"]
    named["recipes"] = {"placeholder": first | {"training": {"champion": champion}}, "other": first}
    project = parse_project(yaml.safe_dump(named), base_dir=".")
    values = dict(project)
    return values | {key: {"<name>": next(iter(values[key].values()))} for key in ("datasets", "benchmarks", "recipes")}


def test_every_key_and_every_section_has_a_meaning() -> None:
    empty = [line for line in generate.project_file_page().splitlines() if line.endswith("|  |")]
    assert not empty, "give these settings a description in vsel_platform/config.py"


def test_the_example_on_the_page_is_a_valid_project_file() -> None:
    block = re.search(r"```yaml\n(.*?)```", (DOCS / "project_file.md").read_text("utf-8"), re.DOTALL)
    assert block is not None
    project = parse_project(block[1], base_dir="/project")
    assert project.recipe("small").budget.percent == 10


@pytest.mark.parametrize("table", TABLES)
def test_every_column_of_a_table_is_on_the_page(table: str) -> None:
    section = generate.table_section(TABLES[table])
    assert section.startswith(f"\n## {table}\n")
    for column in TABLES[table].columns:
        (line,) = [line for line in section.splitlines() if line.startswith(f"| `{column.name}` |")]
        assert column.description.replace("|", "\\|") in line
        assert ("NULL allowed" in line) == column.nullable
    assert section in generate.tables_page()


def test_everything_that_can_be_queried_has_a_section() -> None:
    headings = re.findall(r"^##+ (\w+)$", generate.tables_page(), re.MULTILINE)
    assert headings == catalog_tables()


class Part(BaseModel):
    """How much of it.

    Not on the page.
    """

    share: float = Field(0.5, gt=0, le=1, description="Share of a | b.")


Short = Annotated[str, Field(pattern="^[a-z]+$")]


class Whole(BaseModel):
    """Everything."""

    kind: Literal["a", "b"] = Field("a", description="Which.")
    limit: int | None = Field(None, ge=3, description="At most.")
    parts: dict[Short, Part] = Field(default_factory=dict)
    last: Short | None = Field(None, description="Its name.")
    spare: Part | None = Field(None, description="Another.")
    first: Part = Part(share=0.25)
    second: Part = Part()
    names: tuple[str, ...] = Field(("x", "true"), description="Names.")
    needed: bool = Field(description="Yes?")


def test_types_bounds_defaults_and_meanings_are_spelled_out() -> None:
    assert generate.keys_table(Whole).splitlines()[2:] == [
        "| `kind` | `a` or `b` | `a` | Which. |",
        "| `limit` | integer or null, >= 3 | `null` | At most. |",
        "| `parts` | mapping (name: section) | `{}` | How much of it. |",
        "| `last` | text or null | `null` | Its name. |",
        "| `spare` | section or null | `null` | Another. |",
        "| `first` | section | `{share: 0.25}` | How much of it. |",
        "| `second` | section | its defaults | How much of it. |",
        "| `names` | list of text | `[x, 'true']` | Names. |",
        "| `needed` | true or false | **required** | Yes? |",
    ]
    assert generate.keys_table(Part).splitlines()[2] == "| `share` | number, > 0, <= 1 | `0.5` | Share of a \\| b. |"


def test_a_model_that_is_used_twice_has_one_section() -> None:
    assert list(generate.sections(Whole)) == ["Top level", "`parts.<name>`, `spare`, `first`, `second`"]


def test_a_type_without_words_is_an_error_and_not_a_blank() -> None:
    with pytest.raises(TypeError, match="no words for the type"):
        generate.annotation_text(bytes)
