"""Vision-language models: one protocol, and the rows that go through it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from vsel_platform.models.attention import AttentionRecorder
from vsel_platform.models.images import Preprocessed
from vsel_platform.models.sampling import Sampling

if TYPE_CHECKING:
    import torch
    from PIL import Image

Condition = Literal["full", "no_question", "no_image"]
IGNORED_LABEL = -100


class ConversationRow(Protocol):
    """One row for a model. Images are named in the order of their tags in the turns."""

    @property
    def sample_id(self) -> str:
        """Identity of the row."""

    @property
    def turns(self) -> Sequence[tuple[str, str]]:
        """Turns `(role, text)`; roles are system, user, assistant."""

    @property
    def images(self) -> Sequence[str]:
        """Image identities."""


@dataclass(frozen=True, slots=True)
class RenderedRow:
    """One row as tokens.

    input_ids: int64 [n], image tags expanded to the model's image tokens.
    answer_index: int64 [n], -1, or for a target token the number of the assistant turn that it belongs to. Questions
    that the model asks itself (`is_asked`) are numbered behind the assistant turns.
    n_cut: tokens that were cut off because the row was longer than the model's limit.
    is_question: bool [n], the token belongs to the words of a user turn; None where nobody asked for it.
    positions: int64 [3, n], position in time, height and width for models that count so; None: 0 to n - 1.
    is_asked: bool [n], the token belongs to a question that the model is to ask; None: there is none.
    """

    input_ids: NDArray[np.int64]
    answer_index: NDArray[np.int64]
    n_cut: int = 0
    is_question: NDArray[np.bool_] | None = None
    positions: NDArray[np.int64] | None = None
    is_asked: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def labels(self) -> NDArray[np.int64]:
        """Targets int64 [n]: the token itself, IGNORED_LABEL where it is no target."""
        return np.where(self.answer_index >= 0, self.input_ids, IGNORED_LABEL)

    @property
    def n_targets(self) -> int:
        """Number of target tokens."""
        return int(np.count_nonzero(self.answer_index >= 0))

    @property
    def asked_targets(self) -> NDArray[np.bool_]:
        """Of every target in order, whether it belongs to a question that the model asks itself; bool [targets]."""
        targets = self.answer_index >= 0
        return np.zeros(self.n_targets, dtype=bool) if self.is_asked is None else self.is_asked[targets]

    def with_targets(self, count: int) -> "RenderedRow":
        """The row with its first `count` targets only."""
        kept = np.cumsum(self.answer_index >= 0) <= count
        return replace(self, answer_index=np.where(kept, self.answer_index, -1))


@dataclass(frozen=True, slots=True)
class ShownImage:
    """What a prompt has to know of an image of the row: its tokens, and its `models.images.ImageInput.layout`."""

    n_tokens: int
    layout: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class AttentionRows:
    """Attention that a forward pass has to give: of which decoder layers (from 0), and of a batch's rows which query
    and key tokens (places int64)."""

    layers: Sequence[int]
    queries: Sequence[NDArray[np.int64]]
    keys: Sequence[NDArray[np.int64]]

    def recorder(self, device: str) -> AttentionRecorder:
        """The recorder of a forward pass on `device`."""
        import torch

        padded = (padded_places(places) for places in (self.queries, self.keys))
        queries, keys = (torch.from_numpy(places).to(device) for places in padded)
        return AttentionRecorder(frozenset(self.layers), queries, keys)


def padded_places(rows: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Places of several rows as int64 [rows, most places], padded with -1."""
    padded = np.full((len(rows), max((len(row) for row in rows), default=0)), -1, dtype=np.int64)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row
    return padded


@dataclass(frozen=True, slots=True)
class GeneratedAnswer:
    """Tokens int64 [T] of an answer, the end token included if it was reached, and for each the attention float32
    [T, P] that the query which predicts it pays to the row's P image tokens: mean over all layers and heads."""

    token_ids: NDArray[np.int64]
    attention: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class LayerStates:
    """Result of a partial forward pass over a batch, padded on the right.

    hidden: by layer (from 1), [rows, tokens, model width]. mass: by layer (from 0), float32 [rows, keys], the mean
    over heads and queries of the attention that each key token gets.
    """

    hidden: "dict[int, torch.Tensor]"
    mass: "dict[int, torch.Tensor]"


@dataclass(frozen=True, slots=True)
class RowTaps:
    """What a pass over groups of rows has to give of some rows besides.

    rows: (group, row of the group). layers: decoder layers (from 1) whose hidden states are kept. attention: as for
    `ModelForward.layer_states`, an entry for each of `rows`.
    """

    rows: Sequence[tuple[int, int]]
    layers: Sequence[int]
    attention: AttentionRows | None = None


class TargetStates(NamedTuple):
    """Hidden states [targets, model width] before the targets of all rows, the targets int64 [targets], and what was
    tapped, row by row."""

    hidden: "torch.Tensor"
    targets: "torch.Tensor"
    tapped: LayerStates | None = None


class ModelForward(Protocol):
    """The parts of a model that images and tokens pass through. Tensors are on the model's device."""

    @property
    def name(self) -> str:
        """Name to show."""

    @property
    def fingerprint(self) -> str:
        """Hash of weights (adapter included), tokenizer, preprocessing, template, dtype and length limit."""

    @property
    def device(self) -> str:
        """Device of the weights."""

    @property
    def n_layers(self) -> int:
        """Number of decoder layers."""

    def preprocess(self, image: "Image.Image") -> Preprocessed:
        """One picture for the vision tower."""

    def features(self, images: Sequence[Preprocessed]) -> "Sequence[torch.Tensor]":
        """Vision tower's features [image tokens, tower width] of every picture."""

    def project(self, features: "torch.Tensor") -> "torch.Tensor":
        """Projector: [n, image tokens, tower width] to [n, image tokens, model width]."""

    def row_features(self, images: "Sequence[torch.Tensor]") -> "list[torch.Tensor]":
        """Projected features of the images of a row, as the model sees them in a row of so many images."""

    def target_states(
        self,
        groups: Sequence[Sequence[RenderedRow]],
        images: Sequence[Sequence["torch.Tensor"]],
        taps: RowTaps | None = None,
    ) -> TargetStates:
        """Hidden states before the targets of all rows.

        The rows of a group have the same images (projected features [image tokens, model width] in order, per group
        in `images`); what they share at the beginning is computed once. Results are group by group, row by row.
        """

    def layer_states(
        self,
        rows: Sequence[RenderedRow],
        images: Sequence[Sequence["torch.Tensor"]],
        *,
        layers: Sequence[int],
        attention: AttentionRows | None = None,
    ) -> LayerStates:
        """Hidden states after decoder layers (from 1) and attention of some tokens; deeper layers do not run."""

    def image_places(self, row: RenderedRow) -> NDArray[np.int64]:
        """Places of the image tokens in a row, int64 [n], in order."""

    def logits(self, states: "torch.Tensor") -> "torch.Tensor":
        """Logits [n, vocabulary] of hidden states [n, model width]."""


class VisionLanguageModel(ModelForward, Protocol):
    """A model with its prompt: what signals, training and evaluation need."""

    def render(
        self,
        turns: Sequence[tuple[str, str]],
        n_images: int,
        condition: Condition = "full",
        shown: Sequence[ShownImage] = (),
    ) -> RenderedRow:
        """Tokens and targets of a conversation. Raises DataError if it does not have `n_images` image tags.

        `shown` describes the images; models whose images all have the same number of tokens do without.
        """

    def render_prompt(
        self, turns: Sequence[tuple[str, str]], n_images: int, shown: Sequence[ShownImage] = ()
    ) -> RenderedRow:
        """Tokens of turns up to where the assistant's next answer begins."""

    def render_question_prompt(
        self, turns: Sequence[tuple[str, str]], n_images: int, shown: Sequence[ShownImage] = ()
    ) -> RenderedRow:
        """Tokens of turns up to where the virtual user's next question begins (`models.templates.ASKER`)."""

    def generate(
        self, prompts: Sequence[RenderedRow], images: "Sequence[Sequence[torch.Tensor]]", *, max_tokens: int
    ) -> list[GeneratedAnswer]:
        """Greedy answers with the attention to the image."""

    def answer(
        self, prompts: Sequence[RenderedRow], images: "Sequence[Sequence[torch.Tensor]]", *, max_tokens: int
    ) -> "list[NDArray[np.int64]]":
        """Greedy answers as tokens int64 [T], T at most `max_tokens`, the end token included."""

    def sample(
        self,
        prompts: Sequence[RenderedRow],
        images: "Sequence[Sequence[torch.Tensor]]",
        *,
        sampling: Sampling,
        uniform: NDArray[np.float64],
    ) -> "list[NDArray[np.int64]]":
        """Drawn answers, or questions, as tokens int64 [T], the end token included.

        uniform: float64 [prompts, most tokens] in [0, 1), the chance of every token. Prompts may repeat.
        """

    def text_of(self, tokens: "NDArray[np.int64]") -> str:
        """Text of generated tokens, without special tokens and blanks around it."""
