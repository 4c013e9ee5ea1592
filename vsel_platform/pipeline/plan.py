"""What is missing or stale right now (level-triggered): compare stored input fingerprints with present ones."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from vsel_platform.identity import fingerprint
from vsel_platform.pipeline import embeddings, ingest, losses, reference, scores, selection, training
from vsel_platform.pipeline.context import Context
from vsel_platform.pipeline.lookup import dataset_shards

SELECT_STAGES = (
    "dataset_manifest",
    "image_embeddings",
    "reference_subset",
    "reference_model",
    "losses",
    "presel_scores",
    "selected_subset",
)
TRAIN_STAGES = ("finetuned_checkpoint", "evaluation")


@dataclass(frozen=True, slots=True)
class Step:
    """One partition of one asset that has to be materialized. `want` names the state it should reach."""

    asset: str
    key: str
    want: str

    @property
    def target(self) -> str:
        """`asset:key`, the same for every attempt."""
        return f"{self.asset}:{self.key}"


def next_steps(ctx: Context, recipes: list[str], *, train: bool = False) -> list[Step]:
    """Stale partitions of the FIRST stage that has any, for the given recipes; empty when all is current.

    Later stages are looked at only when the earlier ones are current, because their inputs are known only then.
    """
    for stage in (*SELECT_STAGES, *(TRAIN_STAGES if train else ())):
        steps = list(_stale(ctx, stage, recipes))
        if steps:
            return steps
    return []


def _stale(ctx: Context, stage: str, recipes: list[str]) -> Iterator[Step]:
    scope, is_current, want = _STAGES[stage]
    for key in scope(ctx, recipes):
        if not is_current(ctx, key):
            yield Step(stage, key, want(ctx, key))


def _datasets(ctx: Context, recipes: list[str]) -> list[str]:
    return sorted({ctx.project.recipe(name).dataset for name in recipes})


def _scored(ctx: Context, recipes: list[str]) -> list[str]:
    """Datasets whose recipes need signals."""
    return _datasets(ctx, [name for name in recipes if ctx.project.recipe(name).method == "presel"])


def _shards(ctx: Context, recipes: list[str]) -> list[str]:
    return sorted({shard for name in _scored(ctx, recipes) for shard in dataset_shards(ctx, name)})


def _recipes(ctx: Context, recipes: list[str]) -> list[str]:
    return recipes


def _trained(ctx: Context, recipes: list[str]) -> list[str]:
    return [name for name in recipes if ctx.project.recipe(name).train]


def _evaluated(ctx: Context, recipes: list[str]) -> list[str]:
    return _trained(ctx, recipes) if ctx.project.training.evaluation else []


def _want_manifest(ctx: Context, dataset: str) -> str:
    content = ingest.observe_source(ctx, dataset).content
    limit = ctx.project.dataset(dataset).max_quarantine_rate
    return fingerprint(inputs=ingest.input_fingerprint(ctx, dataset, content), limit=limit)


def _want_model(ctx: Context, dataset: str) -> str:
    subset = ctx.store.require("reference_subset", {"dataset": dataset})
    return fingerprint(rows=subset.data_version, settings=reference.model_settings_fingerprint(ctx))


def _want_losses(ctx: Context, shard: str) -> str:
    return fingerprint(inputs=[losses.inputs(ctx, name, shard).fingerprint for name in losses.datasets_of(ctx, shard)])


# Stage -> (which keys it has for some recipes, whether a key is current, the state that a key should reach).
_STAGES: dict[
    str,
    tuple[Callable[[Context, list[str]], list[str]], Callable[[Context, str], bool], Callable[[Context, str], str]],
] = {
    "dataset_manifest": (_datasets, ingest.is_current, _want_manifest),
    "image_embeddings": (_shards, embeddings.is_current, lambda ctx, key: embeddings.inputs(ctx, key).fingerprint),
    "reference_subset": (
        _scored,
        reference.subset_is_current,
        lambda ctx, name: reference.subset_inputs(ctx, name).fingerprint,
    ),
    "reference_model": (_scored, reference.model_is_current, _want_model),
    "losses": (_shards, losses.is_current, _want_losses),
    "presel_scores": (_scored, scores.is_current, lambda ctx, name: scores.inputs(ctx, name).fingerprint),
    "selected_subset": (_recipes, selection.is_current, lambda ctx, name: selection.inputs(ctx, name).fingerprint),
    "finetuned_checkpoint": (
        _trained,
        training.checkpoint_is_current,
        lambda ctx, name: training.checkpoint_inputs(ctx, name).fingerprint,
    ),
    "evaluation": (
        _evaluated,
        training.evaluation_is_current,
        lambda ctx, name: training.evaluation_inputs(ctx, name).fingerprint,
    ),
}
