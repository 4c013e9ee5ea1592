"""What bringing recipes up to date would cost, before anything is spent."""

from dataclasses import asdict, dataclass, field
from typing import Any

from vsel_platform.errors import VselError
from vsel_platform.pipeline import embeddings, ingest
from vsel_platform.pipeline.context import Context
from vsel_platform.pipeline.lookup import dataset_shards, distinct_contents
from vsel_platform.pipeline.plan import Step, next_steps


@dataclass(frozen=True)
class Line:
    """One stage: partitions and contents to compute, model passes, bytes to read, and the time if it is known."""

    stage: str
    partitions: int
    rows: int
    model_passes: int
    n_bytes: int
    seconds: float | None


@dataclass(frozen=True)
class Estimate:
    """What would be computed. `seconds` of a stage come from the rate of its last run in this store, or are None."""

    recipes: list[str]
    lines: list[Line] = field(default_factory=list)
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    def to_text(self) -> str:
        """A table for people."""
        if not self.lines:
            return f"{', '.join(self.recipes)}: everything is current; nothing would be computed"
        head = f"{'stage':22} {'partitions':>10} {'rows':>12} {'model passes':>13} {'bytes':>15} {'time':>10}"
        body = [
            f"{line.stage:22} {line.partitions:>10,} {line.rows:>12,} {line.model_passes:>13,} {line.n_bytes:>15,} "
            + (f"{line.seconds:>8,.0f} s" if line.seconds is not None else f"{'unknown':>10}")
            for line in self.lines
        ]
        return "\n".join([head, *body, *([self.note] if self.note else [])])


def estimate(ctx: Context, recipes: list[str], *, train: bool) -> Estimate:
    """Costs of the stale stages. Stages behind a stale dataset can only be named, not counted, until it is read."""
    steps = next_steps(ctx, recipes, train=train)
    if not steps:
        return Estimate(recipes)
    line = _line(ctx, steps)
    note = f"{line.stage} comes first; what follows it is counted when it is done"
    return Estimate(recipes, [line, *_signals_of_present_data(ctx, recipes, line.stage)], note)


def _line(ctx: Context, steps: list[Step]) -> Line:
    stage = steps[0].asset
    counts = [_rows(ctx, stage, step.key) for step in steps]
    rows = sum(rows for rows, _ in counts)
    passes = {"image_embeddings": 1, "losses": 2, "evaluation": 1}.get(stage, 0)
    return Line(stage, len(steps), rows, rows * passes, sum(b for _, b in counts), _seconds(ctx, stage, rows))


def _rows(ctx: Context, stage: str, key: str) -> tuple[int, int]:
    """Contents and bytes of one partition that would be computed."""
    if stage == "image_embeddings":
        table = ctx.store.read_partition("images", {"shard": key}, ["image_id", "n_bytes"])
        name = embeddings.partition(ctx, key)["fingerprint"]
        known = ctx.vectors.existing_ids(embeddings.SIGNAL, name, table["image_id"].to_pylist())
        new = [
            n or 0
            for i, n in zip(table["image_id"].to_pylist(), table["n_bytes"].to_pylist(), strict=True)
            if i not in known
        ]
        return len(new), sum(new)
    if stage == "dataset_manifest":
        return 0, ingest.observe_source(ctx, key).n_bytes
    if stage in ("finetuned_checkpoint", "selected_subset", "evaluation"):
        pointer = ctx.store.pointer("selected_subset", {"recipe": key})
        return (pointer.rows if pointer else 0), 0
    if stage in ("reference_model", "reference_subset", "presel_scores"):
        _, contents = distinct_contents(ctx, key)
        share = ctx.project.reference.fraction if stage == "reference_model" else 1.0
        return round(len(contents) * share), 0
    pointer = ctx.store.pointer("samples", {"shard": key})
    return round((pointer.rows if pointer else 0) * ctx.project.reference.fraction), 0


def _seconds(ctx: Context, stage: str, rows: int) -> float | None:
    """Time at the rate of the stage's last run, None if the store has no such run."""
    rates = [
        float(p.metadata["seconds"]) / p.rows
        for p in ctx.store.pointers(stage if stage != "dataset_manifest" else "manifest")
        if p.rows and "seconds" in p.metadata
    ]
    return rows * rates[-1] if rates else None


def _signals_of_present_data(ctx: Context, recipes: list[str], stage: str) -> list[Line]:
    """Embeddings that are missing behind an earlier stale stage, as far as the stored data tells."""
    if stage in ("dataset_manifest", "image_embeddings"):
        return []
    try:
        shards = {s for name in recipes for s in dataset_shards(ctx, ctx.project.recipe(name).dataset)}
    except VselError:
        return []
    missing = [Step("image_embeddings", shard, "") for shard in sorted(shards) if not embeddings.is_current(ctx, shard)]
    return [_line(ctx, missing)] if missing else []
