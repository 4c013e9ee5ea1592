"""Stage `selected_subset`: a recipe's rows, its manifest, its training file and its page."""

import tempfile
import time
from bisect import bisect_left
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vsel_platform.config import Budget, RecipeSettings
from vsel_platform.errors import ConfigError, NotMaterializedError, SelectionError, VerificationError
from vsel_platform.methods.compose import compose
from vsel_platform.methods.presel import PreselOptions, PreselRows, presel_select
from vsel_platform.methods.presets import OWN_PIPELINE
from vsel_platform.methods.registry import Composition, composition
from vsel_platform.methods.stratified_random import stratified_random
from vsel_platform.pipeline import method_scores, scores
from vsel_platform.pipeline.context import Context, Inputs, StageResult, inputs_of
from vsel_platform.pipeline.method_signals import StoreSignals
from vsel_platform.pipeline.models import vlm_fingerprint
from vsel_platform.pipeline.needs import need_pointers
from vsel_platform.pipeline.quality import publish_checked
from vsel_platform.pipeline.source_rows import source_rows, write_source_format
from vsel_platform.pipeline.timing import known_seconds, record_rate
from vsel_platform.pipeline.tokens import largest_within_tokens
from vsel_platform.selection.budgets import budget_text
from vsel_platform.selection.manifest import ManifestRow, build_manifest, row_hash
from vsel_platform.selection.result import SelectedRow, SelectionResult, split_rounds
from vsel_platform.storage.catalog import publish_catalog_file
from vsel_platform.storage.pointers import Pointer, parse_reference, read_version
from vsel_platform.tables import TABLES

SELECTION_CODE = "selected_subset-3"


@dataclass(frozen=True)
class Sources:
    """States of the store that a selection reads."""

    pointers: list[Pointer]

    def of(self, table: str) -> Pointer:
        """The state of a table. Raises NotMaterializedError if there is none."""
        for pointer in self.pointers:
            if pointer.table == table:
                return pointer
        raise NotMaterializedError(f"the selection needs {table}")

    @property
    def manifest(self) -> Pointer:
        """The state of the dataset."""
        return self.of("manifest")


def present_sources(ctx: Context, recipe: RecipeSettings) -> Sources:
    """The current states. Raises NotMaterializedError while one is missing."""
    manifest = ctx.store.require("manifest", {"dataset": recipe.dataset})
    if recipe.method == "random":
        return Sources([manifest])
    if recipe.method == "presel":
        names = ("presel_scores", "presel_tasks")
        key = scores.partition(recipe.dataset, recipe.mode)
        return Sources([manifest, *(ctx.store.require(name, key) for name in names)])
    method = composition(ctx.project, recipe)
    found = ctx.store.require(method_scores.TABLE, method_scores.partition(recipe.dataset, method))
    return Sources(
        [manifest, found, *need_pointers(ctx, recipe.dataset, method.selection_needs, method.selection_clusterings)]
    )


def inputs(ctx: Context, name: str) -> Inputs:
    """Inputs of a recipe's selection."""
    recipe = ctx.project.recipe(name)
    settings = recipe.model_dump(mode="json", exclude={"train", "training"})
    method = "" if recipe.method in OWN_PIPELINE else composition(ctx.project, recipe).settings_fingerprint
    return inputs_of(present_sources(ctx, recipe).pointers, recipe=settings, method=method, code=SELECTION_CODE)


def is_current(ctx: Context, name: str) -> bool:
    """Whether the stored selection was made from the present scores with the present settings."""
    wanted = inputs(ctx, name).fingerprint
    found = (ctx.store.pointer(table, {"recipe": name}) for table in ("selected_subset", "selected_tasks", "selection"))
    return all(pointer is not None and pointer.input_fingerprint == wanted for pointer in found)


def select_rows(ctx: Context, recipe: RecipeSettings, sources: Sources) -> SelectionResult:
    """The selection as a pure function of states of the store and the recipe's settings."""
    table = ctx.store.read(sources.manifest, ["sample_id", "task", "is_duplicate"])
    table = table.filter(pc.invert(table["is_duplicate"]))
    n_rows = table.num_rows

    def select(budget_rows: int) -> SelectionResult:
        if recipe.method == "random":
            return _random(ctx, recipe, sources, table, budget_rows)
        if recipe.method == "presel":
            return _presel(ctx, recipe, sources, budget_rows)
        return _composed(ctx, recipe, sources, budget_rows)

    if recipe.budget.tokens is not None:
        return largest_within_tokens(ctx, sources.manifest, select, recipe.budget.tokens, n_rows)
    rows = budget_rows(ctx, recipe.budget, n_rows)
    if rows < 1:
        raise SelectionError(f"the budget of {budget_text(recipe.budget)} is less than one of {n_rows} rows; give more")
    return select(rows)


def budget_rows(ctx: Context, budget: Budget, n_rows: int) -> int:
    """Rows of a budget in rows, percent or hours of fine-tuning.

    Raises SelectionError for hours while no fine-tuning has run in this store under the project's model.
    """
    if budget.gpu_hours is None:
        return budget.rows or int(n_rows * (budget.percent or 0) / 100)
    passes = 1_000_000
    seconds = known_seconds(ctx, "finetuned_checkpoint", vlm_fingerprint(ctx.project.vlm), passes)
    if seconds is None:
        raise SelectionError(
            "a budget in gpu_hours needs the rate of a fine-tuning in this store under this model, and none has run; "
            "train one recipe (`vsel run RECIPE --train`), or give the budget in rows, percent or tokens"
        )
    rows = budget.gpu_hours * 3600 / seconds * passes / ctx.project.training.lora.epochs
    return min(n_rows, int(rows))


def _random(
    ctx: Context, recipe: RecipeSettings, sources: Sources, table: pa.Table, budget_rows: int
) -> SelectionResult:
    if recipe.options:
        raise ConfigError(f"method random has no options; got {sorted(recipe.options)}")
    from vsel_platform.pipeline.reference import first_images

    images = first_images(ctx, sources.manifest)
    ids = table["sample_id"].to_pylist()
    has_image = [i in images for i in ids]
    return stratified_random(ids, table["task"].to_pylist(), has_image, budget_rows, seed=recipe.seed)


def _composed(ctx: Context, recipe: RecipeSettings, sources: Sources, budget_rows: int) -> SelectionResult:
    signals, values, method = composed_inputs(ctx, recipe, sources)
    return compose(signals, values, method, budget_rows, seed=recipe.seed, text_policy=recipe.text_policy)


def composed_inputs(
    ctx: Context, recipe: RecipeSettings, sources: Sources
) -> tuple[StoreSignals, NDArray[np.float64], Composition]:
    """What a composed method selects from: signals, the score of every row [n] (NaN: none), the method."""
    signals = StoreSignals(ctx, sources.pointers)
    table = ctx.store.read(sources.of(method_scores.TABLE), ["sample_id", "value"]).sort_by("sample_id")
    if table["sample_id"].to_pylist() != signals.sample_ids:
        raise SelectionError(f"the scores of dataset {recipe.dataset} are not of its present rows; score it again")
    values = pc.fill_null(table["value"], np.nan).to_numpy()
    return signals, values, composition(ctx.project, recipe)


def _presel(ctx: Context, recipe: RecipeSettings, sources: Sources, budget_rows: int) -> SelectionResult:
    tasks = ctx.store.read(sources.of("presel_tasks"), ["task", "difficulty"])
    rows = presel_rows(ctx.store.read(sources.of("presel_scores")))
    difficulty = dict(zip(tasks["task"].to_pylist(), tasks["difficulty"].to_pylist(), strict=True))
    options = PreselOptions.model_validate(recipe.options)
    return presel_select(rows, budget_rows, difficulty, options, seed=recipe.seed, mode=recipe.mode)


def presel_rows(table: pa.Table) -> PreselRows:
    """The rows of `presel_scores` as PreSel takes them."""
    return PreselRows(
        table["sample_id"].to_pylist(),
        table["task"].to_pylist(),
        table["image_id"].to_pylist(),
        np.array(table["is_reference"].to_pylist(), np.bool_),
        np.array(pc.fill_null(table["cluster"], -1).to_pylist(), np.int32),
        np.array([np.nan if v is None else v for v in table["typicality"].to_pylist()], np.float64),
    )


def run(ctx: Context, name: str) -> StageResult:
    """Select, and publish rows, budgets, manifest, training file and page."""
    start = time.perf_counter()
    recipe = ctx.project.recipe(name)
    wanted = inputs(ctx, name)
    sources = present_sources(ctx, recipe)
    result = select_rows(ctx, recipe, sources)
    positions = _first_positions(ctx, sources.manifest)
    rows = _row_table(result, positions, recipe.rounds)
    lineage: dict[str, Any] = {
        "input_fingerprint": wanted.fingerprint,
        "inputs": wanted.references,
        "code_version": SELECTION_CODE,
        "run_id": ctx.run_id,
    }
    tasks = ctx.store.publish("selected_tasks", {"recipe": name}, _task_table(result), **lineage)
    with tempfile.TemporaryDirectory() as directory:
        training_file = _write_products(ctx, name, recipe, sources, result, positions, wanted, Path(directory))
        _write_page(ctx, name, result, rows, training_file, Path(directory))
        artifact = ctx.store.publish_artifact("selection", {"recipe": name}, Path(directory), **lineage)
    # Last, so that whoever sees the rows finds everything that belongs to them.
    pointer = publish_checked(ctx, "selected_subset", {"recipe": name}, rows, **lineage)
    if ctx.store.files.is_local:
        publish_catalog_file(ctx.store)
    record_rate(ctx, "selected_subset", "", pointer.rows, time.perf_counter() - start)
    return StageResult(
        "selected_subset",
        {"recipe": name},
        pointer.data_version,
        pointer.rows,
        seconds=time.perf_counter() - start,
        references=[pointer.reference, tasks.reference, artifact.reference],
        metadata={"shortfall": result.shortfall, "dataset": recipe.dataset, "method": recipe.method},
    )


def _first_positions(ctx: Context, manifest: Pointer) -> dict[str, int]:
    table = ctx.store.read(manifest, ["sample_id", "position", "is_duplicate"])
    table = table.filter(pc.invert(table["is_duplicate"]))
    return dict(zip(table["sample_id"].to_pylist(), table["position"].to_pylist(), strict=True))


def _row_table(result: SelectionResult, positions: dict[str, int], rounds: int) -> pa.Table:
    ends = [found.rows for found in split_rounds(result, rounds)]
    names = [field.name for field in fields(SelectedRow)]
    columns: dict[str, list[Any]] = {name: [getattr(row, name) for row in result.rows] for name in names}
    columns["position"] = [positions[sample] for sample in columns["sample_id"]]
    columns["round"] = [bisect_left(ends, rank) + 1 for rank in columns["rank"]]
    schema = TABLES["selected_subset"].arrow_schema()
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)


def _task_table(result: SelectionResult) -> pa.Table:
    records = [
        {
            "task": t.task,
            "n_available": t.available,
            "n_reference": t.reference,
            "difficulty": t.importance,
            "weight": t.weight,
            "budget": t.budget,
            "n_selected": t.selected,
        }
        for t in result.tasks
    ]
    return pa.Table.from_pylist(records, schema=TABLES["selected_tasks"].arrow_schema())


def _write_products(
    ctx: Context,
    name: str,
    recipe: RecipeSettings,
    sources: Sources,
    result: SelectionResult,
    positions: dict[str, int],
    wanted: Inputs,
    directory: Path,
) -> str:
    """Write training file and manifest; returns the training file's name."""
    chosen = {positions[row.sample_id] for row in result.rows}
    rows = dict(source_rows(ctx, recipe.dataset, sources.manifest, chosen))
    suffix = write_source_format(ctx, recipe.dataset, (rows[p] for p in sorted(rows)), directory / "selected")
    entries = [
        ManifestRow(r.rank, r.sample_id, positions[r.sample_id], r.reason, row_hash(rows[positions[r.sample_id]]))
        for r in result.rows
    ]
    manifest = build_manifest(
        entries,
        settings={
            "recipe": name,
            "settings": recipe.model_dump(mode="json"),
            "dataset": recipe.dataset,
            "format": ctx.project.dataset(recipe.dataset).format,
            "training_file": f"selected{suffix}",
        },
        lineage={
            "input_fingerprint": wanted.fingerprint,
            "inputs": [p.reference for p in sources.pointers],
            "signals": sorted({p.fingerprint for p in ctx.store.pointers("image_embeddings")}),
        },
    )
    (directory / "manifest.json").write_bytes(orjson.dumps(manifest, option=orjson.OPT_INDENT_2))
    return f"selected{suffix}"


def _write_page(
    ctx: Context, name: str, result: SelectionResult, rows: pa.Table, training_file: str, directory: Path
) -> None:
    from vsel_platform.reports.html import selection_page
    from vsel_platform.reports.selection_report import selection_report

    files = {"Manifest": "manifest.json", "Training file": training_file}
    report = selection_report(ctx, name, rows, _task_table(result), notes=result.notes, files=files)
    (directory / "page.html").write_text(selection_page(report), "utf-8")


def select_again(ctx: Context, manifest: dict[str, Any]) -> list[SelectedRow]:
    """The rows of a manifest's selection, made from the states of the store that it names.

    Raises VerificationError if it names none or lacks the recipe, StorageError if a state is not in the store.
    """
    try:
        recipe = RecipeSettings.model_validate(manifest["settings"])
        references = [parse_reference(reference) for reference in manifest["inputs"]]
    except (KeyError, TypeError, ValueError) as error:
        raise VerificationError(f"the manifest has no recipe or no inputs to select again from: {error}") from error
    pointers = [read_version(ctx.store.files, key, version) for key, version in references]
    if not any(pointer.table == "manifest" for pointer in pointers):
        raise VerificationError(f"the manifest names no state of dataset {recipe.dataset} to select again from")
    if recipe.budget.gpu_hours is not None:
        # The rate may have changed since; as many rows as then.
        recipe = recipe.model_copy(update={"budget": Budget(rows=len(manifest["rows"]))})
    return select_rows(ctx, recipe, Sources(pointers)).rows


def export_selection(ctx: Context, recipe: str, target: Path, manifest: Path | None) -> int:
    """Copy a selection's training file (and manifest) out of the store; returns the number of rows."""
    ctx.project.recipe(recipe)  # raises for one that the project file has not
    pointer = ctx.store.require("selection", {"recipe": recipe})
    for file in pointer.files:
        name = file.path.rsplit("/", 1)[1]
        if name == "manifest.json" and manifest is not None:
            _copy(ctx, file.path, manifest)
        elif name.startswith("selected"):
            _copy(ctx, file.path, target)
    return ctx.store.require("selected_subset", {"recipe": recipe}).rows


def _copy(ctx: Context, source: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.part")
    temporary.write_bytes(ctx.store.files.read(source))
    temporary.replace(target)
