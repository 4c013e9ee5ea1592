"""Every method's selection over the rows of LLaVA-665K with stored signals: seconds and peak memory per method.

A store of synthetic signals is written first (`method_store.py`), which does not count. Then the stages that a run has
from there, each in a process of its own, one after the other: `representation_moments`, `clusters`, `presel_scores`,
each score once, and the selection of every method, 15 % of the rows, with its manifest, training file and page.
Reading from the store and publishing are in the time, and so is the start of each process. ScalSelect as released is
left out: it decomposes the matrix of all rows at once.

    python benchmarks/bench_methods.py                  # 665,298 rows: under 20 minutes and 8 GiB
    python benchmarks/bench_methods.py --rows 20000     # the same checks; the limits are printed, not required

Exit status 1 if a selection is wrong (fewer rows than the budget without a shortfall, a row twice, a failed check of
the tables; of perplexity, EL2N and random: other rows than those told by the definition), if a clustering is computed
more than once, or, at full size, if a limit is missed.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from method_store import DATASET, write_store

from vsel_platform.config import Project
from vsel_platform.methods.presets import METHODS, OWN_PIPELINE
from vsel_platform.methods.registry import composition
from vsel_platform.pipeline import clustering, lookup, method_scores, moments, scores, selection
from vsel_platform.pipeline.context import Context, StageResult
from vsel_platform.pipeline.method_signals import StoreSignals
from vsel_platform.pipeline.needs import need_pointers
from vsel_platform.selection.stable_hash import stable_uniform

ROWS = 665_298
LIMIT_S, LIMIT_GIB = 20 * 60.0, 8.0
PERCENT = 15.0
# Full singular value decompositions of all rows by definition: `bench_leverage.py` measures what these cost.
LEFT_OUT = ("scalselect_released",)
ALL = [name for name in (*METHODS, *OWN_PIPELINE) if name not in LEFT_OUT]
COMPOSED = {name: METHODS[name] for name in ALL if name in METHODS}
WRITE, MOMENTS, CLUSTERS, PRESEL, CHECK = "write", "representation_moments", "clusters", "presel_scores", "check"


def make_project(folder: Path) -> Project:
    """A project with a recipe for each method, named like it."""
    source = folder / "rows.json"
    source.write_bytes(orjson.dumps([{"id": "0", "conversations": []}]))
    encoder = {"model": "a CLIP checkpoint", "feature": "joint"}
    recipes = {
        name: {"dataset": DATASET, "method": name, "budget": {"percent": PERCENT}, "train": False} for name in ALL
    }
    return Project.model_validate(
        {
            "name": "methods",
            "store": str(folder / "store"),
            "datasets": {DATASET: {"source": str(source), "task": {"column": "task"}}},
            "second_vlm": {"model": "another"},
            "image_encoder": encoder,
            "text_encoder": encoder,
            "recipes": recipes,
        }
    )


@dataclass(frozen=True)
class Spent:
    """One process: seconds of its work, seconds in all, seconds of processors, peak of resident memory [GiB]."""

    stage: str
    seconds: float
    wall: float = 0.0
    cpu: float = 0.0
    gib: float = 0.0
    computed: int = 0
    problems: list[str] = field(default_factory=list)


def stages() -> list[str]:
    """Stages in the order of a run; a score that several methods use is there once."""
    return [MOMENTS, CLUSTERS, PRESEL, *score_names(), *ALL]


def score_names() -> list[str]:
    """Stages of the scores that the methods use."""
    return list(dict.fromkeys(method_scores.stage_name(str(method.score)) for method in COMPOSED.values()))


def run_stage(ctx: Context, stage: str) -> StageResult:
    """One stage of the engine."""
    if stage == MOMENTS:
        return moments.run(ctx, DATASET)
    if stage == CLUSTERS:
        return clustering.run(ctx, DATASET)
    if stage == PRESEL:
        return scores.run(ctx, DATASET)
    if stage in ALL:
        return selection.run(ctx, stage)
    return method_scores.run(ctx, stage.removesuffix(method_scores.SUFFIX), DATASET)


def work(folder: Path, rows: int, stage: str) -> Spent:
    """What a process does."""
    ctx = Context(make_project(folder))
    start = time.perf_counter()
    computed, problems = 0, list[str]()
    if stage == WRITE:
        write_store(ctx.project, rows)
    elif stage == CHECK:
        problems = check(ctx, rows)
    else:
        computed = run_stage(ctx, stage).computed
    seconds, used = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    cpu, gib = used.ru_utime + used.ru_stime, used.ru_maxrss / 2**20
    return Spent(stage, seconds, cpu=cpu, gib=gib, computed=computed, problems=problems)


def measured(folder: Path, rows: int, stage: str) -> Spent:
    """One stage in a process of its own."""
    command = [sys.executable, __file__, "--rows", str(rows), "--folder", str(folder), "--stage", stage]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    start = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{stage} failed with exit code {done.returncode}")
    return Spent(**json.loads(done.stdout.splitlines()[-1]) | {"wall": time.perf_counter() - start})


def check(ctx: Context, rows: int) -> list[str]:
    """What is wrong with the selections, one line each."""
    problems = [problem for name in ALL for problem in check_selection(ctx, name, rows)]
    found = lookup.distinct_contents(ctx, DATASET)
    manifest, tasks = found[0], {row.sample_id: row.task for row in found[1]}
    signals = StoreSignals(ctx, [manifest, *need_pointers(ctx, DATASET, ["base_losses"])])
    losses = signals.losses("full")
    for name, values in (("perplexity", losses.mean), ("el2n", losses.el2n)):
        order = np.lexsort((np.arange(rows), -values.round(6)))[: int(rows * PERCENT / 100)]
        if chosen(ctx, name) != [signals.sample_ids[i] for i in order]:
            problems.append(f"{name}: not the rows with the highest values in their order")
    problems += check_random(chosen(ctx, "random"), tasks)
    made = [pointer.partition["clustering"] for pointer in ctx.store.pointers(clustering.TABLE)]
    wanted = {c.name for name in COMPOSED for c in composition(ctx.project, ctx.project.recipe(name)).clusterings}
    if sorted(made) != sorted(wanted):
        problems.append(f"clusterings {made}, wanted {sorted(wanted)}")
    if clustering.run(ctx, DATASET).computed:
        problems.append("a second run makes clusterings again")
    return problems


def check_selection(ctx: Context, name: str, rows: int) -> list[str]:
    """What is wrong with one selection whatever its method."""
    pointer = ctx.store.pointer("selected_subset", {"recipe": name})
    if pointer is None or pointer.quality != "ok":
        return [f"{name}: {'missing' if pointer is None else pointer.quality}"]
    ids = chosen(ctx, name)
    budget = int(rows * PERCENT / 100)
    if len(set(ids)) != len(ids) or not 0 < len(ids) <= budget or (len(ids) < budget and name != "semdedup"):
        return [f"{name}: {len(ids)} rows, {len(set(ids))} distinct, budget {budget}"]
    return []


def check_random(ids: list[str], tasks: dict[str, str]) -> list[str]:
    """A stratified draw takes the same share of each task, within a row, by the smallest stable numbers."""
    uniform = dict(zip(tasks, stable_uniform(12345, list(tasks)), strict=True))
    inside = set(ids)
    problems = []
    for task in sorted(set(tasks.values())):
        ordered = sorted((i for i in tasks if tasks[i] == task), key=uniform.__getitem__)
        taken = sum(i in inside for i in ordered)
        if set(ordered[:taken]) - inside or abs(taken - len(ordered) * len(ids) / len(tasks)) > 1:
            problems.append(f"random: {task}: {taken} of {len(ordered)} rows, or not those with the smallest numbers")
    return problems


def chosen(ctx: Context, name: str) -> list[str]:
    """Selected ids in the order of their ranks."""
    table: pa.Table = ctx.store.read_partition("selected_subset", {"recipe": name}, ["sample_id", "rank"])
    ids: list[str] = table["sample_id"].take(pc.sort_indices(table["rank"])).to_pylist()
    return ids


def report(spent: dict[str, Spent], rows: int) -> bool:
    """Print the table; whether all is well."""
    print(f"\n{'stage':28}{'seconds':>9}{'GiB':>7}")
    for stage in [MOMENTS, CLUSTERS, PRESEL, *score_names()]:
        users = ", ".join(method for method in COMPOSED if score_stage(method) == stage)
        print(f"{stage:28}{spent[stage].wall:9.1f}{spent[stage].gib:7.2f}  {users}")
    print(f"\n{'method':28}{'score':>9}{'select':>9}{'both':>9}{'GiB':>7}")
    for method in ALL:
        before = spent[score_stage(method)] if score_stage(method) else Spent("", 0.0)
        own = spent[method]
        both, gib = before.wall + own.wall, max(before.gib, own.gib)
        print(f"{method:28}{before.wall:9.1f}{own.wall:9.1f}{both:9.1f}{gib:7.2f}")
    total, cpu = (sum(values) for values in zip(*((one.wall, one.cpu) for one in spent.values()), strict=True))
    peak = max(one.gib for one in spent.values())
    print(f"\nall {len(ALL)} selections of {rows:,} rows: {total:,.0f} s (limit {LIMIT_S:,.0f}), peak {peak:.2f} GiB")
    print(f"(limit {LIMIT_GIB:g}); shared scores and clusters count once; {cpu:,.0f} s of {os.cpu_count()} processors")
    print(f"left out: {', '.join(LEFT_OUT)}")
    return rows < ROWS or (total < LIMIT_S and peak < LIMIT_GIB)


def score_stage(method: str) -> str:
    """Stage that scores for a method; '' if none does."""
    if method in COMPOSED:
        return method_scores.stage_name(str(COMPOSED[method].score))
    return PRESEL if method == "presel" else ""


def compare(folder: Path, rows: int, only: list[str]) -> int:
    """Write the store if the folder has none, run the stages, check, print; 1 if something is wrong."""
    marker = folder / f"written-{rows}"
    if not marker.exists():
        found = measured(folder, rows, WRITE)
        marker.touch()
        print(f"store of {rows:,} rows written in {found.wall:.0f} s, {found.gib:.2f} GiB", flush=True)
    spent: dict[str, Spent] = {}
    for stage in only or stages():
        spent[stage] = measured(folder, rows, stage)
        one = spent[stage]
        print(f"{stage}: {one.wall:.1f} s ({one.cpu:.1f} s of processors), {one.gib:.2f} GiB", flush=True)
    if only:
        return 0
    problems = measured(folder, rows, CHECK).problems
    print("\n".join(problems) or "selections are right")
    return int(not report(spent, rows) or bool(problems))


def main() -> int:
    """Run all, or one stage for the process that measures it."""
    parser = argparse.ArgumentParser(description="every method's selection over stored signals")
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--folder", type=Path, help="keep the store here; it is used again if it is there")
    parser.add_argument("--only", nargs="*", default=[], help="these stages only, without checks")
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage:
        print(json.dumps(asdict(work(options.folder, options.rows, options.stage))))
        return 0
    if options.folder:
        options.folder.mkdir(parents=True, exist_ok=True)
        return compare(options.folder, options.rows, options.only)
    with tempfile.TemporaryDirectory() as name:
        return compare(Path(name), options.rows, options.only)


if __name__ == "__main__":
    sys.exit(main())
