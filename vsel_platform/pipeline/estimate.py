"""What bringing recipes up to date would cost, before anything is spent.

Stages whose inputs are all there are counted. Behind a stage that would change its output the counts are what the
present data and settings tell, and marked as estimates. Where reuse is not certain everything is counted; a changed
source is taken to keep the rows that it had.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

from vsel_platform.config import RecipeSettings
from vsel_platform.errors import SelectionError
from vsel_platform.methods.presets import OWN_PIPELINE
from vsel_platform.methods.registry import needs_of
from vsel_platform.pipeline import compare, embeddings, ingest, losses, reference, scores, selection
from vsel_platform.pipeline.context import Context
from vsel_platform.pipeline.cost_lines import Estimate, Line, is_stale, stage_line
from vsel_platform.pipeline.estimate_methods import DatasetForecast, method_costs, scores_change
from vsel_platform.pipeline.estimate_training import Selections, training_lines
from vsel_platform.pipeline.lookup import dataset_shards, distinct_contents
from vsel_platform.pipeline.models import embedding_fingerprint, vlm_fingerprint
from vsel_platform.pipeline.plan import with_trained
from vsel_platform.pipeline.trained import trained_on
from vsel_platform.samples.reading import SourceReader
from vsel_platform.samples.source import source_files, source_size

SAMPLE_BYTES = 1 << 20
CONDITIONS = 2


@dataclass
class _Forecast:
    """One dataset: rows it will have, rows that come and go, and which of its stages will give something new.

    The rows of a changed source are counted, not compared: it is taken to keep as many of the present ones as it can.
    """

    name: str
    rows: int = 0
    source_rows: int = 0
    new_rows: int = 0
    lost_rows: int = 0
    n_bytes: int = 0
    reference_rows: int = 0
    changed: bool = False
    embeddings_change: bool = False
    model_changes: bool = False
    scores_change: bool = False


def estimate(ctx: Context, recipes: list[str], *, train: bool) -> Estimate:
    """Costs of everything that is missing or stale for the recipes, in the order in which it would be computed.

    Reads pointers, ids and the first MiB of a changed source; no model is loaded. Raises DataError if a source is
    missing, NotMaterializedError if a dataset failed its checks.
    """
    named = {name: ctx.project.recipe(name) for name in (with_trained(ctx.project, recipes) if train else recipes)}
    datasets = {name: _forecast(ctx, name) for name in sorted({recipe.dataset for recipe in named.values()})}
    scored = [datasets[n] for n in sorted({r.dataset for r in named.values() if r.method == "presel"})]
    embedding = {r.dataset for r in named.values() if "image_embeddings" in needs_of(ctx.project, r)}
    lines = [
        _ingest(ctx, [forecast for forecast in datasets.values() if forecast.changed]),
        _embeddings(ctx, [datasets[n] for n in sorted(embedding)]),
        _subset(ctx, scored),
        _model(ctx, scored),
        _losses(ctx, scored),
        _scores(ctx, scored),
        *_methods(ctx, named, datasets),
        *_recipes(ctx, named, datasets, train=train),
    ]
    found = [line for line in lines if line is not None]
    marked = found[:1] + [replace(line, exact=False) for line in found[1:]]
    return Estimate(recipes, marked, older_checkpoints=0 if train else _older_checkpoints(ctx, named))


def _older_checkpoints(ctx: Context, named: dict[str, RecipeSettings]) -> int:
    trained = (trained_on(ctx, name, "finetuned_checkpoint") for name, recipe in named.items() if recipe.train)
    return sum(found is not None and found.is_earlier for found in trained)


def _methods(ctx: Context, named: dict[str, RecipeSettings], datasets: dict[str, _Forecast]) -> Iterator[Line | None]:
    for cost in method_costs(ctx, named, {name: _plain(ctx, forecast) for name, forecast in datasets.items()}):
        yield stage_line(
            ctx, cost.stage, cost.partitions, cost.rows, passes=cost.passes, model=cost.model, units=cost.units
        )


def _plain(ctx: Context, forecast: _Forecast) -> DatasetForecast:
    shard_rows = ctx.project.dataset(forecast.name).shard_rows
    shards = _shards(ctx, forecast)
    return DatasetForecast(forecast.name, forecast.rows, forecast.new_rows, shards, shard_rows, forecast.changed)


def _forecast(ctx: Context, name: str) -> _Forecast:
    present = _distinct_rows(ctx, name)
    if ingest.is_current(ctx, name):
        ctx.store.require("manifest", {"dataset": name})  # raises if its checks failed, and says which
        return _Forecast(name, rows=present)
    files = source_files(ingest.absolute_settings(ctx, name).source)
    rows = _rows_of_source(files)
    seen = _source_rows(ctx, name) if present else 0
    new, lost = max(0, rows - seen), max(0, seen - rows)
    return _Forecast(name, max(0, present + new - lost), rows, new, lost, n_bytes=source_size(files), changed=True)


def _distinct_rows(ctx: Context, dataset: str) -> int:
    return len(distinct_contents(ctx, dataset)[1]) if _is_there(ctx, "manifest", dataset) else 0


def _source_rows(ctx: Context, dataset: str) -> int:
    """Rows that the source had at the last ingest: with repeated rows, and with those that were refused."""
    pointers = [ctx.store.pointer(table, {"dataset": dataset}) for table in ("manifest", "quarantine")]
    return sum(pointer.rows for pointer in pointers if pointer is not None)


def _is_there(ctx: Context, table: str, dataset: str) -> bool:
    pointer = ctx.store.pointer(table, {"dataset": dataset})
    return pointer is not None and pointer.quality == "ok"


def _rows_of_source(files: list[str]) -> int:
    """Rows of the source if all are as long as those of its first MiB; exact if it is not longer than that."""
    reader = SourceReader(files, batch_bytes=SAMPLE_BYTES)
    batches = list(islice(reader.batches(), 2))
    counted = sum(len(batch) for batch in batches)
    if len(batches) < 2:
        return counted
    read = sum(len(getattr(batch, "data", b"")) for batch in batches) or reader.bytes_read
    return round(counted * source_size(files) / read)


def _ingest(ctx: Context, changed: list[_Forecast]) -> Line | None:
    rows = sum(forecast.source_rows for forecast in changed)
    n_bytes = sum(forecast.n_bytes for forecast in changed)
    return stage_line(ctx, "dataset_manifest", len(changed), rows, n_bytes=n_bytes, exact=False)


def _embeddings(ctx: Context, scored: list[_Forecast]) -> Line | None:
    """Images of known shards without an embedding, and one image for every new row."""
    name = embedding_fingerprint(ctx.project.image_encoder)
    stale: list[str] = []
    missing, n_bytes, n_known, known_bytes = 0, 0, 0, 0
    for shard in sorted({shard for forecast in scored for shard in _shards(ctx, forecast)}):
        table = ctx.store.read_partition("images", {"shard": shard}, ["image_id", "n_bytes"])
        sizes = dict(zip(table["image_id"].to_pylist(), table["n_bytes"].to_pylist(), strict=True))
        n_known, known_bytes = n_known + len(sizes), known_bytes + sum(size or 0 for size in sizes.values())
        if embeddings.is_current(ctx, shard):
            continue
        known = ctx.vectors.existing_ids(embeddings.SIGNAL, name, sorted(sizes))
        stale.append(shard)
        missing += len(sizes) - len(known)
        n_bytes += sum(size or 0 for image, size in sizes.items() if image not in known)
    for forecast in scored:
        forecast.embeddings_change = not {*stale}.isdisjoint(_shards(ctx, forecast))
    new = sum(forecast.new_rows for forecast in scored)
    partitions = len(stale) + sum(-(-f.new_rows // ctx.project.dataset(f.name).shard_rows) for f in scored)
    rows = missing + new
    size = n_bytes + new * known_bytes // n_known if n_known else None
    return stage_line(ctx, "image_embeddings", partitions, rows, passes=rows, n_bytes=size, model=name)


def _shards(ctx: Context, forecast: _Forecast) -> list[str]:
    return dataset_shards(ctx, forecast.name) if _is_there(ctx, "manifest", forecast.name) else []


def _subset(ctx: Context, scored: list[_Forecast]) -> Line | None:
    stale = []
    for forecast in scored:
        if forecast.changed or not reference.subset_is_current(ctx, forecast.name):
            stale.append(forecast)
            forecast.reference_rows = round(forecast.rows * ctx.project.reference.fraction)
        else:
            pointer = ctx.store.require("reference_subset", {"dataset": forecast.name})
            forecast.reference_rows = pointer.rows
    rows = sum(forecast.rows for forecast in stale)
    return stage_line(ctx, "reference_subset", len(stale), rows)


def _model(ctx: Context, scored: list[_Forecast]) -> Line | None:
    """Trained anew if its settings changed, or if the reference rows change by more than the project file allows."""
    for forecast in scored:
        forecast.model_changes = _model_changes(ctx, forecast)
    stale = [forecast for forecast in scored if forecast.model_changes]
    rows = sum(forecast.reference_rows for forecast in stale)
    return _trained(ctx, "reference_model", len(stale), rows, ctx.project.reference.lora.epochs)


def _model_changes(ctx: Context, forecast: _Forecast) -> bool:
    pointer = ctx.store.pointer("reference_model", {"dataset": forecast.name})
    if pointer is None or pointer.fingerprint != reference.model_settings_fingerprint(ctx):
        return True
    if not forecast.changed:
        # A subset that is drawn with other settings may differ in any number of rows.
        is_drawn = reference.subset_is_current(ctx, forecast.name)
        return not (is_drawn and reference.model_is_current(ctx, forecast.name))
    trained = int(pointer.metadata["rows"]) or 1
    drift = (forecast.new_rows + forecast.lost_rows) * ctx.project.reference.fraction / trained
    return drift > ctx.project.reference.refresh_growth


def _trained(ctx: Context, stage: str, partitions: int, rows: int, epochs: float) -> Line | None:
    passes = round(rows * epochs)
    model = vlm_fingerprint(ctx.project.vlm)
    return stage_line(ctx, stage, partitions, rows, passes=passes, model=model, units=passes)


def _losses(ctx: Context, scored: list[_Forecast]) -> Line | None:
    partitions, rows = 0, 0
    for forecast in scored:
        shards = _shards(ctx, forecast)
        if forecast.model_changes:
            partitions += len(shards) or 1
            rows += forecast.reference_rows
        elif forecast.changed:
            partitions += max(1, -(-forecast.new_rows // ctx.project.dataset(forecast.name).shard_rows))
            rows += round(forecast.new_rows * ctx.project.reference.fraction)
        else:
            missing = [len(_missing_losses(ctx, forecast.name, shard)) for shard in shards]
            stale = [not losses.is_current(ctx, shard) for shard in shards]
            partitions, rows = partitions + sum(stale), rows + sum(missing)
    passes = CONDITIONS * rows
    model = vlm_fingerprint(ctx.project.vlm)
    return stage_line(ctx, "losses", partitions, rows, passes=passes, model=model)


def _missing_losses(ctx: Context, dataset: str, shard: str) -> set[str]:
    wanted = set(losses.wanted_ids(ctx, dataset, shard))
    pointer = ctx.store.pointer("losses", losses.partition(ctx, dataset, shard))
    return wanted - set(ctx.store.read(pointer, ["sample_id"])["sample_id"].to_pylist()) if pointer else wanted


def _scores(ctx: Context, scored: list[_Forecast]) -> Line | None:
    for forecast in scored:
        forecast.scores_change = (
            forecast.changed or forecast.model_changes or is_stale(ctx, scores.is_current, forecast.name)
        )
    stale = [forecast for forecast in scored if forecast.scores_change]
    return stage_line(ctx, "presel_scores", len(stale), sum(forecast.rows for forecast in stale))


def _recipes(
    ctx: Context, named: dict[str, RecipeSettings], datasets: dict[str, _Forecast], *, train: bool
) -> Iterator[Line | None]:
    selected: dict[str, int] = {}
    rows_of: dict[str, int] = {}
    exact = True
    for name, recipe in named.items():
        forecast = datasets[recipe.dataset]
        if recipe.method in OWN_PIPELINE:
            upstream = forecast.scores_change if recipe.method == "presel" else forecast.changed
        else:
            upstream = scores_change(ctx, recipe, _plain(ctx, forecast))
        rows_of[name] = _budget_rows(ctx, name, recipe, forecast)
        if upstream or is_stale(ctx, selection.is_current, name):
            selected[name] = rows_of[name]
            exact = exact and recipe.budget.tokens is None
    yield stage_line(ctx, "selected_subset", len(selected), sum(selected.values()), exact=exact)
    yield _comparison(ctx, named, selected)
    if train:
        embedded = [name for name, recipe in named.items() if datasets[recipe.dataset].embeddings_change]
        yield from training_lines(ctx, Selections(rows_of, selected, embedded))


def _comparison(ctx: Context, named: dict[str, RecipeSettings], selected: dict[str, int]) -> Line | None:
    """Datasets whose selections change, or changed since they were compared, with the selections to compare."""
    partitions, rows = 0, 0
    for dataset in sorted({recipe.dataset for recipe in named.values()}):
        present = compare.compared_recipes(ctx, dataset) if _is_there(ctx, "manifest", dataset) else []
        anew = [name for name in selected if named[name].dataset == dataset]
        n = len({*present, *anew})
        if n > 1 and (anew or is_stale(ctx, compare.is_current, dataset)):
            partitions, rows = partitions + 1, rows + n
    return stage_line(ctx, compare.STAGE, partitions, rows)


def _budget_rows(ctx: Context, name: str, recipe: RecipeSettings, forecast: _Forecast) -> int:
    if recipe.budget.tokens is None:
        try:
            return min(forecast.rows, selection.budget_rows(ctx, recipe.budget, forecast.rows))
        except SelectionError:
            return forecast.rows
    stored = ctx.store.pointer("selected_subset", {"recipe": name})
    return stored.rows if stored else forecast.rows
