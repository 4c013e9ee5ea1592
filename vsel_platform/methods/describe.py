"""Methods, scores, quotas and diversity rules in words, for `vsel methods` and the docs."""

from importlib.metadata import entry_points
from typing import Any

import orjson
from pydantic import BaseModel

from vsel_platform.config import Project
from vsel_platform.errors import ConfigError
from vsel_platform.methods.api import Method, Options, Score
from vsel_platform.methods.presel_types import PreselOptions
from vsel_platform.methods.presets import METHODS, QUOTAS, RULES, SCORES
from vsel_platform.methods.registry import ENTRY_POINT_GROUP, find_method

_OWN: dict[str, dict[str, Any]] = {
    "presel": {
        "paper": "PreSel, arXiv 2503.07591",
        "parts": "task difficulty, clusters, typicality; mode: released",
        "kind": PreselOptions,
    },
    "random": {"paper": "", "parts": "a stable draw, every task with its share", "kind": Options},
}


def describe(project: Project | None) -> dict[str, list[dict[str, Any]]]:
    """Everything that a recipe can name, in a project or in none. Raises ConfigError if a method's file is wrong."""
    methods: list[dict[str, Any]] = [
        {
            "name": name,
            "paper": own["paper"],
            "parts": own["parts"],
            "deviation": "",
            "options": _known(own["kind"]),
        }
        for name, own in _OWN.items()
    ]
    added = {name: find_method(project, name) for name in project.methods} if project else {}
    methods += [_method(name, method) for name, method in {**_installed(), **METHODS, **added}.items()]
    return {
        "methods": sorted(methods, key=lambda method: method["name"]),
        "scores": [_part(score, score.options) for _, score in sorted(SCORES.items())],
        "quotas": [_part(quota, quota.options) for _, quota in sorted(QUOTAS.items())],
        "diversity": [_part(rule, rule.options) for _, rule in sorted(RULES.items())],
    }


def _installed() -> dict[str, Method]:
    """Methods of installed packages."""
    found = {point.name: point.load() for point in entry_points(group=ENTRY_POINT_GROUP)}
    for name, method in found.items():
        if not isinstance(method, Method):
            raise ConfigError(f"entry point {name}: expected a Method from vsel_platform.methods.api")
    return found


def _method(name: str, method: Method) -> dict[str, Any]:
    own = method.score if isinstance(method.score, Score) else None
    score = own.name if own else method.score
    parts = f"score {score}, quota {method.quota}, diversity {method.diversity}"
    # Scores by name are listed with their options; a method's own score stands nowhere else.
    options = _known(own.options) if own else {}
    return {"name": name, "paper": method.paper, "parts": parts, "deviation": method.deviation, "options": options}


def _part(part: Any, options: type[Options]) -> dict[str, Any]:
    needs = {"needs": list(part.needs), "text_only_rows": part.text} if isinstance(part, Score) else {}
    return {"name": part.name, "description": part.description, **needs, "options": _known(options)}


def _known(options: type[BaseModel]) -> dict[str, Any]:
    return {
        name: {
            "default": "none, give one" if f.is_required() else f.get_default(call_default_factory=True),
            "description": f.description,
        }
        for name, f in options.model_fields.items()
    }


def as_text(found: dict[str, list[dict[str, Any]]]) -> str:
    """The same for people."""
    width = max(len(entry["name"]) for entries in found.values() for entry in entries)
    lines = ["methods (a recipe's `method`; `compose` takes any parts)"]
    for method in found["methods"]:
        paper = f"  [{method['paper']}]" if method["paper"] else ""
        lines.append(f"  {method['name']:{width}} {method['parts']}{paper}")
        if method["deviation"]:
            lines.append(f"  {'':{width}} differs: {method['deviation']}")
        lines += _option_lines(method["options"], width)
    for kind in ("scores", "quotas", "diversity"):
        lines += ["", f"{kind} (a recipe's `{kind.removesuffix('s')}`)"]
        for part in found[kind]:
            lines.append(f"  {part['name']:{width}} {part['description']}")
            if part.get("needs"):
                lines.append(f"  {'':{width}} needs: {', '.join(part['needs'])}")
            lines += _option_lines(part["options"], width)
    return "\n".join(lines)


def _option_lines(options: dict[str, Any], width: int) -> list[str]:
    return [
        f"  {'':{width}} {name} (default {_as_written(option['default'])}): {option['description']}"
        for name, option in options.items()
    ]


def _as_written(value: Any) -> str:
    """A default as a project file has it."""
    return value if value and isinstance(value, str) else orjson.dumps(value, default=str).decode()
