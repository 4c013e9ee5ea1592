"""Writes docs/project_file.md and docs/tables.md from the code: `python docs/generate.py` (`make docs`)."""

import sys
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from vsel_platform.config import Project
from vsel_platform.methods.describe import describe
from vsel_platform.storage.catalog_schema import COLUMNS, LINEAGE, VECTOR_COLUMNS
from vsel_platform.storage.vectors import VECTOR_SIGNALS
from vsel_platform.tables import TABLES, Column, TableSpec

DOCS = Path(__file__).resolve().parent
COMMAND = "make docs"
SET_BY_THE_LOADER = {"base_dir"}
PLAIN_TYPES = {str: "text", int: "integer", float: "number", bool: "true or false", Any: "any", type(None): "null"}
BOUNDS = {Gt: (">", "gt"), Ge: (">=", "ge"), Lt: ("<", "lt"), Le: ("<=", "le")}

MINIMAL_PROJECT = """\
name: minimal
datasets:
  instructions:
    source: instructions.json
    image_root: images
recipes:
  small:
    dataset: instructions
    budget: {percent: 10}
"""

PROJECT_INTRODUCTION = """\
# The project file

One YAML file says everything about a project: where rows come from, which models compute signals, what is
selected, how it is trained and when things run. Unknown keys are errors. Paths are relative to the file.
Environment variables are not expanded; secrets (S3, hub) come from the environment and never stand here.

`vsel init` writes a project file, `vsel check` validates it, `vsel config show` prints every value.
A whole one:

```yaml
{example}```

Every key, with its type and default (**required** if there is none):
"""

TABLES_INTRODUCTION = """\
# Tables

Every table is declared once, in `vsel_platform/tables.py`; storage, checks, SQL comments and this page are made from
it. A partition is a set of immutable Parquet files behind one pointer. In SQL every table is one view over all its
partitions, and the partition columns stand before the table's own.
"""

SQL_ONLY = """
## Only in SQL

What `vsel sql` shows beside the tables: embeddings, which lie in LanceDB, and what is known about the store itself.
"""

METHODS_INTRODUCTION = """\
# Methods

A recipe names a `method`; `vsel methods` prints this page's content. A method is a score (how valuable is a row?), a
quota (in which groups do rows compete, and what share of the budget does each get?) and a diversity rule (which rows
of a group are taken?), under any budget. A recipe may exchange each part (`score`, `quota`, `diversity`), `compose`
takes parts without naming a method, and `options` go to the part that knows them. PreSel has a pipeline of its own.
Scores are tables, so all methods of a dataset share the signals behind them. How to add one: [extending](extending.md).

"""

GENERATED = "<!-- Written by `{command}`; edit the code, not this page. -->\n\n"


def project_file_page() -> str:
    """The whole page about the project file, as Markdown."""
    parts = [GENERATED.format(command=COMMAND), PROJECT_INTRODUCTION.format(example=MINIMAL_PROJECT)]
    for paths, model in sections(Project).items():
        parts.append(f"\n## {paths}\n\n{first_paragraph(model)}\n\n{keys_table(model)}")
    return "".join(parts)


def sections(root: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """Heading -> model, in the order in which the models are met; a model used twice has one section."""
    paths: dict[type[BaseModel], list[str]] = {}
    for path, model in walk(root, ""):
        paths.setdefault(model, []).append(f"`{path}`" if path else "Top level")
    return {", ".join(names): model for model, names in paths.items()}


def walk(model: type[BaseModel], path: str) -> Iterator[tuple[str, type[BaseModel]]]:
    """(key path, model) of a model and everything nested in it, depth first."""
    yield path, model
    for name, field in model.model_fields.items():
        nested, is_mapping = nested_model(field.annotation)
        if nested is not None:
            inner = f"{path}.{name}" if path else name
            yield from walk(nested, f"{inner}.<name>" if is_mapping else inner)


def nested_model(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """The model that an annotation holds (or null), and whether it holds it as the values of a mapping."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    if origin is dict:
        return nested_model(arguments[1])[0], True
    if origin in (Union, types.UnionType):
        return next((found for part in arguments if (found := nested_model(part))[0] is not None), (None, False))
    return None, False


def keys_table(model: type[BaseModel]) -> str:
    """Markdown table of a model's keys."""
    rows = [
        (f"`{name}`", type_text(field), default_text(field), meaning(field))
        for name, field in model.model_fields.items()
        if name not in SET_BY_THE_LOADER
    ]
    return markdown_table(("Key", "Type", "Default", "Meaning"), rows)


def meaning(field: FieldInfo) -> str:
    """Description of a field; a section without one is described by its model."""
    nested, _ = nested_model(field.annotation)
    return field.description or (first_paragraph(nested) if nested else "")


def type_text(field: FieldInfo) -> str:
    """Type of a field in words, with its bounds."""
    bounds = [
        f"{sign} {getattr(item, attribute):g}"
        for item in field.metadata
        for kind, (sign, attribute) in BOUNDS.items()
        if isinstance(item, kind)
    ]
    return ", ".join([annotation_text(field.annotation), *bounds])


def annotation_text(annotation: Any) -> str:
    """An annotation in words."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation in PLAIN_TYPES:
        return PLAIN_TYPES[annotation]
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (Annotated, Union, types.UnionType):
        parts = arguments[:1] if origin is Annotated else arguments
        return " or ".join(annotation_text(part) for part in parts)
    if origin is tuple:
        return f"list of {annotation_text(arguments[0])}"
    if origin is dict:
        return f"mapping (name: {annotation_text(arguments[1])})"
    if nested_model(annotation)[0] is not None:
        return "section"
    raise TypeError(f"no words for the type {annotation!r}; add them to docs/generate.py")


def default_text(field: FieldInfo) -> str:
    """Default of a field as YAML, or **required**."""
    if field.is_required():
        return "**required**"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        given = value.model_dump(exclude_unset=True)
        return f"`{yaml_text(given)}`" if given else "its defaults"
    return f"`{yaml_text(value)}`"


def yaml_text(value: Any) -> str:
    """A value as it would be written in the project file, on one line."""
    plain = list(value) if isinstance(value, tuple) else value
    return yaml.safe_dump(plain, default_flow_style=True, width=float("inf")).removesuffix("...\n").strip()


def tables_page() -> str:
    """The whole page about the tables, as Markdown."""
    parts = [GENERATED.format(command=COMMAND), TABLES_INTRODUCTION, "\n"]
    listing = [(f"[`{spec.name}`](#{spec.name})", spec.description) for spec in TABLES.values()]
    parts.append(markdown_table(("Table", "What it holds"), listing))
    parts += [table_section(spec) for spec in TABLES.values()]
    parts.append(SQL_ONLY)
    parts += [view_section(name, text, VECTOR_COLUMNS) for name, text in VECTOR_SIGNALS.items()]
    parts += [view_section(spec.name, spec.description, spec.columns) for spec in (LINEAGE, COLUMNS)]
    return "".join(parts)


def table_section(spec: TableSpec) -> str:
    """Heading, description, partition, key and columns of a table."""
    partition = ", ".join(f"`{name}`" for name in spec.partition_by)
    key = ", ".join(f"`{name}`" for name in spec.key)
    return (
        f"\n## {spec.name}\n\n{spec.description}\n\nPartition: {partition}. Key in a partition: {key}.\n\n"
        + columns_table(spec.columns)
    )


def view_section(name: str, description: str, columns: Sequence[Column]) -> str:
    """Heading, description and columns of something that only SQL shows."""
    return f"\n### {name}\n\n{description}\n\n{columns_table(columns)}"


def columns_table(columns: Sequence[Column]) -> str:
    """Markdown table of columns."""
    rows = [
        (f"`{c.name}`", f"`{c.type}`" + (", NULL allowed" if c.nullable else ""), c.unit, c.description)
        for c in columns
    ]
    return markdown_table(("Column", "Type", "Unit", "Meaning"), rows)


def first_paragraph(model: type[BaseModel]) -> str:
    """First paragraph of a model's docstring."""
    return " ".join((model.__doc__ or "").strip().split("\n\n")[0].split())


def markdown_table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A Markdown table; vertical bars inside cells are escaped."""
    lines = [header, ("---",) * len(header), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def methods_page() -> str:
    """The whole page about methods and their parts, as Markdown."""
    found = describe(None)
    rows = [(f"`{m['name']}`", m["parts"], m["paper"], m["deviation"]) for m in found["methods"]]
    parts = [
        GENERATED.format(command=COMMAND),
        METHODS_INTRODUCTION,
        markdown_table(("method", "parts", "paper", "what differs from it"), rows),
    ]
    parts += [options_section(f"Method {m['name']}", m) for m in found["methods"] if m["options"]]
    for kind, title in (("scores", "Score"), ("quotas", "Quota"), ("diversity", "Diversity rule")):
        parts += [options_section(f"{title} {part['name']}", part) for part in found[kind]]
    return "".join(parts)


def options_section(title: str, part: dict[str, Any]) -> str:
    """One part: what it is, what it needs, its options."""
    text = part.get("description", "")
    if part.get("needs"):
        text += f" Needs: {', '.join(part['needs'])}."
    rows = [(f"`{n}`", f"`{yaml_text(o['default'])}`", o["description"]) for n, o in part["options"].items()]
    table = markdown_table(("option", "default", "meaning"), rows) if rows else ""
    return "\n" + "\n".join(line for line in (f"### {title}\n", text + "\n" if text else "", table) if line)


PAGES = {"project_file.md": project_file_page, "tables.md": tables_page, "methods.md": methods_page}


def main() -> int:
    """Write the pages."""
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), "utf-8")
        print(DOCS / name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
