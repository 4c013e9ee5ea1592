"""PreSel's options and columns."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

Mode = Literal["default", "released"]


class PreselOptions(BaseModel):
    """Options of PreSel; the defaults are the paper's where it has one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    n_neighbours: int = Field(5, ge=1, description="Neighbours that typicality is the mean over.")
    cluster_fraction: float = Field(0.01, gt=0, le=1, description="Clusters per image of a task.")
    temperature: float = Field(0.0, ge=0, description="Softmax temperature; 0 = sqrt(1 / number of tasks).")
    min_reference_rows: int = Field(
        3, ge=1, description="A task with fewer finite relevances gets the mean difficulty of the other tasks."
    )
    unit: Literal["row", "image"] = Field("row", description="Select rows, or images with all their rows.")
    text_policy: Literal["proportional", "none", "all"] = Field(
        "proportional", description="Text-only rows: their share of the budget, none, or all of them."
    )
    released_budgets: Literal["llava", "vision_flan"] = Field(
        "llava", description="Budget rule of mode released: the one of its LLaVA or of its Vision-FLAN branch."
    )


@dataclass(frozen=True, slots=True)
class PreselRows:
    """Aligned columns, one entry per distinct row; NaN and -1 stand for missing.

    `is_reference` bool [n], `clusters` int32 [n] (inside the task), `typicality` float64 [n] (cosine).
    """

    sample_ids: Sequence[str]
    tasks: Sequence[str]
    image_ids: Sequence[str | None]
    is_reference: NDArray[np.bool_]
    clusters: NDArray[np.int32]
    typicality: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TaskScore:
    """Difficulty (mean instruction relevance) of a task, and how many finite relevances are behind it."""

    difficulty: float | None
    n_relevance: int


@dataclass(frozen=True, slots=True)
class ImageScores:
    """Cluster and typicality of images, by image id."""

    clusters: dict[str, int] = field(default_factory=dict)
    typicality: dict[str, float] = field(default_factory=dict)
