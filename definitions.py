"""Table of contents of the deployment."""

import warnings

import dagster as dg

warnings.filterwarnings("ignore", category=dg.BetaWarning)
warnings.filterwarnings("ignore", category=dg.PreviewWarning)

from assets import annotations, selections, signals, training  # noqa: E402  (after the warning filters)
from automation import jobs, schedules, sensors  # noqa: E402
from resources.compute import ComputeBackend  # noqa: E402
from resources.project import ProjectResource, project_file  # noqa: E402

_project = ProjectResource(path=str(project_file()))

defs = dg.Definitions(
    assets=[
        annotations.raw_annotations,
        annotations.ingested_dataset,
        annotations.samples,
        annotations.images,
        signals.image_embeddings,
        signals.text_embeddings,
        signals.vision_representations,
        signals.hidden_states,
        signals.attention_maps,
        signals.base_losses,
        signals.representation_moments,
        signals.reference_subset,
        signals.reference_model,
        signals.losses,
        selections.presel_scores,
        selections.clusters,
        *selections.METHOD_SCORES,
        selections.selected_subset,
        selections.method_comparison,
        training.leakage,
        training.finetuned_checkpoint,
        training.base_evaluation,
        training.evaluation,
        training.leaderboard,
        training.promotion,
    ],
    jobs=jobs.ALL,
    schedules=schedules.ALL,
    sensors=sensors.ALL,
    resources={"project": _project, "compute": ComputeBackend(project=_project)},
    # One step per run: a process of its own per step only costs start-up time; jobs isolate themselves.
    executor=dg.in_process_executor,
)
