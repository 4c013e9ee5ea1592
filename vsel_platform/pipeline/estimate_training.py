"""What training, evaluating and comparing recipes would cost."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from vsel_platform.pipeline import evaluation, leaderboard, leakage, promotion, training
from vsel_platform.pipeline.benchmarks import Benchmark, evaluation_key, read_benchmark
from vsel_platform.pipeline.context import Context
from vsel_platform.pipeline.cost_lines import Line, is_stale, stage_line
from vsel_platform.pipeline.models import vlm_fingerprint
from vsel_platform.pipeline.question_costs import model_passes, require_images

SELF_QUESTIONING = "self-questioning is counted as if every text were as long as it may be: an upper bound"


@dataclass(frozen=True)
class Selections:
    """Recipes (those that a training goes on from stand first) with the rows that they select.

    selected: whose selection changes. embedded: the images of whose dataset get other embeddings.
    """

    rows: Mapping[str, int]
    selected: Collection[str]
    embedded: Collection[str]


def training_lines(ctx: Context, recipes: Selections) -> Iterator[Line | None]:
    """Lines of the stages from the search for leakage to the ruling about champions; None for one without work.

    Raises DataError if a benchmark cannot be read.
    """
    names = [name for name in recipes.rows if ctx.project.recipe(name).train]
    trained = _trained(ctx, names, recipes.selected)
    if names and ctx.project.benchmarks:
        yield _leakage(ctx, names, recipes)
    rows = sum(recipes.rows[name] for name in trained)
    passes = round(rows * ctx.project.training.lora.epochs)
    model = vlm_fingerprint(ctx.project.vlm)
    yield stage_line(ctx, "finetuned_checkpoint", len(trained), rows, passes=passes, model=model, units=passes)
    if names and ctx.project.benchmarks:
        judged = [
            (name, benchmark)
            for name in names
            for benchmark in ctx.project.benchmarks
            if name in trained or is_stale(ctx, evaluation.is_current, evaluation_key(name, benchmark))
        ]
        yield from _evaluations(ctx, judged, trained)
        yield _leaderboards(ctx, judged)
        yield _promotions(ctx, names, judged)


def _trained(ctx: Context, names: list[str], selected: Collection[str]) -> list[str]:
    """Recipes whose checkpoint changes; whatever goes on from one of them changes too."""
    found: list[str] = []
    for name in names:
        parent = ctx.project.recipe(name).training.continue_from
        if name in selected or parent in found or is_stale(ctx, training.checkpoint_is_current, name):
            found.append(name)
    return found


def _leakage(ctx: Context, names: list[str], recipes: Selections) -> Line | None:
    """Selected rows to look for benchmarks in. The images of a benchmark are embedded once, and not counted."""
    changed = {*recipes.selected, *recipes.embedded}
    stale = [name for name in names if name in changed or is_stale(ctx, leakage.is_current, name)]
    return stage_line(ctx, "leakage", len(stale), sum(recipes.rows[name] for name in stale))


def _evaluations(ctx: Context, judged: list[tuple[str, str]], trained: list[str]) -> Iterator[Line | None]:
    """Questions that models are asked; answers of the same model to the same questions are only judged again.

    Raises DataError if none of a benchmark's images is there.
    """
    found = {name: read_benchmark(ctx, name) for name in ctx.project.benchmarks}
    for benchmark in found.values():
        require_images(benchmark)
    stale = [name for name in found if is_stale(ctx, evaluation.base_is_current, name)]
    asked = [found[name] for name in stale if not evaluation.is_answered(ctx, None, name)]
    yield _asking(ctx, "base_evaluation", len(stale), asked)
    asked = [found[b] for name, b in judged if name in trained or not evaluation.is_answered(ctx, name, b)]
    yield _asking(ctx, "evaluation", len(judged), asked)


def _asking(ctx: Context, stage: str, partitions: int, asked: list[Benchmark]) -> Line | None:
    """Self-questioning benchmarks are counted as if all texts were as long as they may be."""
    rows = sum(len(benchmark.questions) for benchmark in asked)
    passes = sum(model_passes(benchmark) for benchmark in asked)
    model = vlm_fingerprint(ctx.project.vlm)
    return stage_line(
        ctx,
        stage,
        partitions,
        rows,
        passes=passes,
        model=model,
        units=passes,
        exact=passes == rows,
        note=SELF_QUESTIONING if passes > rows else "",
    )


def _leaderboards(ctx: Context, judged: list[tuple[str, str]]) -> Line | None:
    """Benchmarks with an evaluation that changes, or that changed since, with the recipes to compare."""
    partitions, rows = 0, 0
    for benchmark in ctx.project.benchmarks:
        anew = {name for name, own in judged if own == benchmark and leaderboard.takes_part(ctx, name)}
        if anew or is_stale(ctx, leaderboard.is_current, benchmark):
            present = leaderboard.compared_recipes(ctx, benchmark)
            partitions, rows = partitions + 1, rows + len({*present, *anew})
    return stage_line(ctx, "leaderboard", partitions, rows)


def _promotions(ctx: Context, names: list[str], judged: list[tuple[str, str]]) -> Line | None:
    stale = 0
    for name in names:
        champion = ctx.project.recipe(name).training.champion
        if champion is not None:
            sides = {(name, champion.benchmark), (champion.recipe, champion.benchmark)}
            stale += bool(sides & {*judged}) or is_stale(ctx, promotion.is_current, name)
    return stage_line(ctx, "promotion", stale, stale)
