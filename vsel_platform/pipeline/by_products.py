"""Vectors that a pass for losses gives besides: whoever computes the losses leaves them for the stages that store them.

A pass for losses runs the whole decoder on every row. What other signals of the same model need lies on its way, so a
shard whose losses are missing costs one pass and not one for each signal. A shallow signal alone stays shallow: its
own stage never runs deeper than it has to.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vsel_platform.methods.api import Need
from vsel_platform.methods.registry import needs_of
from vsel_platform.pipeline import hidden_states, representations
from vsel_platform.pipeline.context import Context
from vsel_platform.pipeline.lookup import dataset_shards
from vsel_platform.pipeline.models import confirm_weights
from vsel_platform.pipeline.vector_stage import VectorParts, VectorStage

if TYPE_CHECKING:
    from vsel_platform.models.vlm import VisionLanguageModel
    from vsel_platform.signals.row_vectors import RowVectors, Vectors

BY_PRODUCTS: dict[Need, VectorStage] = {
    "hidden_states": hidden_states.STAGE,
    "vision_representations": representations.STAGE,
}


@dataclass(frozen=True)
class ByProducts:
    """Vectors of a shard that are missing, by signal: the ids, and where the vectors go."""

    missing: Mapping[Need, set[str]]
    parts: Mapping[Need, VectorParts]

    def wanted(self, ctx: Context) -> "RowVectors | None":
        """What has to be taken from a pass; None for nothing."""
        from vsel_platform.signals.row_vectors import RowVectors

        signals = ctx.project.signals
        if not self.missing:
            return None
        return RowVectors(
            signals.hidden_layers if "hidden_states" in self.missing else None,
            signals.attention_share if "vision_representations" in self.missing else None,
        )

    def add(self, vectors: "Mapping[str, Vectors]") -> None:
        """Write vectors by row and signal: with the losses of their window, so that a killed job lacks no others."""
        for sample, own in vectors.items():
            for signal, ids in self.missing.items():
                if sample in ids and signal in own:
                    self.parts[signal].add(sample, own[signal])
        for parts in self.parts.values():
            parts.flush()


NOTHING = ByProducts({}, {})


def by_products(ctx: Context, shard: str, model: "VisionLanguageModel") -> ByProducts:
    """Vectors that recipes need and that the shard lacks."""
    stages = {need: stage for need, stage in BY_PRODUCTS.items() if _is_needed(ctx, need, shard)}
    missing = {need: set(stage.missing(ctx, shard)) for need, stage in stages.items()}
    missing = {need: ids for need, ids in missing.items() if ids}
    for need in missing:
        confirm_weights(ctx, stages[need].fingerprint(ctx), model.fingerprint)
    return ByProducts(missing, {need: stages[need].parts(ctx, shard) for need in missing})


def _is_needed(ctx: Context, need: Need, shard: str) -> bool:
    datasets = {r.dataset for r in ctx.project.recipes.values() if need in needs_of(ctx.project, r)}
    return any(ctx.store.pointer("manifest", {"dataset": d}) and shard in dataset_shards(ctx, d) for d in datasets)
