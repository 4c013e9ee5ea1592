"""Stage `promotion`: whether a recipe takes the place of its champion."""

import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa

from vsel_platform.config_evaluation import ChampionSettings
from vsel_platform.errors import ConfigError, NotMaterializedError
from vsel_platform.evaluation.promotion import Promotion, decide
from vsel_platform.pipeline import evaluation
from vsel_platform.pipeline.benchmarks import evaluation_key, read_benchmark
from vsel_platform.pipeline.context import Context, Inputs, StageResult, inputs_of
from vsel_platform.pipeline.measured import headline_measures
from vsel_platform.pipeline.quality import publish_checked
from vsel_platform.pipeline.timing import record_rate
from vsel_platform.tables import TABLES

CODE = "promotion-2"
PAGE = "promotion_page"


def champion_of(ctx: Context, recipe: str) -> ChampionSettings:
    """The champion that a recipe names. Raises ConfigError if it names none."""
    champion = ctx.project.recipe(recipe).training.champion
    if champion is None:
        raise ConfigError(f"recipe {recipe!r} names no champion; give recipes.{recipe}.training.champion")
    return champion


def inputs(ctx: Context, recipe: str) -> Inputs:
    """What the stage reads: both evaluations, and the rule.

    Raises NotMaterializedError unless both are current: of the present checkpoints, on the same questions.
    """
    champion = champion_of(ctx, recipe)
    names = (recipe, champion.recipe)
    for name in names:
        if not evaluation.is_current(ctx, evaluation_key(name, champion.benchmark)):
            raise NotMaterializedError(
                f"evaluation of recipe {name}, benchmark {champion.benchmark} is not of the present checkpoint, "
                f"questions and settings; run `vsel run {name} --train`"
            )
    return inputs_of(
        [ctx.store.require("answers", {"recipe": name, "benchmark": champion.benchmark}) for name in names],
        rule=champion.model_dump(),
        intervals=[ctx.project.evaluation.resamples, ctx.project.evaluation.seed],
        code=CODE,
    )


def is_current(ctx: Context, recipe: str) -> bool:
    """Whether the stored ruling is of the present evaluations."""
    pointer = ctx.store.pointer("promotion", {"recipe": recipe})
    return pointer is not None and pointer.input_fingerprint == inputs(ctx, recipe).fingerprint


def run(ctx: Context, recipe: str) -> StageResult:
    """Rule whether the recipe is promoted; publish the ruling, its numbers and its page."""
    start = time.perf_counter()
    wanted, champion = inputs(ctx, recipe), champion_of(ctx, recipe)
    benchmark = read_benchmark(ctx, champion.benchmark)
    own, other = (headline_measures(ctx, benchmark, name)[0] for name in (recipe, champion.recipe))
    ruling = decide(
        [own],
        [other],
        benchmark.clusters,
        margin=champion.margin,
        max_loss=champion.max_loss,
        n_resamples=ctx.project.evaluation.resamples,
        seed=ctx.project.evaluation.seed,
    )
    lineage: dict[str, Any] = {
        "input_fingerprint": wanted.fingerprint,
        "inputs": wanted.references,
        "code_version": CODE,
        "run_id": ctx.run_id,
    }
    _publish_page(ctx, recipe, champion.recipe, ruling, lineage)
    metadata = {"ruling": ruling.ruling, "reason": ruling.reason, "champion": champion.recipe}
    pointer = publish_checked(
        ctx, "promotion", {"recipe": recipe}, _table(champion, ruling), metadata=metadata, **lineage
    )
    record_rate(ctx, "promotion", "", 1, time.perf_counter() - start)
    return StageResult(
        "promotion",
        {"recipe": recipe},
        pointer.data_version,
        1,
        seconds=time.perf_counter() - start,
        references=[pointer.reference],
        metadata=metadata,
    )


def _table(champion: ChampionSettings, ruling: Promotion) -> pa.Table:
    row = {
        "champion": champion.recipe,
        "benchmark": champion.benchmark,
        "champion_value": ruling.champion,
        "candidate_value": ruling.candidate,
    }
    names = ("ruling", "reason", "measure", "unit", "difference", "low", "high", "margin", "max_loss", "n_questions")
    values = row | {name: getattr(ruling, name) for name in names}
    return pa.Table.from_pylist([values], schema=TABLES["promotion"].arrow_schema())


def _publish_page(ctx: Context, recipe: str, champion: str, ruling: Promotion, lineage: dict[str, Any]) -> None:
    from vsel_platform.reports.promotion import promotion_page

    with tempfile.TemporaryDirectory() as folder:
        page = promotion_page(ruling, candidate=recipe, champion=champion)
        (Path(folder) / "promotion.html").write_text(page, "utf-8")
        ctx.store.publish_artifact(PAGE, {"recipe": recipe}, Path(folder), **lineage)
