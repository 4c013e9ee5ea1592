"""Methods by name: those of papers, those of installed packages, and those that are files of a project."""

import hashlib
import importlib.util
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from vsel_platform.config import Project, RecipeSettings
from vsel_platform.config_errors import problems
from vsel_platform.errors import ConfigError
from vsel_platform.identity import fingerprint
from vsel_platform.methods.api import Clustering, Diversity, Method, Need, Options, Quota, Score
from vsel_platform.methods.own_code import describe_failure
from vsel_platform.methods.presel_types import PreselOptions
from vsel_platform.methods.presets import COMPOSE, METHODS, OWN_PIPELINE, QUOTAS, RULES, SCORES

ENTRY_POINT_GROUP = "vsel_platform.methods"


@dataclass(frozen=True)
class Composition:
    """A method with its parts and checked options, ready to select with."""

    method: Method
    score: Score
    quota: Quota
    diversity: Diversity
    score_options: Options
    quota_options: Options
    diversity_options: Options

    @property
    def needs(self) -> list[Need]:
        """Signals that the parts read, sorted."""
        spaces = (clustering.space for clustering in self.clusterings)
        return sorted({*self.score_needs, *self.selection_needs, *spaces})

    @property
    def score_needs(self) -> list[Need]:
        """Signals that the score reads; a part with an option `space` reads those vectors."""
        return sorted({*self.score.needs, *_space(self.score_options)})

    @property
    def score_clusterings(self) -> list[Clustering]:
        """Clusterings that the score reads."""
        return list(self.score.clusterings(self.score_options))

    @property
    def selection_clusterings(self) -> list[Clustering]:
        """Clusterings that the selection reads beside the scores."""
        found = [*self.quota.clusterings(self.quota_options), *self.diversity.clusterings(self.diversity_options)]
        return list(dict.fromkeys(found))

    @property
    def clusterings(self) -> list[Clustering]:
        """All of them, each once."""
        return list(dict.fromkeys([*self.score_clusterings, *self.selection_clusterings]))

    @property
    def selection_needs(self) -> list[Need]:
        """Signals that the selection reads beside the scores."""
        spaces = {*_space(self.quota_options), *_space(self.diversity_options)}
        return sorted({*self.quota.needs, *self.diversity.needs, *spaces})

    @property
    def variant(self) -> str:
        """Name of the score's options: `default`, or a hash of them and of a project's own code."""
        changed = self.score_options.model_dump(mode="json", exclude_defaults=True)
        if not changed and not self.method.source:
            return "default"
        return fingerprint(options=changed, source=self.method.source)[:12]

    @property
    def settings_fingerprint(self) -> str:
        """Hash of everything that decides the selection beside its inputs."""
        parts = (self.score, self.quota, self.diversity)
        options = (self.score_options, self.quota_options, self.diversity_options)
        return fingerprint(
            parts=[part.name for part in parts],
            version=self.score.version,
            options=[found.model_dump(mode="json") for found in options],
            source=self.method.source,
        )


def _space(options: Options) -> list[Need]:
    space = getattr(options, "space", None)
    return [space] if space is not None else []


def check_recipes(project: Project) -> None:
    """Raise ConfigError that names every recipe whose method or options are wrong."""
    wrong: dict[str, ConfigError] = {}
    for name, recipe in project.recipes.items():
        try:
            _check_recipe(project, recipe)
        except ConfigError as error:
            wrong[name] = error
    if wrong:
        lines = [f"{len(wrong)} of {len(project.recipes)} recipes cannot be used"]
        lines += [f"  recipes.{name}: {error}" for name, error in wrong.items()]
        raise ConfigError("\n".join(lines)) from next(iter(wrong.values()))


def _check_recipe(project: Project, recipe: RecipeSettings) -> None:
    if recipe.method not in OWN_PIPELINE:
        composition(project, recipe)
        return
    exchanged = [part for part in ("score", "quota", "diversity") if getattr(recipe, part) is not None]
    if exchanged:
        raise ConfigError(f"method {recipe.method} has no {exchanged[0]} to exchange; `compose` takes any parts")
    _options(PreselOptions if recipe.method == "presel" else Options, recipe.options, recipe.method, strict=True)


def method_names(project: Project) -> list[str]:
    """Names that a recipe of the project can use, sorted."""
    installed = (point.name for point in entry_points(group=ENTRY_POINT_GROUP))
    return sorted({*METHODS, *OWN_PIPELINE, COMPOSE, *project.methods, *installed})


def find_method(project: Project, name: str) -> Method:
    """The method of a name: the project's file, else the platform's, else an installed package's.

    Raises ConfigError with the known names, or what is wrong with the file.
    """
    if name in project.methods:
        return load_method_file(Path(project.resolve(project.methods[name])), name)
    if name in METHODS:
        return METHODS[name]
    for point in entry_points(group=ENTRY_POINT_GROUP):
        if point.name == name:
            return _checked(point.load(), f"entry point {name}")
    raise ConfigError(f"method {name!r} is unknown; known: {', '.join(method_names(project))}")


def load_method_file(path: Path, name: str) -> Method:
    """The `METHOD` of a Python file. The file is run: it is the project's own code, as the project file is its own.

    Raises ConfigError if the file is missing, fails, or has no METHOD.
    """
    try:
        source = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"methods.{name}: {path} cannot be read: {error}") from error
    spec = importlib.util.spec_from_file_location(f"vsel_project_method_{name}", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"methods.{name}: {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(f"methods.{name}: the file fails at {describe_failure(error, str(path))}") from error
    method = _checked(getattr(module, "METHOD", None), f"methods.{name}: {path}")
    return replace(method, name=name, source=hashlib.sha256(source).hexdigest()[:16])


def _checked(found: object, where: str) -> Method:
    if not isinstance(found, Method):
        raise ConfigError(f"{where}: expected METHOD = Method(...) from vsel_platform.methods.api")
    return found


def composition(project: Project, recipe: RecipeSettings) -> Composition:
    """The recipe's method with its parts and options.

    `recipe.score`, `quota` and `diversity` replace the method's parts. Options go to the parts that know them; raises
    ConfigError for an option or a part that nobody knows, and for what the score requires and the project lacks.
    """
    method = find_method(project, recipe.method) if recipe.method != COMPOSE else Method(COMPOSE, recipe.score or "")
    if recipe.mode == "released":
        if not method.released:
            having = ", ".join(["presel", *(name for name, m in METHODS.items() if m.released)])
            raise ConfigError(f"method {recipe.method!r} has no mode `released`; these have: {having}")
        method = find_method(project, method.released)
    named: str | Score = recipe.score or method.score
    score = named if isinstance(named, Score) else _part(SCORES, named, "score")
    missing = score.requires(project)
    if missing:
        raise ConfigError(f"score {score.name} requires {missing} in the project file")
    quota = _part(QUOTAS, recipe.quota or method.quota, "quota")
    rule = _part(RULES, recipe.diversity or method.diversity, "diversity")
    options = {**method.defaults, **recipe.options}
    kinds = (score.options, quota.options, rule.options)
    unknown = sorted(set(options) - {name for kind in kinds for name in kind.model_fields})
    if unknown:
        known = sorted({name for kind in kinds for name in kind.model_fields})
        raise ConfigError(f"method {recipe.method}: unknown options {unknown}; known: {', '.join(known) or 'none'}")
    checked = [_options(kind, options, recipe.method) for kind in kinds]
    return Composition(method, score, quota, rule, *checked)


def _part(parts: Mapping[str, Any], name: str, kind: str) -> Any:
    if name not in parts:
        raise ConfigError(f"{kind} {name!r} is unknown; known: {', '.join(sorted(parts))}")
    return parts[name]


def _options(kind: type[BaseModel], options: Mapping[str, Any], method: str, *, strict: bool = False) -> Any:
    """Options of one part; with `strict`, those that it does not know are errors too."""
    try:
        own = {name: value for name, value in options.items() if strict or name in kind.model_fields}
        return kind.model_validate(own)
    except ValidationError as error:
        raise ConfigError(f"method {method}: options: {'; '.join(problems(error, kind))}") from error


def needs_of(project: Project, recipe: RecipeSettings) -> list[Need]:
    """Signals that a recipe needs, sorted; those of PreSel that only it has are left out."""
    if recipe.method in OWN_PIPELINE:
        return ["image_embeddings"] if recipe.method == "presel" else []
    return composition(project, recipe).needs


def used_scores(project: Project) -> dict[str, list[Composition]]:
    """Scores that the project's recipes use, each with the compositions of different options, by score name."""
    return scores_of(project, project.recipes.values())


def scores_of(project: Project, recipes: Iterable[RecipeSettings]) -> dict[str, list[Composition]]:
    """Scores that some recipes use. Raises ConfigError if two different scores have one name."""
    found: dict[str, dict[str, Composition]] = {}
    for recipe in recipes:
        if recipe.method not in OWN_PIPELINE:
            own = composition(project, recipe)
            found.setdefault(own.score.name, {}).setdefault(own.variant, own)
    return {name: [variants[key] for key in sorted(variants)] for name, variants in sorted(found.items())}
