"""What is missing or stale right now (level-triggered): compare stored input fingerprints with present ones."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from vsel_platform.config import Project
from vsel_platform.identity import fingerprint
from vsel_platform.methods.api import Need
from vsel_platform.methods.presets import OWN_PIPELINE
from vsel_platform.methods.registry import composition, needs_of, scores_of
from vsel_platform.pipeline import (
    attention,
    base_losses,
    clustering,
    compare,
    embeddings,
    evaluation,
    hidden_states,
    ingest,
    leaderboard,
    leakage,
    losses,
    method_scores,
    moments,
    promotion,
    reference,
    representations,
    scores,
    selection,
    text_embeddings,
    training,
)
from vsel_platform.pipeline.benchmarks import evaluation_key
from vsel_platform.pipeline.context import Context
from vsel_platform.pipeline.lookup import dataset_shards

INGEST = "dataset_manifest"
SIGNAL_STAGES = (
    INGEST,
    "image_embeddings",
    "text_embeddings",
    "base_losses",  # before what lies on the way of their pass (`by_products`)
    "vision_representations",
    "hidden_states",
    "attention_maps",
    "representation_moments",
    "clusters",
    "reference_subset",
    "reference_model",
    "losses",
    "presel_scores",
)
TRAIN_STAGES = ("leakage", "finetuned_checkpoint", "base_evaluation", "evaluation", "leaderboard", "promotion")


def target(asset: str, key: str) -> str:
    """How a partition of an asset is named: `asset:key`."""
    return f"{asset}:{key}"


@dataclass(frozen=True, slots=True)
class Step:
    """One partition of one asset that has to be materialized. `want` names the state it should reach."""

    asset: str
    key: str
    want: str

    @property
    def target(self) -> str:
        """The same for every attempt."""
        return target(self.asset, self.key)


def next_steps(ctx: Context, recipes: list[str], *, train: bool = False) -> list[Step]:
    """Stale partitions of the FIRST stage that has any, for the given recipes; empty when all is current.

    Later stages are looked at only when the earlier ones are current, because their inputs are known only then.
    """
    recipes = with_trained(ctx.project, recipes) if train else recipes
    named = {name: ctx.project.recipe(name) for name in recipes}
    score_stages = [method_scores.stage_name(score) for score in scores_of(ctx.project, named.values())]
    last = ("selected_subset", compare.STAGE, *(TRAIN_STAGES if train else ()))
    for stage in (*SIGNAL_STAGES, *score_stages, *last):
        steps = list(_stale(ctx, stage, recipes))
        if steps:
            return steps
    return []


def ingest_step(ctx: Context, dataset: str) -> Step:
    """The step that brings a dataset to the present content of its source. Raises DataError if there is none."""
    return Step(INGEST, dataset, _want_manifest(ctx, dataset))


def _stale(ctx: Context, stage: str, recipes: list[str]) -> Iterator[Step]:
    scope, is_current, want = _STAGES[stage] if stage in _STAGES else _score_stage(stage)
    for key in scope(ctx, recipes):
        if not is_current(ctx, key):
            yield Step(stage, key, want(ctx, key))


def _datasets(ctx: Context, recipes: list[str]) -> list[str]:
    return sorted({ctx.project.recipe(name).dataset for name in recipes})


def _scored(ctx: Context, recipes: list[str]) -> list[str]:
    """Datasets that PreSel scores."""
    return _datasets(ctx, [name for name in recipes if ctx.project.recipe(name).method == "presel"])


def _shards(ctx: Context, recipes: list[str]) -> list[str]:
    return _all_shards(ctx, _scored(ctx, recipes))


def _all_shards(ctx: Context, datasets: list[str]) -> list[str]:
    return sorted({shard for name in datasets for shard in dataset_shards(ctx, name)})


def _needing(need: Need) -> Callable[[Context, list[str]], list[str]]:
    """Datasets whose recipes need a signal."""

    def datasets(ctx: Context, recipes: list[str]) -> list[str]:
        return _datasets(ctx, [n for n in recipes if need in needs_of(ctx.project, ctx.project.recipe(n))])

    return datasets


def _clustered(ctx: Context, recipes: list[str]) -> list[str]:
    """Datasets whose recipes need clusters."""
    composed = [n for n in recipes if ctx.project.recipe(n).method not in OWN_PIPELINE]
    return _datasets(ctx, [n for n in composed if composition(ctx.project, ctx.project.recipe(n)).clusterings])


def _shards_needing(need: Need) -> Callable[[Context, list[str]], list[str]]:
    datasets = _needing(need)
    return lambda ctx, recipes: _all_shards(ctx, datasets(ctx, recipes))


def _score_stage(stage: str) -> "_Stage":
    """Scope, currency and wanted state of the scores of one kind."""
    score = stage.removesuffix(method_scores.SUFFIX)

    def datasets(ctx: Context, recipes: list[str]) -> list[str]:
        used = (name for name in recipes if score in scores_of(ctx.project, [ctx.project.recipe(name)]))
        return _datasets(ctx, list(used))

    return (
        datasets,
        lambda ctx, name: method_scores.is_current(ctx, score, name),
        lambda ctx, name: method_scores.want(ctx, score, name),
    )


def _recipes(ctx: Context, recipes: list[str]) -> list[str]:
    return recipes


def _compared(ctx: Context, recipes: list[str]) -> list[str]:
    """Datasets of the recipes with selections to compare."""
    return [name for name in _datasets(ctx, recipes) if len(compare.compared_recipes(ctx, name)) > 1]


def with_trained(project: Project, recipes: Sequence[str]) -> list[str]:
    """Recipes, and those that their trainings go on from or are compared with."""
    found: dict[str, None] = {}
    for name in recipes:
        recipe = project.recipe(name)
        champion = recipe.training.champion
        before = [*project.ancestors(name), *([champion.recipe] if champion else [])] if recipe.train else []
        found.update(dict.fromkeys([*before, name]))
    return list(found)


def _trained(ctx: Context, recipes: list[str]) -> list[str]:
    return [name for name in recipes if ctx.project.recipe(name).train]


def _trainable(ctx: Context, recipes: list[str]) -> list[str]:
    """Trained recipes that do not wait for the checkpoint of another."""
    return [name for name in _trained(ctx, recipes) if training.parent_is_current(ctx, name)]


def _checked(ctx: Context, recipes: list[str]) -> list[str]:
    return _trained(ctx, recipes) if ctx.project.benchmarks else []


def _benchmarks(ctx: Context, recipes: list[str]) -> list[str]:
    return list(ctx.project.benchmarks) if _trained(ctx, recipes) else []


def _evaluated(ctx: Context, recipes: list[str]) -> list[str]:
    return [evaluation_key(name, benchmark) for name in _trained(ctx, recipes) for benchmark in ctx.project.benchmarks]


def _challengers(ctx: Context, recipes: list[str]) -> list[str]:
    return [name for name in _trained(ctx, recipes) if ctx.project.recipe(name).training.champion]


def _want_manifest(ctx: Context, dataset: str) -> str:
    content = ingest.observe_source(ctx, dataset).content
    limit = ctx.project.dataset(dataset).max_quarantine_rate
    return fingerprint(inputs=ingest.input_fingerprint(ctx, dataset, content), limit=limit)


def _want_model(ctx: Context, dataset: str) -> str:
    subset = ctx.store.require("reference_subset", {"dataset": dataset})
    return fingerprint(rows=subset.data_version, settings=reference.model_settings_fingerprint(ctx))


def _want_losses(ctx: Context, shard: str) -> str:
    return fingerprint(inputs=[losses.inputs(ctx, name, shard).fingerprint for name in losses.datasets_of(ctx, shard)])


# (Which keys a stage has for some recipes, whether a key is current, the state that a key should reach.)
_Stage = tuple[Callable[[Context, list[str]], list[str]], Callable[[Context, str], bool], Callable[[Context, str], str]]
_STAGES: dict[str, _Stage] = {
    "dataset_manifest": (_datasets, ingest.is_current, _want_manifest),
    "image_embeddings": (
        _shards_needing("image_embeddings"),
        embeddings.is_current,
        lambda ctx, key: embeddings.inputs(ctx, key).fingerprint,
    ),
    "vision_representations": (
        _shards_needing("vision_representations"),
        representations.STAGE.is_current,
        lambda ctx, key: representations.STAGE.inputs(ctx, key).fingerprint,
    ),
    "hidden_states": (
        _shards_needing("hidden_states"),
        hidden_states.STAGE.is_current,
        lambda ctx, key: hidden_states.STAGE.inputs(ctx, key).fingerprint,
    ),
    "text_embeddings": (
        _shards_needing("text_embeddings"),
        text_embeddings.STAGE.is_current,
        lambda ctx, key: text_embeddings.STAGE.inputs(ctx, key).fingerprint,
    ),
    "attention_maps": (
        _shards_needing("attention_maps"),
        attention.is_current,
        lambda ctx, key: attention.inputs(ctx, key).fingerprint,
    ),
    "base_losses": (
        _shards_needing("base_losses"),
        base_losses.is_current,
        lambda ctx, key: base_losses.inputs(ctx, key).fingerprint,
    ),
    "representation_moments": (
        _needing("representation_moments"),
        moments.is_current,
        lambda ctx, name: moments.inputs(ctx, name).fingerprint,
    ),
    "clusters": (_clustered, clustering.is_current, clustering.want),
    "reference_subset": (
        _scored,
        reference.subset_is_current,
        lambda ctx, name: reference.subset_inputs(ctx, name).fingerprint,
    ),
    "reference_model": (_scored, reference.model_is_current, _want_model),
    "losses": (_shards, losses.is_current, _want_losses),
    "presel_scores": (_scored, scores.is_current, lambda ctx, name: scores.inputs(ctx, name).fingerprint),
    "selected_subset": (_recipes, selection.is_current, lambda ctx, name: selection.inputs(ctx, name).fingerprint),
    compare.STAGE: (_compared, compare.is_current, lambda ctx, name: compare.inputs(ctx, name).fingerprint),
    "leakage": (_checked, leakage.is_current, lambda ctx, name: leakage.inputs(ctx, name).fingerprint),
    "finetuned_checkpoint": (
        _trainable,
        training.checkpoint_is_current,
        lambda ctx, name: training.checkpoint_inputs(ctx, name).fingerprint,
    ),
    "base_evaluation": (
        _benchmarks,
        evaluation.base_is_current,
        lambda ctx, name: evaluation.base_inputs(ctx, name).fingerprint,
    ),
    "evaluation": (_evaluated, evaluation.is_current, lambda ctx, key: evaluation.inputs(ctx, key).fingerprint),
    "leaderboard": (_benchmarks, leaderboard.is_current, lambda ctx, name: leaderboard.inputs(ctx, name).fingerprint),
    "promotion": (_challengers, promotion.is_current, lambda ctx, name: promotion.inputs(ctx, name).fingerprint),
}
