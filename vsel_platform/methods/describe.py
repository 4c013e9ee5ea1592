"""Methods, scores, quotas and diversity rules in words, for `vsel methods` and the docs."""

from typing import Any

from vsel_platform.config import Project
from vsel_platform.methods.api import Options, Score
from vsel_platform.methods.registry import METHODS, QUOTAS, RULES, SCORES, find_method

_OWN = {
    "presel": {"paper": "PreSel, arXiv 2503.07591", "parts": "task difficulty, clusters, typicality; mode: released"},
    "random": {"paper": "", "parts": "a stable draw, every task with its share"},
}


def describe(project: Project | None) -> dict[str, list[dict[str, Any]]]:
    """Everything that a recipe can name, in a project or in none. Raises ConfigError if a method's file is wrong."""
    methods = [{"name": name, **text, "deviation": ""} for name, text in _OWN.items()]
    own = {name: find_method(project, name) for name in project.methods} if project else {}
    for name, method in sorted({**METHODS, **own}.items()):
        score = method.score if isinstance(method.score, str) else method.score.name
        parts = f"score {score}, quota {method.quota}, diversity {method.diversity}"
        methods.append({"name": name, "paper": method.paper, "parts": parts, "deviation": method.deviation})
    return {
        "methods": sorted(methods, key=lambda method: method["name"]),
        "scores": [_part(score, score.options) for _, score in sorted(SCORES.items())],
        "quotas": [_part(quota, quota.options) for _, quota in sorted(QUOTAS.items())],
        "diversity": [_part(rule, rule.options) for _, rule in sorted(RULES.items())],
    }


def _part(part: Any, options: type[Options]) -> dict[str, Any]:
    known = {name: {"default": f.default, "description": f.description} for name, f in options.model_fields.items()}
    needs = {"needs": list(part.needs), "text_only_rows": part.text} if isinstance(part, Score) else {}
    return {"name": part.name, "description": part.description, **needs, "options": known}


def as_text(found: dict[str, list[dict[str, Any]]]) -> str:
    """The same for people."""
    lines = ["methods (a recipe's `method`; `compose` takes any parts)"]
    for method in found["methods"]:
        paper = f"  [{method['paper']}]" if method["paper"] else ""
        lines.append(f"  {method['name']:14} {method['parts']}{paper}")
        if method["deviation"]:
            lines.append(f"  {'':14} differs: {method['deviation']}")
    for kind in ("scores", "quotas", "diversity"):
        lines += ["", f"{kind} (a recipe's `{kind.removesuffix('s')}`)"]
        for part in found[kind]:
            lines.append(f"  {part['name']:14} {part['description']}")
            if part.get("needs"):
                lines.append(f"  {'':14} needs: {', '.join(part['needs'])}")
            for name, option in part["options"].items():
                lines.append(f"  {'':14} {name} (default {option['default']}): {option['description']}")
    return "\n".join(lines)
