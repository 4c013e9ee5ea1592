"""What a method is made of: score x quota x diversity, three independent choices, and the budget.

A score says how valuable a row is. A quota says in which groups rows compete, and what share of the budget each
group gets. A diversity rule picks a group's rows. A method of a paper is a named choice of the three.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from vsel_platform.config import Project
from vsel_platform.tables import Column

if TYPE_CHECKING:
    from vsel_platform.selection.leverage import Moments

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
Condition = Literal["full", "no_question", "no_image"]
Need = Literal[
    "base_losses", "image_embeddings", "text_embeddings", "vision_representations", "representation_moments",
    "hidden_states", "attention_maps",
]  # fmt: skip
TextPolicy = Literal["proportional", "none", "all"]


class Options(BaseModel):
    """Base of the options of scores, quotas and diversity rules; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Space = Literal["image_embeddings", "vision_representations", "hidden_states"]


@dataclass(frozen=True, slots=True)
class Clustering:
    """k-means of the rows' vectors in a space, each divided by its length; equal ones are computed once.

    n_clusters: 0 takes the square root of the number of rows.
    """

    space: Space = "image_embeddings"
    n_clusters: int = 0
    seed: int = 12345

    @property
    def name(self) -> str:
        """Name of the clustering in the table `clusters`."""
        return f"{self.space}-{self.n_clusters}-{self.seed}"


@dataclass(frozen=True, slots=True)
class Clusters:
    """Cluster of every row int64 [n] (-1: no vector), and the cosine to its centroid float64 [n] (NaN)."""

    labels: Indices
    cosine: Floats

    @property
    def n_clusters(self) -> int:
        """Number of clusters."""
        return int(self.labels.max()) + 1 if len(self.labels) else 0


@dataclass(frozen=True, slots=True)
class LossColumns:
    """Losses of rows under one condition, float64 [n], NaN where there is none: sum [nat], mean [nat/token], number
    of answer tokens, mean entropy [nat], mean EL2N."""

    sum: Floats
    mean: Floats
    n_tokens: Floats
    entropy: Floats
    el2n: Floats


@dataclass(frozen=True, slots=True)
class AttentionTops:
    """Where one model looks, by row: number of image tokens int64 [n] (0: no map), the places of the top ones."""

    n_tokens: Indices
    tops: Sequence[Indices]
    sharpness: Floats


class Signals(Protocol):
    """Signals of the distinct rows of a dataset. Arrays are aligned with `sample_ids`, which are sorted."""

    @property
    def sample_ids(self) -> Sequence[str]:
        """Identities of the rows, sorted."""

    @property
    def tasks(self) -> Sequence[str]:
        """Task of every row."""

    @property
    def image_ids(self) -> Sequence[str | None]:
        """First image of every row, None for text-only rows."""

    @property
    def n_characters(self) -> NDArray[np.int64]:
        """Length of all texts of every row [characters], int64 [n]."""

    def losses(self, condition: Condition) -> LossColumns:
        """Losses under the base model (need `base_losses`)."""

    def vectors(self, signal: str) -> tuple[Indices, NDArray[np.float32]]:
        """(place of every row's vector int64 [n], -1 for none; vectors float32 [m, d]): rows may share a vector."""

    def blocks(self, signal: str) -> Iterator[tuple[Indices, NDArray[np.float32]]]:
        """(row numbers int64 [b], their vectors float32 [b, d]) in blocks of bounded size, in any order."""

    def clusters(self, clustering: Clustering) -> Clusters:
        """A clustering that the method says it needs."""

    def question_vectors(self) -> tuple[Indices, Indices, NDArray[np.float32]]:
        """(row of every user turn int64 [t], place of its vector int64 [t] (-1: none), vectors float32 [m, d])."""

    def attention_tops(self) -> tuple[AttentionTops, AttentionTops]:
        """Where each of the two models looks (need `attention_maps`)."""

    def moments(self, signal: str) -> "Moments":
        """Moments of the vectors of the dataset's rows (need `representation_moments`)."""


@dataclass(frozen=True, slots=True)
class ScoreTable:
    """Scores float64 [n], higher is more valuable, NaN where there is none; columns of the score's own, aligned."""

    score: Floats
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    notes: Sequence[str] = ()


def no_clusterings(options: Any) -> Sequence[Clustering]:
    """For parts that need no clustering."""
    return ()


def nothing_missing(project: Project) -> str | None:
    """For scores that any project file can have."""
    return None


@dataclass(frozen=True)
class Score:
    """How valuable a row is.

    compute: signals and options to scores. needs: the signals that it reads. clusterings: those that it reads under
    some options. columns: its own columns of the score table. text: whether text-only rows are scored like others, or
    are a stratum of their own. requires: what a project file lacks for it in words, None if nothing.
    """

    name: str
    compute: Callable[[Signals, Any], ScoreTable]
    description: str
    needs: Sequence[Need] = ()
    clusterings: Callable[[Any], Sequence[Clustering]] = no_clusterings
    options: type[Options] = Options
    columns: Sequence[Column] = ()
    text: Literal["scored", "stratum"] = "scored"
    version: str = "1"
    requires: Callable[[Project], str | None] = nothing_missing


@dataclass(frozen=True, slots=True)
class Groups:
    """Group of every row, int64 [n] (-1: none, such a row is not selected), and names and weights of the groups."""

    labels: Indices
    names: Sequence[str]
    weights: Sequence[float]


@dataclass(frozen=True)
class Quota:
    """In which groups rows compete; `groups(signals, scores, options)`."""

    name: str
    groups: Callable[[Signals, Floats, Any], Groups]
    description: str
    needs: Sequence[Need] = ()
    clusterings: Callable[[Any], Sequence[Clustering]] = no_clusterings
    options: type[Options] = Options


@dataclass(frozen=True, slots=True)
class Picking:
    """One group to pick from: row numbers int64 [m] sorted, their scores, how many to take, and the recipe's seed."""

    members: Indices
    scores: Floats
    count: int
    seed: int


@dataclass(frozen=True)
class Diversity:
    """Which rows of a group are taken; `pick(signals, picking, options)` gives row numbers, best first."""

    name: str
    pick: Callable[[Signals, Picking, Any], Indices]
    description: str
    needs: Sequence[Need] = ()
    clusterings: Callable[[Any], Sequence[Clustering]] = no_clusterings
    options: type[Options] = Options


@dataclass(frozen=True)
class Method:
    """A named choice of score, quota and diversity (by name, or a Score of the method's own).

    released: name of the method that is this one as its authors released it, for recipes with `mode: released`.
    paper: where it comes from. deviation: what differs from the paper. defaults: options that differ from those of
    the parts. source: hash of the file that a method of a project comes from.
    """

    name: str
    score: str | Score
    quota: str = "none"
    diversity: str = "top"
    paper: str = ""
    deviation: str = ""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    released: str = ""
