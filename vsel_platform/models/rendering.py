"""Rows to tokens: targets come from the character ranges of the rendered text, never from searching in it."""

import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vsel_platform.errors import DataError
from vsel_platform.models.templates import RenderedText, Template, count_images, without_images, without_questions
from vsel_platform.models.vlm import Condition, RenderedRow

_CHANGE: dict[Condition, Callable[[Sequence[tuple[str, str]]], Sequence[tuple[str, str]]]] = {
    "full": lambda turns: turns,
    "no_question": without_questions,
    "no_image": without_images,
}


class Renderer:
    """Renders conversations for one tokenizer and template.

    `tokenizer` is a fast tokenizer (it knows the character range of every token), `image_tokens` the number of
    tokens of one image, `max_tokens` the length above which a row is cut.
    """

    def __init__(
        self, tokenizer: Any, template: Template, *, image_token_id: int, image_tokens: int, max_tokens: int
    ) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._image_token_id = image_token_id
        self._image_tokens = image_tokens
        self._max_tokens = max_tokens

    def render(self, turns: Sequence[tuple[str, str]], n_images: int, condition: Condition = "full") -> RenderedRow:
        """Tokens and targets of a row.

        A target is every token that overlaps an answer or a virtual user's question, or the end token after it; image
        tokens are none, and neither is the first token of the row, which nothing predicts. Raises DataError if the
        number of image tags is not `n_images`, or for a role that the template does not know.
        """
        require_images(turns, n_images)
        rendered = self._template.render(changed(turns, condition), end=self._tokenizer.eos_token)
        return self._tokens(rendered, 0 if condition == "no_image" else n_images)

    def render_prompt(self, turns: Sequence[tuple[str, str]], n_images: int) -> RenderedRow:
        """Tokens of turns up to where the assistant's next answer begins. Raises as `render` does."""
        require_images(turns, n_images)
        return self._tokens(self._template.prompt(turns, end=self._tokenizer.eos_token), n_images)

    def render_question_prompt(self, turns: Sequence[tuple[str, str]], n_images: int) -> RenderedRow:
        """Tokens of turns up to where the virtual user's next question begins. Raises as `render` does."""
        require_images(turns, n_images)
        return self._tokens(self._template.question_prompt(turns, end=self._tokenizer.eos_token), n_images)

    def with_asker(self, token: str) -> "Renderer":
        """The same with a token of its own for the virtual user, which the tokenizer has got meanwhile."""
        other = copy.copy(self)
        other._template = self._template.with_asker(token)
        return other

    def _tokens(self, rendered: RenderedText, n_images: int) -> RenderedRow:
        ids, marks = tokens_of(self._tokenizer, rendered)
        is_image = ids == self._image_token_id
        if int(is_image.sum()) != n_images:
            raise DataError(f"the tokenizer sees {int(is_image.sum())} image tags where the row has {n_images}")
        counts = np.where(is_image, self._image_tokens, 1)
        marks = Marks(*(np.repeat(column, counts) for column in marks))
        return rendered_row(np.repeat(ids, counts), np.repeat(is_image, counts), marks, self._max_tokens)


def changed(turns: Sequence[tuple[str, str]], condition: Condition) -> Sequence[tuple[str, str]]:
    """The turns as they are shown under a condition."""
    return _CHANGE[condition](turns)


class Marks(NamedTuple):
    """For every token int64 [n] the number of the answer, of the user's question, and of the virtual user's question
    that it overlaps, -1 for none."""

    answer: NDArray[np.int64]
    question: NDArray[np.int64]
    asked: NDArray[np.int64]


def rendered_row(
    ids: NDArray[np.int64],
    is_image: NDArray[np.bool_],
    marks: Marks,
    max_tokens: int,
    positions: NDArray[np.int64] | None = None,
) -> RenderedRow:
    """A row of tokens int64 [n] with its targets, cut to `max_tokens`; `positions` int64 [3, n] as in `RenderedRow`."""
    answer, question, asked = marks
    target = np.where((answer < 0) & (asked >= 0), asked + answer.max(initial=-1) + 1, answer)
    target[is_image] = question[is_image] = -1
    target[:1] = -1
    cut = slice(max_tokens)
    return RenderedRow(
        ids[cut],
        target[cut],
        max(0, len(ids) - max_tokens),
        question[cut] >= 0,
        None if positions is None else np.ascontiguousarray(positions[:, cut]),
        (asked[cut] >= 0) & (target[cut] >= 0) & (answer[cut] < 0) if (asked >= 0).any() else None,
    )


def tokens_of(tokenizer: Any, rendered: RenderedText) -> tuple[NDArray[np.int64], Marks]:
    """Token ids int64 [n] of a text, and what each overlaps.

    The tokenizer adds its special tokens, except to a text that begins with its first one.
    """
    begins = bool(tokenizer.bos_token) and rendered.text.startswith(tokenizer.bos_token)
    encoded = tokenizer(rendered.text, return_offsets_mapping=True, add_special_tokens=not begins)
    ids = np.asarray(encoded["input_ids"], dtype=np.int64)
    offsets = np.asarray(encoded["offset_mapping"], dtype=np.int64).reshape(-1, 2)
    ranges = (rendered.answers, rendered.questions, rendered.asked)
    return ids, Marks(*(_range_index(offsets, of_a_kind) for of_a_kind in ranges))


def require_images(turns: Sequence[tuple[str, str]], n_images: int) -> None:
    """Raises DataError if the turns do not have `n_images` image tags."""
    tags = count_images(turns)
    if tags != n_images:
        raise DataError(f"{tags} <image> tags in the turns, but {n_images} images in the row")


def _range_index(offsets: NDArray[np.int64], ranges: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """Number of the range that each token [start, end) overlaps, -1 for none; empty tokens overlap nothing."""
    index = np.full(len(offsets), -1, dtype=np.int64)
    starts, ends = offsets[:, 0], offsets[:, 1]
    for number, (first, last) in enumerate(ranges):
        index[(starts < last) & (ends > first) & (ends > starts)] = number
    return index
