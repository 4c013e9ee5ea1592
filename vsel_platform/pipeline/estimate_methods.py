"""What the signals and scores of composed methods would cost (see `estimate`)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from vsel_platform.config import RecipeSettings
from vsel_platform.errors import NotMaterializedError
from vsel_platform.methods.api import Need
from vsel_platform.methods.presets import OWN_PIPELINE
from vsel_platform.methods.registry import composition, scores_of
from vsel_platform.pipeline import (
    attention,
    base_losses,
    clustering,
    method_scores,
    moments,
    representations,
    text_embeddings,
)
from vsel_platform.pipeline.by_products import BY_PRODUCTS
from vsel_platform.pipeline.context import Context
from vsel_platform.pipeline.models import vlm_fingerprint
from vsel_platform.pipeline.vector_stage import VectorStage

LOSS_CONDITIONS = 3
N_MODELS = 2
NEEDS: tuple[Need, ...] = (
    "text_embeddings",
    "vision_representations",
    "hidden_states",
    "attention_maps",
    "base_losses",
    "representation_moments",
)


@dataclass(frozen=True, slots=True)
class DatasetForecast:
    """A dataset as it will be: rows, those of them that are new, its present shards, rows in a shard, and whether its
    source changed."""

    name: str
    rows: int
    new_rows: int
    shards: Sequence[str]
    shard_rows: int
    changed: bool


@dataclass(frozen=True, slots=True)
class StageCost:
    """Partitions and rows of a stage, model passes, and the units and the model that its rate is known for."""

    stage: str
    partitions: int
    rows: int
    passes: int
    model: str
    units: int


def method_costs(
    ctx: Context, recipes: Mapping[str, RecipeSettings], datasets: Mapping[str, DatasetForecast]
) -> Iterator[StageCost]:
    """Costs of the stages that composed methods need, in the order in which they run."""
    composed = {name: recipe for name, recipe in recipes.items() if recipe.method not in OWN_PIPELINE}
    needing = {
        need: sorted({r.dataset for r in composed.values() if need in composition(ctx.project, r).needs})
        for need in NEEDS
    }
    yield _vectors(ctx, text_embeddings.STAGE, [datasets[name] for name in needing["text_embeddings"]], [])
    scored = [datasets[name] for name in needing["base_losses"]]
    yield _base_losses(ctx, scored)
    for need, vectors in BY_PRODUCTS.items():
        yield _vectors(ctx, vectors, [datasets[name] for name in needing[need]], scored)
    yield _attention(ctx, [datasets[name] for name in needing["attention_maps"]])
    yield _per_dataset(
        ctx,
        "representation_moments",
        representations.STAGE.fingerprint(ctx),
        [datasets[name] for name in needing["representation_moments"]],
        moments.is_current,
    )
    clustered = sorted({r.dataset for r in composed.values() if composition(ctx.project, r).clusterings})
    yield _per_dataset(ctx, clustering.TABLE, "", [datasets[name] for name in clustered], clustering.is_current)
    for score in scores_of(ctx.project, composed.values()):
        using = sorted({r.dataset for r in composed.values() if score in scores_of(ctx.project, [r])})

        def current(ctx: Context, dataset: str, score: str = score) -> bool:
            return method_scores.is_current(ctx, score, dataset)

        stage = method_scores.stage_name(score)
        yield _per_dataset(ctx, stage, "", [datasets[name] for name in using], current)


def scores_change(ctx: Context, recipe: RecipeSettings, forecast: DatasetForecast) -> bool:
    """Whether the scores of a composed recipe will be made anew."""
    score = composition(ctx.project, recipe).score.name
    return forecast.changed or _is_stale(lambda: method_scores.is_current(ctx, score, recipe.dataset))


def _vectors(
    ctx: Context, stage: VectorStage, datasets: Sequence[DatasetForecast], scored: Sequence[DatasetForecast]
) -> StageCost:
    """Vectors that are not stored; those of shards whose losses are missing too need no pass of their own."""
    model = stage.fingerprint(ctx)
    stale = [s for s in _shards(datasets) if not stage.is_current(ctx, s)]
    besides = {s for s in _shards(scored) if not base_losses.is_current(ctx, s)}
    names = {dataset.name for dataset in scored}
    rows = sum(d.new_rows for d in datasets)
    passes = sum(d.new_rows for d in datasets if d.name not in names)
    for shard in stale:
        ids = stage.wanted(ctx, shard)
        rows += len(ids) - len(ctx.vectors.existing_ids(stage.signal, model, ids))
        passes += 0 if shard in besides else len(stage.missing(ctx, shard))
    return StageCost(stage.signal, len(stale) + _new_shards(datasets), rows, passes, model, passes)


def _attention(ctx: Context, datasets: Sequence[DatasetForecast]) -> StageCost:
    if not datasets:
        return StageCost(attention.TABLE, 0, 0, 0, "", 0)
    stale = [s for s in _shards(datasets) if not attention.is_current(ctx, s)]
    present = sum(len(representations.rows_with_images(ctx, shard)) for shard in stale)
    rows = N_MODELS * (present + sum(d.new_rows for d in datasets))
    passes = rows * ctx.project.signals.answer_tokens
    return StageCost(attention.TABLE, len(stale) + _new_shards(datasets), rows, passes, attention.rate_model(ctx), rows)


def _base_losses(ctx: Context, datasets: Sequence[DatasetForecast]) -> StageCost:
    stale = [s for s in _shards(datasets) if not base_losses.is_current(ctx, s)]
    present = sum(ctx.store.require("samples", {"shard": shard}).rows for shard in stale)
    rows = present + sum(d.new_rows for d in datasets)
    model = vlm_fingerprint(ctx.project.vlm)
    return StageCost("base_losses", len(stale) + _new_shards(datasets), rows, LOSS_CONDITIONS * rows, model, rows)


def _per_dataset(
    ctx: Context,
    stage: str,
    model: str,
    datasets: Sequence[DatasetForecast],
    is_current: Callable[[Context, str], bool],
) -> StageCost:
    stale = [d for d in datasets if d.changed or _is_stale(partial(is_current, ctx, d.name))]
    rows = sum(d.rows for d in stale)
    return StageCost(stage, len(stale), rows, 0, model, rows)


def _shards(datasets: Sequence[DatasetForecast]) -> list[str]:
    return sorted({shard for dataset in datasets for shard in dataset.shards})


def _new_shards(datasets: Sequence[DatasetForecast]) -> int:
    return sum(-(-dataset.new_rows // dataset.shard_rows) for dataset in datasets)


def _is_stale(is_current: Callable[[], bool]) -> bool:
    try:
        return not is_current()
    except NotMaterializedError:
        return True
