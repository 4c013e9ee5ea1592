"""Source files, the dataset's manifest, and what it brings into the store."""

from collections.abc import Iterator

import dagster as dg

from assets import checks, plots
from assets.reporting import materialized, spec_metadata
from automation.partitions import SHARDS, datasets, shards
from resources.failures import fails_in_words
from resources.project import ProjectResource
from vsel_platform.pipeline import ingest
from vsel_platform.pipeline.context import Context
from vsel_platform.pipeline.lookup import dataset_shards

GROUP = "samples"


@dg.asset(
    partitions_def=datasets,
    group_name=GROUP,
    kinds={"json"},
    code_version=ingest.SOURCE_CODE,
    description="The source file of a dataset as it lies on disk or S3: its size and fingerprint. "
    "It is the only thing that is edited by hand; everything below follows from it.",
)
@fails_in_words
def raw_annotations(context: dg.AssetExecutionContext, project: ProjectResource) -> dg.MaterializeResult:
    """Fingerprint of the source file."""
    source = ingest.observe_source(project.context(context.run_id), context.partition_key)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(source.content),
        metadata={"files": len(source.files), "bytes": source.n_bytes, "fingerprint": source.content},
    )


@dg.multi_asset(
    specs=[
        dg.AssetSpec(
            "dataset_manifest",
            deps=[raw_annotations],
            group_name=GROUP,
            kinds={"parquet"},
            code_version=ingest.MANIFEST_CODE,
            partitions_def=datasets,
            description="A dataset at a point in time: which content stands at which position. New content is cut "
            "into immutable shards; content that any dataset brought before is not stored or computed again.",
            metadata=spec_metadata("manifest"),
        ),
        dg.AssetSpec(
            "quarantine",
            deps=[raw_annotations],
            group_name=GROUP,
            kinds={"parquet"},
            code_version=ingest.MANIFEST_CODE,
            partitions_def=datasets,
            description="Source rows that were refused, each with position, reason and detail. Nothing vanishes.",
            metadata=spec_metadata("quarantine"),
        ),
    ],
    check_specs=[*checks.specs("dataset_manifest", "manifest"), *checks.specs("quarantine", "quarantine")],
    can_subset=False,
)
@fails_in_words
def ingested_dataset(context: dg.AssetExecutionContext, project: ProjectResource) -> Iterator[dg.MaterializeResult]:
    """Read, validate and identify the rows; register the new shards."""
    dataset = context.partition_key
    ctx = project.context(context.run_id)
    result = ingest.run(ctx, dataset)
    register_shards(context.instance, ctx, dataset)
    if "warning" in result.manifest.metadata:
        context.log.warning(result.manifest.metadata["warning"])
    for asset, table, stage, plot in (
        ("quarantine", "quarantine", result.quarantine, plots.quarantine),
        ("dataset_manifest", "manifest", result.manifest, plots.dataset),
    ):
        found = checks.results(ctx, asset, table, stage.references)
        yield materialized(ctx, stage, plot(ctx, dataset), asset=asset, check_results=found)


def register_shards(instance: dg.DagsterInstance, ctx: Context, dataset: str) -> None:
    """Add the partition keys of a dataset's shards that the instance lacks, and report what is stored for them.

    All shards, not only new ones: another instance, or the engine without one, may have made them.
    """
    known = set(instance.get_dynamic_partitions(SHARDS))
    fresh = [name for name in dataset_shards(ctx, dataset) if name not in known]
    if fresh:
        instance.add_dynamic_partitions(SHARDS, fresh)
    for name in fresh:
        for table in ("samples", "images"):
            pointer = ctx.store.require(table, {"shard": name})
            instance.report_runless_asset_event(
                dg.AssetMaterialization(
                    table,
                    partition=name,
                    metadata={
                        "dagster/row_count": pointer.rows,
                        "dagster/uri": ctx.store.files.url(f"tables/{pointer.key}"),
                        "bytes": sum(file.bytes for file in pointer.files),
                    },
                    tags={"dagster/data_version": pointer.data_version},
                )
            )


samples = dg.AssetSpec(
    "samples",
    deps=[dg.AssetDep("dataset_manifest", partition_mapping=dg.AllPartitionMapping())],
    group_name=GROUP,
    kinds={"parquet"},
    partitions_def=shards,
    description="Content of rows (conversation and image identities), once per distinct content. "
    "The ingest writes it; a shard never changes.",
    metadata=spec_metadata("samples"),
)

images = dg.AssetSpec(
    "images",
    deps=[dg.AssetDep("dataset_manifest", partition_mapping=dg.AllPartitionMapping())],
    group_name=GROUP,
    kinds={"parquet"},
    partitions_def=shards,
    description="Images, once per distinct file content: where the bytes lie, size, format. "
    "The ingest writes it together with the samples of the shard.",
    metadata=spec_metadata("images"),
)
