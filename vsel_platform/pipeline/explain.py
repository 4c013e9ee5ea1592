"""Why a row is in a selection or out of it, and what would change that."""

from dataclasses import asdict, dataclass, field
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from vsel_platform.config import RecipeSettings
from vsel_platform.errors import SelectionError
from vsel_platform.methods.explain import standing
from vsel_platform.methods.presel import PreselOptions
from vsel_platform.pipeline import method_scores, scores
from vsel_platform.pipeline.context import Context
from vsel_platform.pipeline.selection import composed_inputs, presel_rows, present_sources
from vsel_platform.selection.explain import explain


@dataclass(frozen=True)
class Explanation:
    """Facts about one row under one recipe, and what they mean."""

    recipe: str
    sample_id: str
    selected: bool
    facts: dict[str, Any] = field(default_factory=dict)
    sentences: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    def to_text(self) -> str:
        """For people."""
        head = f"{self.sample_id}  {'SELECTED' if self.selected else 'not selected'} by {self.recipe}"
        facts = [f"  {name:24} {_show(value)}" for name, value in self.facts.items()]
        return "\n".join([head, *facts, "", *self.sentences])


def _show(value: Any) -> str:
    if value is None:
        return "NULL"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def find_row(ctx: Context, dataset: str, name: str) -> dict[str, Any]:
    """Manifest row by sample_id (a unique prefix of 4 or more), source id, or `position:N`.

    Raises SelectionError if there is none or more than one.
    """
    table = ctx.store.read_partition("manifest", {"dataset": dataset})
    if name.startswith("position:"):
        number = name.removeprefix("position:")
        if not number.isdecimal():
            raise SelectionError(f"{name!r}: {number!r} is no position; give position:N with a number from 0")
        mask = pc.equal(table["position"].cast(pa.string()), number)
    else:
        by_source = pc.is_in(table["source_id"], pa.array([name, orjson.dumps(name).decode()]))
        prefix = pc.starts_with(table["sample_id"], name) if len(name) >= 4 else pc.equal(table["sample_id"], name)
        mask = pc.or_(pc.fill_null(by_source, False), prefix)
    found = table.filter(mask).to_pylist()
    if not found:
        raise SelectionError(
            f"dataset {dataset}: no accepted row is named {name!r}; give a sample_id (4 characters or more of its "
            "beginning are enough), a source id, or position:N"
        )
    if len({row["sample_id"] for row in found}) != 1:
        raise SelectionError(
            f"dataset {dataset}: {name!r} names {len(found)} rows; give more of the sample_id, or position:N, "
            f"here N = {', '.join(str(row['position']) for row in found[:5])}{', ...' if len(found) > 5 else ''}"
        )
    return dict(found[0])


def explain_row(ctx: Context, recipe: str, name: str) -> Explanation:
    """Explain one row. Raises SelectionError if it is unknown, NotMaterializedError before the first selection."""
    settings = ctx.project.recipe(recipe)
    row = find_row(ctx, settings.dataset, name)
    selected = ctx.store.read_partition("selected_subset", {"recipe": recipe}).to_pylist()
    mine = next((s for s in selected if s["sample_id"] == row["sample_id"]), None)
    tasks = ctx.store.read_partition("selected_tasks", {"recipe": recipe}).to_pylist()
    task: dict[str, Any] = next((t for t in tasks if t["task"] == row["task"]), {})
    facts: dict[str, Any] = {
        "dataset": settings.dataset,
        "position": row["position"],
        "task": row["task"],
        "rank": mine["rank"] if mine else None,
        "round": mine["round"] if mine else None,
        "reason": mine["reason"] if mine else None,
    }
    for column in ("difficulty", "weight", "budget", "n_available", "n_selected"):
        facts[f"task {column}"] = task.get(column)
    if settings.method == "presel":
        more, sentences = _presel(ctx, settings, row["sample_id"], selected)
    elif settings.method == "random":
        more, sentences = {}, [_random_sentence(mine, row, task)]
    else:
        more, sentences = _composed(ctx, settings, row["sample_id"], selected)
    return Explanation(recipe, row["sample_id"], mine is not None, facts | more, sentences)


def _random_sentence(mine: dict[str, Any] | None, row: dict[str, Any], task: dict[str, Any]) -> str:
    share = f"task {row['task']} gets {task.get('n_selected', 0)} of its {task.get('n_available', 0)} rows"
    if mine:
        return f"Drawn by the stable hash of its identity and the recipe's seed: {share}."
    return f"Not drawn: {share}, in the order of a stable hash. Another seed or a larger budget would change it."


def _composed(
    ctx: Context, recipe: RecipeSettings, sample_id: str, selected: list[dict[str, Any]]
) -> tuple[dict[str, Any], list[str]]:
    signals, values, method = composed_inputs(ctx, recipe, present_sources(ctx, recipe))
    found = standing(signals, values, method, {row["sample_id"] for row in selected}, sample_id)
    table = ctx.store.read(present_sources(ctx, recipe).of(method_scores.TABLE), ["sample_id", "details"])
    details = table.filter(pc.equal(table["sample_id"], sample_id))["details"].to_pylist()[0]
    facts: dict[str, Any] = {
        "score": found.score,
        **(orjson.loads(details) if details else {}),
        "competes in": found.group,
        "place by score": found.place,
        "rows competing": found.available,
        "of them selected": found.taken,
        "lowest score taken": found.cut,
    }
    return facts, [found.sentence]


def _presel(
    ctx: Context, recipe: RecipeSettings, sample_id: str, selected: list[dict[str, Any]]
) -> tuple[dict[str, Any], list[str]]:
    table = ctx.store.read_partition("presel_scores", scores.partition(recipe.dataset, recipe.mode))
    relevance = table.filter(pc.equal(table["sample_id"], sample_id))["relevance"].to_pylist()
    taken = {row["sample_id"] for row in selected}
    found = explain(presel_rows(table), taken, sample_id, PreselOptions.model_validate(recipe.options))
    facts = {
        "cluster": found.cluster,
        "cluster rows available": found.cluster_available,
        "cluster rows selected": found.quota,
        "typicality": found.typicality,
        "place in cluster": found.place,
        "lowest typicality taken": found.cut,
        "instruction relevance": relevance[0] if relevance else None,
    }
    return facts, [found.sentence]
