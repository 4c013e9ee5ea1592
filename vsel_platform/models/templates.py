"""Conversation templates: turns to text, with the character range of every answer."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from vsel_platform.errors import ConfigError, DataError

IMAGE_TAG = "<image>"
ASKER = "vuser"
"""Role of a virtual user: a user's turn that the model itself shall ask (SQ-LLaVA)."""
_TAG_WITH_BREAK = re.compile(rf"{IMAGE_TAG}\n|\n{IMAGE_TAG}|{IMAGE_TAG}")


@dataclass(frozen=True, slots=True)
class RenderedText:
    """Text of a conversation, and ranges [start, end) in characters.

    `answers` holds per assistant turn its answer and the end token after it; a blank answer has an empty range.
    `questions` holds per user turn its words, image tags included; `asked` per turn of the virtual user its words and
    the end token after them.
    """

    text: str
    answers: tuple[tuple[int, int], ...]
    questions: tuple[tuple[int, int], ...] = ()
    asked: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Template:
    """What stands around the texts of a conversation.

    A user turn is written as `user + user_gap + text + after_user` (without the gap if there is no text), an answer
    as `assistant + text + end token`, a turn of the virtual user as `asker + user_gap + text + end token + after_user`.
    """

    name: str
    system: str
    after_system: str
    user: str
    user_gap: str
    after_user: str
    assistant: str
    # Not in the representation, which names the template in fingerprints of what has no virtual user.
    asker: str = field(default="VUSER:", repr=False)
    # Of the user's words only the image tags are written, and an answer ends with this instead of the end token.
    captions_end: str | None = field(default=None, repr=False)

    def render(self, turns: Sequence[tuple[str, str]], *, end: str) -> RenderedText:
        """Text of `(role, text)` turns; `end` is the tokenizer's end token.

        A system turn at the start replaces the template's own. Raises DataError for an unknown role or a system
        turn further on.
        """
        system = self.system
        if turns and turns[0][0] == "system":
            system, turns = turns[0][1], turns[1:]
        if self.captions_end is not None:
            system, end = self.system, self.captions_end
            turns = [(role, IMAGE_TAG * text.count(IMAGE_TAG) if role == "user" else text) for role, text in turns]
        text = system + self.after_system if system else ""
        answers, questions, asked = [], [], []
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
            elif role == ASKER:
                text += self.asker + self.user_gap
                asked.append((len(text), len(text) + len(words + end)))
                text += words + end + self.after_user
            else:
                raise DataError(f"a turn has the role {role!r}; expected user and assistant after at most one system")
        return RenderedText(text, tuple(answers), tuple(questions), tuple(asked))

    def prompt(self, turns: Sequence[tuple[str, str]], *, end: str) -> RenderedText:
        """Text of turns that ends where the assistant's next answer begins, without the blank in front of it."""
        rendered = self.render(turns, end=end)
        return replace(rendered, text=rendered.text + self.assistant.rstrip(" "))

    def question_prompt(self, turns: Sequence[tuple[str, str]], *, end: str) -> RenderedText:
        """Text of turns that ends where the virtual user's next question begins, without the blank in front of it."""
        rendered = self.render(turns, end=end)
        return replace(rendered, text=rendered.text + self.asker.rstrip(" "))

    def with_asker(self, token: str) -> "Template":
        """The template with a token of its own in place of the virtual user's words (`models.dedicated_token`)."""
        return replace(self, name=f"{self.name}+{token}", asker=token)


# LLaVA-1.5 (specification A1.3, step 2).
_VICUNA = Template(
    "vicuna_v1",
    system="A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions.",
    after_system=" ",
    user="USER:",
    user_gap=" ",
    after_user=" ",
    assistant="ASSISTANT: ",
)
# SQ-LLaVA, word for word: there is no blank between the two parts of its system text.
_VICUNA_SQ = replace(
    _VICUNA,
    name="vicuna_v1_sq",
    system=_VICUNA.system + "Also, the artificial intelligence assistant is a curious virtual user. The virtual user "
    "asks complex questions that are relevant to the content in the image, for example, asking about background "
    "knowledge of the objects in the image, asking to discuss about events happening in the image, etc. Again, do not "
    "ask about uncertain details.",
)
# No roles and no system text: the shortest prompt, for small models trained on it.
_PLAIN = Template(
    "plain", system="", after_system="\n", user="", user_gap="", after_user="\n", assistant="", asker="VUSER: "
)
# LLaVA's pre-training on captions: the image and the caption, nothing else.
_LLAVA_PLAIN = Template(
    "llava_plain",
    system="",
    after_system="",
    user="",
    user_gap="",
    after_user="",
    assistant="",
    captions_end="\n",
)
_TEMPLATES = {template.name: template for template in (_VICUNA, _PLAIN, _VICUNA_SQ, _LLAVA_PLAIN)}


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
