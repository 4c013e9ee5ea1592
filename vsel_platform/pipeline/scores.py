"""Stage `presel_scores`: relevance, clusters and typicality of a dataset, from the stored signals."""

import math
import time
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from vsel_platform.methods.presel import PreselOptions, PreselRows, presel_score, relevance_of_losses
from vsel_platform.pipeline import embeddings, losses
from vsel_platform.pipeline.context import Context, Inputs, StageResult, inputs_of
from vsel_platform.pipeline.lookup import distinct_contents
from vsel_platform.pipeline.reference import first_images
from vsel_platform.storage.pointers import Pointer
from vsel_platform.tables import TABLES

SCORE_CODE = "presel_scores-1"


def modes(ctx: Context, dataset: str) -> list[str]:
    """Modes that the recipes of a dataset use; `default` if there is none."""
    used = {r.mode for r in ctx.project.recipes.values() if r.dataset == dataset and r.method == "presel"}
    return sorted(used) or ["default"]
