"""Where a model looks while it answers a row's first question in a word (Free2DS, specification C1.2, C1.3, C2).

What is released about the prompt and does harm is put right: the prompt ends where the answer begins, an instruction
to be brief that the question has is not repeated, and a row without an image is not asked about one.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from vsel_platform.errors import DataError
from vsel_platform.identity import fingerprint
from vsel_platform.models.batching import BatchLimits
from vsel_platform.models.generation import prompt_groups
from vsel_platform.models.images import ContentFailure, ImageProvider
from vsel_platform.models.packing import packed_length
from vsel_platform.models.templates import IMAGE_TAG
from vsel_platform.models.vlm import ConversationRow, GeneratedAnswer, RenderedRow, VisionLanguageModel
from vsel_platform.signals.relative_attention import aggregate_maps, relative_maps, top_tokens
from vsel_platform.signals.windows import RowWindow, WindowOptions, by_unit, windows

SIGNAL = "attention_maps"
CODE_VERSION = 1
BRIEF = "using a single word or phrase."
BRIEF_INSTRUCTION = f" Please answer the question {BRIEF}"


@dataclass(frozen=True, slots=True)
class AttentionMap:
    """Relative attention of one row, summed over the tokens of its answer.

    n_steps: generated tokens, the end token included. n_tokens: image tokens (cells of the grid). top_tokens: the 30 %
    of them with the largest share, ascending. entropy: of the shares [nat]. sharpness: 1 - entropy / log(n_tokens).
    mass: mean over the steps of the attention that the image gets.
    """

    sample_id: str
    n_steps: int
    n_tokens: int
    top_tokens: NDArray[np.int64]
    entropy: float
    sharpness: float
    mass: float


@dataclass(frozen=True, slots=True)
class AttentionBatch:
    """Maps of consecutive rows, and the rows that have none."""

    values: list[AttentionMap]
    failures: list[ContentFailure]


def attention_fingerprint(model: VisionLanguageModel, answer_tokens: int, grid: int) -> str:
    """Fingerprint of the signal: code version, model, longest answer, grid."""
    return fingerprint(
        signal=SIGNAL, code=CODE_VERSION, model=model.fingerprint, answer_tokens=answer_tokens, grid=grid
    )


def first_question(turns: Sequence[tuple[str, str]]) -> tuple[str, int] | None:
    """The first user turn that is answered, asking for a brief answer, and the number of its first image.

    A turn without an image tag gets one in front, for the last image shown before it, or else the row's first. None
    if no user turn is answered.
    """
    seen = 0
    for (role, text), (after, _) in pairwise(turns):
        if role == "user" and after == "assistant":
            if IMAGE_TAG in text:
                return one_word_question(text), seen
            return one_word_question(f"{IMAGE_TAG}\n{text}"), max(0, seen - 1)
        seen += text.count(IMAGE_TAG)
    return None


def one_word_question(question: str) -> str:
    """The question with the instruction to answer in a word, which is not appended to one that ends with it."""
    text = question.rstrip()
    return text if text.lower().endswith(BRIEF) else text + BRIEF_INSTRUCTION


def attention_maps(
    model: VisionLanguageModel,
    rows: Sequence[ConversationRow],
    images: ImageProvider,
    *,
    answer_tokens: int = 16,
    grid: int = 0,
    options: WindowOptions | None = None,
    limits: BatchLimits | None = None,
) -> Iterator[AttentionBatch]:
    """Maps of rows with images, one batch per window of consecutive rows.

    With `grid` the maps of each image are resampled to grid x grid cells, so that models with different numbers of
    image tokens compare. An answer of a single token has no relative map and is a failure, as is a row without an
    image or with a broken one, and attention that is not finite. Raises OutOfMemoryError if one row does not fit into
    memory.
    """
    for window in windows(model, rows, images, options or WindowOptions(), limits):
        window.load_images([i for i, row in enumerate(window.rows) if row.images])
        prompts = _prompts(model, window)
        units = _units(model, window, prompts)

        def run(
            part: Sequence[int],
            window: RowWindow[ConversationRow] = window,
            prompts: dict[int, _Prompt] = prompts,
            units: list[list[int]] = units,
        ) -> list[tuple[int, GeneratedAnswer]]:
            def ask(rows: Sequence[int]) -> list[tuple[int, GeneratedAnswer]]:
                shown = [window.features_of(i, prompts[i].images) for i in rows]
                answers = model.generate([prompts[i].row for i in rows], shown, max_tokens=answer_tokens)
                return list(zip(rows, answers, strict=True))

            return by_unit([units[number] for number in part], ask)

        found: dict[int, AttentionMap] = {}
        lengths = [packed_length([prompts[i].row for i in unit]) + len(unit) * answer_tokens for unit in units]
        for _, answers in window.run(range(len(units)), lengths, run, row_of=[unit[0] for unit in units].__getitem__):
            for i, answer in answers:
                value = attention_map(window.rows[i].sample_id, answer, grid, prompts[i].count)
                if value is not None:
                    found[i] = value
                elif len(answer.token_ids) == 1:
                    window.fail(i, "no_relative_attention", "the answer has a single token, nothing to compare with")
                else:
                    window.fail(i, "non_finite_attention", "the model gives attention that is not finite")
        yield AttentionBatch([found[i] for i in sorted(found)], [window.failures[i] for i in sorted(window.failures)])


@dataclass(frozen=True, slots=True)
class _Prompt:
    """The question of a row: its tokens, and which of the row's images it shows."""

    row: RenderedRow
    images: slice

    @property
    def count(self) -> int:
        """Number of images."""
        return int(self.images.stop - self.images.start)


def _units(
    model: VisionLanguageModel, window: RowWindow[ConversationRow], prompts: dict[int, _Prompt]
) -> list[list[int]]:
    """Rows whose prompts show the same images and can share their beginning, as row numbers."""
    rows = list(prompts)
    images = [tuple(window.rows[i].images[prompts[i].images]) for i in rows]
    asked = [prompts[i].row for i in rows]
    groups = prompt_groups(images, asked, [model.image_places(prompt) for prompt in asked])
    return [[rows[number] for number in group] for group in groups]


def _prompts(model: VisionLanguageModel, window: RowWindow[ConversationRow]) -> dict[int, _Prompt]:
    """Prompts of the rows that can be asked; the others fail."""
    found = {}
    for i, row in enumerate(window.rows):
        if not row.images:
            window.fail(i, "no_image", "the row has no image, so nothing to look at")
        if i in window.failures:
            continue
        question = first_question(row.turns)
        if question is None:
            window.fail(i, "no_question", "no user turn is answered")
            continue
        text, first = question
        count = text.count(IMAGE_TAG)
        if first + count > len(row.images):
            detail = f"the question shows image {first + count}, but the row has {len(row.images)}"
            window.fail(i, "row_not_renderable", detail)
            continue
        shown = window.shown(i, slice(first, first + count))
        try:
            prompt = model.render_prompt([("user", text)], count, shown)
        except DataError as error:
            window.fail(i, "row_not_renderable", str(error))
            continue
        if len(model.image_places(prompt)) < sum(image.n_tokens for image in shown) or prompt.n_cut:
            window.fail(i, "prompt_too_long", "the question does not fit into vlm.max_tokens")
        else:
            found[i] = _Prompt(prompt, slice(first, first + count))
    return found


def attention_map(sample_id: str, answer: GeneratedAnswer, grid: int, n_images: int) -> AttentionMap | None:
    """The map of one answer; None if it has no relative map, or a value is not finite."""
    shares = aggregate_maps(relative_maps(answer.attention))
    if shares is None:
        return None
    if grid:
        shares = resample(shares, grid, n_images)
    positive = shares[shares > 0].astype(np.float64)
    entropy = float(-(positive * np.log(positive)).sum())
    return AttentionMap(
        sample_id,
        len(answer.token_ids),
        len(shares),
        top_tokens(shares),
        entropy,
        1.0 - entropy / math.log(len(shares)) if len(shares) > 1 else 1.0,
        float(answer.attention.sum(axis=1, dtype=np.float64).mean()),
    )


def resample(shares: NDArray[np.float32], grid: int, n_images: int) -> NDArray[np.float32]:
    """Shares [n_images * side * side] on square grids to grid x grid cells each, float32; their sum stays.

    Every new cell gets the part of each old one that it covers. Raises DataError if the tokens are no square grids.
    """
    side = math.isqrt(len(shares) // n_images)
    if side * side * n_images != len(shares):
        raise DataError(f"{len(shares)} image tokens of {n_images} image(s) are no square grid; use attention_grid: 0")
    if side == grid:
        return shares
    weights = _overlap(side, grid)
    cells = weights @ shares.reshape(n_images, side, side).astype(np.float64) @ weights.T
    return np.asarray(cells.reshape(-1), np.float32)


def _overlap(before: int, after: int) -> NDArray[np.float64]:
    """Share of each of `before` intervals that lies in each of `after` ones on the same line, [after, before]."""
    old, new = np.linspace(0, 1, before + 1), np.linspace(0, 1, after + 1)
    low, high = np.maximum.outer(new[:-1], old[:-1]), np.minimum.outer(new[1:], old[1:])
    return np.asarray(np.clip(high - low, 0, None) * before, np.float64)
