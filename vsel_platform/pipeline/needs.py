"""Signals that methods need: which stage makes each, and which states of the store hold it for a dataset."""

from collections.abc import Sequence

from vsel_platform.errors import NotMaterializedError
from vsel_platform.methods.api import Clustering, Need
from vsel_platform.pipeline import (
    attention,
    base_losses,
    clustering,
    embeddings,
    hidden_states,
    moments,
    representations,
    text_embeddings,
)
from vsel_platform.pipeline.context import Context
from vsel_platform.pipeline.lookup import dataset_shards
from vsel_platform.storage.pointers import Pointer


def need_pointers(
    ctx: Context, dataset: str, needs: Sequence[Need], clusterings: Sequence[Clustering] = ()
) -> list[Pointer]:
    """Present states of the signals of a dataset. Raises NotMaterializedError while one is missing."""
    shards = dataset_shards(ctx, dataset)
    found = [ctx.store.require("samples", {"shard": shard}) for shard in shards]
    found += [ctx.store.require(clustering.TABLE, clustering.partition(dataset, c)) for c in clusterings]
    for need in needs:
        if need == "base_losses":
            found += [ctx.store.require("losses", base_losses.partition(ctx, shard)) for shard in shards]
        elif need == "image_embeddings":
            found += [ctx.store.require(need, embeddings.partition(ctx, shard)) for shard in shards]
        elif need == "text_embeddings":
            found += [ctx.store.require(need, text_embeddings.STAGE.partition(ctx, shard)) for shard in shards]
        elif need == "attention_maps":
            found += [ctx.store.require(need, key) for shard in shards for key in attention.partitions(ctx, shard)]
        elif need == "vision_representations":
            found += [ctx.store.require(need, representations.STAGE.partition(ctx, shard)) for shard in shards]
        elif need == "hidden_states":
            found += [ctx.store.require(need, hidden_states.STAGE.partition(ctx, shard)) for shard in shards]
        elif need == "representation_moments":
            if not moments.is_current(ctx, dataset):
                raise NotMaterializedError(f"representation_moments of dataset {dataset} are not of its present rows")
            found.append(ctx.store.require(need, moments.partition(ctx, dataset)))
    return found
