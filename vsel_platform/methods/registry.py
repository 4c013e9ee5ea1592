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
from vsel_platform.methods import diversity_rules, free2ds_scores, geometry_scores, loss_scores, quotas, scalselect
from vsel_platform.methods.alignment import CLIP_SCORE
from vsel_platform.methods.api import Clustering, Diversity, Method, Need, Options, Quota, Score
from vsel_platform.methods.own_code import describe_failure
from vsel_platform.methods.presel_types import PreselOptions

ENTRY_POINT_GROUP = "vsel_platform.methods"
COMPOSE = "compose"
# Methods with a pipeline of their own.
OWN_PIPELINE = ("presel", "random")

SCORES = {
    score.name: score
    for score in (
        loss_scores.PERPLEXITY,
        loss_scores.EL2N,
        loss_scores.VISNEC,
        loss_scores.VIG,
        CLIP_SCORE,
        scalselect.SCORE,
        scalselect.RELEASED_SCORE,
        geometry_scores.UNIFORM,
        geometry_scores.PROTOTYPICALITY,
        geometry_scores.PRISM,
        geometry_scores.MAGIC,
        free2ds_scores.SCORE,
        free2ds_scores.RELEASED_SCORE,
    )
}
QUOTAS = {quota.name: quota for quota in quotas.QUOTAS}
RULES = {rule.name: rule for rule in (*diversity_rules.RULES, free2ds_scores.RELEASED_DRAW)}
METHODS = {
    method.name: method
    for method in (
        Method(
            "scalselect",
            "scalselect",
            paper="ScalSelect, arXiv 2602.11636",
            deviation="Instruction tokens are the user's words, by their place in the template; ties go by id.",
            released="scalselect_released",
        ),
        Method(
            "scalselect_released",
            "scalselect_released",
            paper="ScalSelect, arXiv 2602.11636",
            deviation="Vectors are the platform's; `signals.vision_representations_released` makes the released ones.",
        ),
        Method(
            "free2ds",
            "free2ds",
            paper="Free2DS, github.com/jematy/Free2DS",
            deviation="Missing parts stand at the median; scales by quantiles; the best rows instead of a draw.",
            released="free2ds_released",
        ),
        Method(
            "free2ds_released",
            "free2ds_released",
            diversity="softmax_draw",
            paper="Free2DS, github.com/jematy/Free2DS",
            deviation="Attention maps are the platform's: the released script for LLaVA saves none.",
        ),
        Method("perplexity", "perplexity", paper="Marion et al., arXiv 2309.04564"),
        Method("el2n", "el2n", paper="EL2N, Paul et al., arXiv 2107.07075", deviation="A mean over answer tokens."),
        Method(
            "visnec",
            "visnec",
            quota="task",
            paper="VisNec, arXiv 2603.01195",
            deviation="Rows compete inside tasks; the paper makes semantic clusters.",
        ),
        Method("vig", "vig", paper="VIG, arXiv 2602.17186"),
        Method(
            "clip_score",
            "clip_score",
            paper="CLIPScore, Hessel et al., arXiv 2104.08718",
            deviation="Questions instead of captions, a mean over them, and no factor.",
        ),
        Method(
            "ccs",
            "el2n",
            quota="strata",
            diversity="random",
            paper="CCS, Zheng et al., arXiv 2210.15809",
            deviation="Difficulty is EL2N of the base model; the paper has scores of a training run.",
        ),
        Method(
            "semdedup",
            "prototypicality",
            diversity="dedup",
            paper="SemDeDup, arXiv 2303.09540, with prototypicality, arXiv 2206.14486",
            deviation="Near duplicates are found by nearest neighbours, not only inside clusters.",
        ),
        Method(
            "coincide",
            "uniform",
            quota="coincide",
            diversity="mmd",
            paper="COINCIDE, arXiv 2406.10995",
            defaults={"space": "hidden_states"},
            deviation="Activations of the project's model at its middle layer, unless more are chosen; the paper has "
            "those of five layers of a small model.",
        ),
        Method("prism", "prism", paper="PRISM, arXiv 2502.12119", deviation="Squared correlations by default."),
        Method("d2", "el2n", diversity="d2", paper="D2 Pruning, arXiv 2310.07931"),
        Method("facility_location", "uniform", diversity="facility_location", paper="Lin & Bilmes, ACL 2011"),
        Method("k_center", "uniform", diversity="k_center", paper="Sener & Savarese, arXiv 1708.00489"),
        Method(
            "magic",
            "magic",
            quota="cluster",
            paper="after MAGIC, arXiv 2605.26004",
            deviation="Clusters of images stand for the paper's skill neurons.",
        ),
    )
}


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
