"""Conversation templates: turns to text, with the character range of every answer."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from vsel_platform.errors import ConfigError, DataError

IMAGE_TAG = "<image>"
_TAG_WITH_BREAK = re.compile(rf"{IMAGE_TAG}\n|\n{IMAGE_TAG}|{IMAGE_TAG}")


@dataclass(frozen=True, slots=True)
class RenderedText:
    """Text of a conversation, and ranges [start, end) in characters.

    `answers` holds per assistant turn its answer and the end token after it; a blank answer has an empty range.
    `questions` holds per user turn its words, image tags included.
    """

    text: str
    answers: tuple[tuple[int, int], ...]
    questions: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Template:
    """What stands around the texts of a conversation.

    A user turn is written as `user + user_gap + text + after_user` (without the gap if there is no text), an answer
    as `assistant + text + end token`.
    """

    name: str
    system: str
    after_system: str
    user: str
    user_gap: str
    after_user: str
    assistant: str

    def render(self, turns: Sequence[tuple[str, str]], *, end: str) -> RenderedText:
        """Text of `(role, text)` turns; `end` is the tokenizer's end token.

        A system turn at the start replaces the template's own. Raises DataError for an unknown role or a system
        turn further on.
        """
        system = self.system
        if turns and turns[0][0] == "system":
            system, turns = turns[0][1], turns[1:]
        text = system + self.after_system if system else ""
        answers, questions = [], []
        for role, words in turns:
            if role == "user":
                text += self.user + (self.user_gap if words else "")
                questions.append((len(text), len(text) + len(words)))
                text += words + self.after_user
            elif role == "assistant":
                text += self.assistant
                start = len(text)
                text += words + end
                answers.append((start, len(text) if words.strip() else start))
            else:
                raise DataError(f"a turn has the role {role!r}; expected user and assistant after at most one system")
        return RenderedText(text, tuple(answers), tuple(questions))

    def prompt(self, turns: Sequence[tuple[str, str]], *, end: str) -> RenderedText:
        """Text of turns that ends where the assistant's next answer begins, without the blank in front of it."""
        rendered = self.render(turns, end=end)
        return RenderedText(rendered.text + self.assistant.rstrip(" "), rendered.answers, rendered.questions)


_TEMPLATES = {
    template.name: template
    for template in (
        # LLaVA-1.5 (specification A1.3, step 2).
        Template(
            "vicuna_v1",
            system="A chat between a curious user and an artificial intelligence assistant. The assistant gives "
            "helpful, detailed, and polite answers to the user's questions.",
            after_system=" ",
            user="USER:",
            user_gap=" ",
            after_user=" ",
            assistant="ASSISTANT: ",
        ),
        # No roles and no system text: the shortest prompt, for small models trained on it.
        Template("plain", system="", after_system="\n", user="", user_gap="", after_user="\n", assistant=""),
    )
}


def load_template(name: str) -> Template:
    """The template of that name. Raises ConfigError with the known names."""
    if name not in _TEMPLATES:
        raise ConfigError(f"vlm.template: unknown template {name!r}; known: {', '.join(_TEMPLATES)}")
    return _TEMPLATES[name]


def without_questions(turns: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The same turns with the user's words removed: a user turn keeps its image tags, one a line.

    Answers stay as they are, turn by turn, so that both conditions of PreSel's relevance have the same target
    tokens. (The released way joins all answers into one turn: specification A1.2, A2.)
    """
    return [
        (role, "\n".join([IMAGE_TAG] * text.count(IMAGE_TAG))) if role == "user" else (role, text)
        for role, text in turns
    ]


def without_images(turns: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The same turns without image tags, each with one line break beside it."""
    return [(role, _TAG_WITH_BREAK.sub("", text)) for role, text in turns]


def count_images(turns: Sequence[tuple[str, str]]) -> int:
    """Number of image tags in all turns."""
    return sum(text.count(IMAGE_TAG) for _, text in turns)
