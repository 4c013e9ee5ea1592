"""Stage `<score>_scores`: a score of every row of a dataset, from the stored signals. No model runs here."""

import time
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from vsel_platform.errors import SelectionError, VselError
from vsel_platform.methods.api import ScoreTable
from vsel_platform.methods.own_code import describe_failure, file_of
from vsel_platform.methods.presets import SCORES
from vsel_platform.methods.registry import Composition, scores_of
from vsel_platform.pipeline.context import Context, Inputs, StageResult, inputs_of
from vsel_platform.pipeline.method_signals import StoreSignals
from vsel_platform.pipeline.needs import need_pointers
from vsel_platform.pipeline.quality import publish_checked
from vsel_platform.pipeline.timing import record_rate
from vsel_platform.storage.pointers import Pointer
from vsel_platform.storage.score_views import OWN_COLUMNS
from vsel_platform.tables import TABLES

TABLE = "method_scores"
METHOD_SCORE_CODE = "method_scores-1"
SUFFIX = "_scores"


def stage_name(score: str) -> str:
    """Asset of a score."""
    return f"{score}{SUFFIX}"


def partition(dataset: str, method: Composition) -> dict[str, str]:
    """Partition of a dataset's scores."""
    return {"dataset": dataset, "score": method.score.name, "variant": method.variant}


def variants(ctx: Context, score: str, dataset: str) -> list[Composition]:
    """Options under which recipes of the dataset use the score."""
    recipes = [recipe for recipe in ctx.project.recipes.values() if recipe.dataset == dataset]
    return scores_of(ctx.project, recipes).get(score, [])


def source_pointers(ctx: Context, dataset: str, method: Composition) -> list[Pointer]:
    """What a score is made from. Raises NotMaterializedError while a signal is missing."""
    manifest = ctx.store.require("manifest", {"dataset": dataset})
    return [manifest, *need_pointers(ctx, dataset, method.score_needs, method.score_clusterings)]


def inputs(ctx: Context, dataset: str, method: Composition) -> Inputs:
    """Inputs of one variant of a score."""
    return inputs_of(
        source_pointers(ctx, dataset, method),
        score=method.score.name,
        version=method.score.version,
        variant=method.variant,
        code=METHOD_SCORE_CODE,
    )


def is_current(ctx: Context, score: str, dataset: str) -> bool:
    """Whether the stored scores are of the present signals, under all options that recipes use."""
    return all(_current(ctx, dataset, method) is not None for method in variants(ctx, score, dataset))


def _current(ctx: Context, dataset: str, method: Composition) -> Pointer | None:
    """The stored scores of one variant, if they are of the present signals."""
    pointer = ctx.store.pointer(TABLE, partition(dataset, method))
    return pointer if pointer and pointer.input_fingerprint == inputs(ctx, dataset, method).fingerprint else None


def want(ctx: Context, score: str, dataset: str) -> str:
    """The state that the scores should reach."""
    return "-".join(inputs(ctx, dataset, method).fingerprint for method in variants(ctx, score, dataset))


def run(ctx: Context, score: str, dataset: str) -> StageResult:
    """Score a dataset under all options that recipes use; what is of the present signals already is left as it is."""
    start = time.perf_counter()
    methods = variants(ctx, score, dataset)
    stored = [_current(ctx, dataset, method) for method in methods]
    published = [found or _score(ctx, dataset, method) for found, method in zip(stored, methods, strict=True)]
    missing = sum(ctx.store.read(pointer, ["value"])["value"].null_count for pointer in published)
    notes = [note for pointer in published for note in pointer.metadata["notes"]]
    n_rows = published[0].rows if published else 0
    n_computed = n_rows * stored.count(None)
    seconds = time.perf_counter() - start
    record_rate(ctx, stage_name(score), "", n_computed, seconds)
    return StageResult(
        stage_name(score),
        {"dataset": dataset},
        "-".join(pointer.data_version for pointer in published) or "none",
        n_rows,
        computed=n_computed,
        reused=n_rows * len(published) - n_computed,
        failed=missing,
        seconds=seconds,
        references=[pointer.reference for pointer in published],
        metadata={"rows_without_score": missing} | ({"notes": "; ".join(notes)} if notes else {}),
    )


def _score(ctx: Context, dataset: str, method: Composition) -> Pointer:
    wanted = inputs(ctx, dataset, method)
    signals = StoreSignals(ctx, source_pointers(ctx, dataset, method))
    found = _computed(signals, method)
    return publish_checked(
        ctx,
        TABLE,
        partition(dataset, method),
        score_table(signals, method, found),
        input_fingerprint=wanted.fingerprint,
        inputs=wanted.references,
        code_version=METHOD_SCORE_CODE,
        run_id=ctx.run_id,
        metadata={
            "options": method.score_options.model_dump(mode="json"),
            "notes": list(found.notes),
            OWN_COLUMNS: [[c.name, c.type, c.unit, c.description] for c in method.score.columns],
        },
    )


def _computed(signals: StoreSignals, method: Composition) -> ScoreTable:
    """The score. Raises SelectionError that names file and line for a failure in a score that is not the platform's."""
    try:
        found = method.score.compute(signals, method.score_options)
    except VselError:
        raise
    except Exception as error:
        if SCORES.get(method.score.name) is method.score:
            raise
        where = describe_failure(error, file_of(method.score.compute))
        raise SelectionError(f"score {method.score.name} of method {method.method.name} fails at {where}") from error
    if not isinstance(found, ScoreTable):
        raise SelectionError(f"score {method.score.name} gives {type(found).__name__}, not ScoreTable(scores)")
    return found


def _misfit(n: int, declared: set[str], found: ScoreTable) -> str | None:
    """What is wrong with the shape of a score's rows and columns, None if nothing is."""
    if len(found.score) != n:
        return f"{len(found.score)} scores for {n} rows; give one for every row, NaN where there is none"
    if set(found.columns) - declared:
        return f"the columns {sorted(set(found.columns) - declared)}, which its Score(columns=...) does not declare"
    if declared - set(found.columns):
        return f"no columns {sorted(declared - set(found.columns))}, which its Score(columns=...) declares"
    lengths = {name: len(values) for name, values in found.columns.items() if len(values) != n}
    return f"{', '.join(f'{v} values in column {k}' for k, v in lengths.items())} for {n} rows" if lengths else None


def score_table(signals: StoreSignals, method: Composition, found: ScoreTable) -> pa.Table:
    """Rows of `method_scores`. Raises SelectionError if the score gives other rows or columns than it says."""
    n = len(signals.sample_ids)
    declared = {column.name for column in method.score.columns}
    misfit = _misfit(n, declared, found)
    if misfit:
        raise SelectionError(f"score {method.score.name} gives {misfit}")
    value = np.where(np.isfinite(found.score), found.score, np.nan)
    own = {name: _plain(values) for name, values in found.columns.items()}
    details: list[str | None] = [None] * n
    if own:
        details = [orjson.dumps(dict(zip(own, row, strict=True))).decode() for row in zip(*own.values(), strict=True)]
    columns = {
        "sample_id": signals.sample_ids,
        "task": signals.tasks,
        "image_id": signals.image_ids,
        "value": pa.array(value, from_pandas=True),
        "details": details,
    }
    return pa.table(columns, schema=TABLES[TABLE].arrow_schema())


def _plain(values: Any) -> list[Any]:
    """Python values; what is not finite is None."""
    plain = np.asarray(values).tolist()
    return [None if isinstance(value, float) and not np.isfinite(value) else value for value in plain]
