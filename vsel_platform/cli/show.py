"""A project as a project file again: every value, and beside those that are not the default the default."""

from collections.abc import Iterator
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined, to_jsonable_python

from vsel_platform.config import Project

# Where the file lies, not what it says; the loader sets it.
HIDDEN = {"base_dir"}


def project_yaml(project: Project) -> str:
    """The text of a project file that loads as `project`."""
    return "\n".join(_model(project, None, ""))


def _model(model: BaseModel, default: BaseModel | None, pad: str) -> Iterator[str]:
    """Lines of the fields of `model`; `default` holds their defaults where another model's field gives them."""
    for name, field in type(model).model_fields.items():
        if name not in HIDDEN:
            given = field.get_default(call_default_factory=True) if default is None else getattr(default, name)
            yield from _field(name, getattr(model, name), given, pad)


def _field(name: str, value: Any, default: Any, pad: str) -> Iterator[str]:
    key = yaml_text(name)
    if isinstance(value, BaseModel):
        yield f"{pad}{key}:"
        yield from _model(value, default if isinstance(default, BaseModel) else None, f"{pad}  ")
    elif isinstance(value, dict) and value and all(isinstance(item, BaseModel) for item in value.values()):
        yield f"{pad}{key}:"
        for inner, item in value.items():
            yield from _field(inner, item, PydanticUndefined, f"{pad}  ")
    else:
        note = "" if default is PydanticUndefined or value == default else f"  # default: {yaml_text(default)}"
        yield f"{pad}{key}: {yaml_text(value)}{note}"


class _OneLine(yaml.SafeDumper):
    """Writes a text with line breaks with escapes."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        """Quoted so that breaks are escapes, if it has any."""
        style = '"' if len(data.splitlines()) > 1 or data != data.rstrip("\n\r\x85\u2028\u2029") else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style)


_OneLine.add_representer(str, _OneLine.represent_str)


def yaml_text(value: Any) -> str:
    """A plain value as YAML on one line, quoted where it has to be."""
    text = yaml.dump(
        to_jsonable_python(value),
        Dumper=_OneLine,
        default_flow_style=True,
        sort_keys=False,
        width=float("inf"),
        allow_unicode=True,
    )
    return text.removesuffix("\n").removesuffix("\n...")
