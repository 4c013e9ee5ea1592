"""Conversations in the words of a checkpoint's own chat template, with the character range of every turn's words.

The template is asked to write a conversation whose texts are marks. What it writes between the marks is its own, and
the words are put where the marks stand: ranges are known by construction, and nothing is ever searched in words.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vsel_platform.errors import DataError, ModelError
from vsel_platform.models.templates import ASKER, IMAGE_TAG, RenderedText

Turns = Sequence[tuple[str, str]]
Apply = Callable[[list[dict[str, Any]], bool], str]
"""(messages, whether the assistant's next answer begins behind them) to text."""

ROLES = ("system", "user", "assistant", ASKER)
_MARK = re.compile("\ue000([0-9]+)\ue001")
_TAG = re.compile(rf"\n?{IMAGE_TAG}\n?")
_USER = re.compile("user", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Words:
    """One text of a turn: the number of its turn, its role, and the words."""

    turn: int
    role: str
    text: str


class ChatTemplate:
    """A chat template.

    `apply` writes messages of parts (`{"type": "text", "text"}` and `{"type": "image"}`) as text, in which
    `image_token` stands for an image. `special` are the tokenizer's special tokens: the one that follows an answer
    belongs to it.

    A virtual user's turn is written as a user's, under a header of its own: where the template's names the user, it
    has `asker`, or else "vuser" with the template's capitals. If the template writes no special token behind a user's
    words, `end` stands there, so that a question has an end.
    """

    def __init__(
        self, apply: Apply, image_token: str, special: Sequence[str], *, end: str = "", asker: str | None = None
    ) -> None:
        self._apply = apply
        self._image_token = image_token
        self._special = tuple(sorted(special, key=len, reverse=True))
        self._end = end
        self._asker = asker

    def render(self, turns: Turns, images: Sequence[str] = (), *, prompt: bool = False) -> RenderedText:
        """Text of a conversation, every image as the text of `images`; with `prompt` it ends where the assistant's next
        answer begins.

        A line break beside an image tag is the tag's and is left to the template. Raises DataError if the template
        cannot write the turns, or changes their words (blanks around them excepted, which are then left out).
        """
        parts, words = _parts(turns)
        pieces = _MARK.split(self._write(parts, [f"\ue000{i}\ue001" for i in range(len(words))], prompt))
        # re.split gives text, mark, text, mark, ..., text.
        glue, marks = pieces[::2], [int(number) for number in pieces[1::2]]
        if marks != list(range(len(words))):
            raise ModelError("the chat template does not write every text of a conversation once and in order")
        texts = [part.text for part in words]
        for written in (texts, [text.strip() for text in texts]):
            if self._write(parts, written, prompt) == _joined(glue, written):
                return self._assemble(glue, words, written, images)
        raise DataError("the chat template changes the words of the row")

    def question_prompt(self, turns: Turns, images: Sequence[str] = ()) -> RenderedText:
        """Text of a conversation that ends where the virtual user's next question begins. Raises as `render` does."""
        rendered = self.render([*turns, (ASKER, "?")], images)
        return replace(rendered, text=rendered.text[: rendered.asked[-1][0]].rstrip(" "), asked=rendered.asked[:-1])

    def _write(self, turns: Sequence[tuple[str, list[int | None]]], texts: Sequence[str], prompt: bool) -> str:
        messages = [
            {
                "role": "user" if role == ASKER else role,
                "content": [
                    {"type": "image"} if number is None else {"type": "text", "text": texts[number]}
                    for number in numbers
                ],
            }
            for role, numbers in turns
        ]
        from jinja2 import TemplateError

        try:
            return self._apply(messages, prompt)
        except (TemplateError, ValueError, TypeError) as error:
            raise DataError(f"the chat template cannot write the row: {error}") from error

    def _assemble(
        self, glue: Sequence[str], words: Sequence[_Words], texts: Sequence[str], images: Sequence[str]
    ) -> RenderedText:
        """Words between the template's own pieces, and their ranges; image tokens of the template as `images`."""
        glue, left = self._with_askers(glue, words), list(images)
        tokens = sum(piece.count(self._image_token) for piece in glue)
        if tokens != len(left):
            raise DataError(f"the chat template writes {tokens} images where the row has {len(left)}")
        text = _with_images(glue[0], self._image_token, left)
        answers, questions, asked = [], [], []
        for piece, part, written in zip(glue[1:], words, texts, strict=True):
            start = len(text)
            text += written
            if part.role == "assistant":
                end = len(text) + self._length_of_end(piece)
                answers.append((start, end if written.strip() else start))
            elif part.role == "user":
                questions.append((start, len(text)))
            elif part.role == ASKER:
                text += self._missing_end(piece)
                asked.append((start, len(text) + self._length_of_end(piece)))
            text += _with_images(piece, self._image_token, left)
        return RenderedText(text, tuple(answers), tuple(questions), tuple(asked))

    def _with_askers(self, glue: Sequence[str], words: Sequence[_Words]) -> list[str]:
        """The template's pieces with the virtual user named in front of their questions."""
        found = list(glue)
        for i, part in enumerate(words):
            if part.role != ASKER:
                continue
            *_, last = [None, *_USER.finditer(found[i])]
            if last is None:
                raise ModelError(
                    "the chat template names no user, so a virtual user cannot have a header of its own: "
                    "this model cannot be trained to ask questions"
                )
            own = self._asker or _like("vuser", last.group())
            found[i] = found[i][: last.start()] + own + found[i][last.end() :]
        return found

    def _missing_end(self, piece: str) -> str:
        """The end token, unless the template writes a special token right behind the words."""
        return "" if self._length_of_end(piece) else self._end

    def _length_of_end(self, piece: str) -> int:
        """Characters of the special token that the template writes right behind an answer; 0 if there is none."""
        return next((len(token) for token in self._special if piece.startswith(token)), 0)


def _parts(turns: Turns) -> tuple[list[tuple[str, list[int | None]]], list[_Words]]:
    """For every turn its role and parts, the number of a text or None for an image; and the texts."""
    found: list[tuple[str, list[int | None]]] = []
    words: list[_Words] = []
    for turn, (role, text) in enumerate(turns):
        if role not in ROLES:
            raise DataError(f"a turn has the role {role!r}; expected {', '.join(ROLES)}")
        pieces = _TAG.split(text) if role == "user" else [text]
        numbers: list[int | None] = []
        for i, piece in enumerate(pieces):
            if i:
                numbers.append(None)
            if piece or len(pieces) == 1:
                numbers.append(len(words))
                words.append(_Words(turn, role, piece))
        found.append((role, numbers))
    return found, words


def _like(word: str, model: str) -> str:
    """A lower-case word with the capitals of another."""
    if model.isupper():
        return word.upper()
    return word.capitalize() if model[0].isupper() else word


def _joined(glue: Sequence[str], texts: Sequence[str]) -> str:
    return glue[0] + "".join(text + piece for text, piece in zip(texts, glue[1:], strict=True))


def _with_images(piece: str, token: str, left: list[str]) -> str:
    """`piece` with each image token replaced by the next of `left`, which is taken from it."""
    first, *rest = piece.split(token)
    return first + "".join(left.pop(0) + following for following in rest)
