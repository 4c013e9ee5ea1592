"""Self-questioning inference exactly as released: every prompt and every argument of `generate`, in order.

Known faults, kept: every script stops at a method that does not exist, the VQA loader then stops at a question that
collation made a tuple; prompts of two scripts lose their last two tokens ("VUSER:" becomes something else); the header
of an answer lacks the blank that it has in training; the model's questions come back as the user's.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

from vsel_platform.models.templates import IMAGE_TAG
from vsel_platform.training.labels_released import released_two_prompt

DESCRIBE = "Can you describe the image in detail?"
LETTER = "\nAnswer with the option's letter from the given choices directly."
Tokenize = Callable[[str], list[str]]
"""A text's pieces without special tokens; IMAGE_TAG is a piece."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of `generate`: its prompt as text, and its arguments."""

    prompt: str
    arguments: dict[str, Any]


Calls = Generator[Call, str, str]
"""Yields calls, is sent the model's replies, and returns the last of them."""
Message = tuple[str, str | None]


@dataclass(frozen=True, slots=True)
class Script:
    """A released script. letter: its sentence behind every question; max_new_tokens: of descriptions and of answers."""

    letter: str
    max_new_tokens: int
    first: dict[str, Any]
    final: dict[str, Any]


_GREEDY = {"do_sample": False, "temperature": 0.0, "top_p": None, "num_beams": 1, "use_cache": True}
_ASKING = {"do_sample": True, "top_k": 50, "top_p": 0.65, "max_new_tokens": 100, "use_cache": True}
_DEMO_FIRST = _GREEDY | {"temperature": 0.2, "max_new_tokens": 1024}
_DEMO_ASKING = {
    "do_sample": True, "temperature": 1.2, "top_k": 300, "top_p": 0.95, "max_new_tokens": 300, "use_cache": True,
}  # fmt: skip
VQA_LOADER = Script("", 128, _GREEDY | {"max_new_tokens": 128}, _GREEDY | {"max_new_tokens": 128})
SCIENCE = Script(
    LETTER,
    1024,
    _GREEDY | {"max_new_tokens": 1024, "stopping_criteria": None},
    {"do_sample": False, "temperature": 0.0, "max_new_tokens": 64, "use_cache": True},
)


def demo_calls(system: str, *, n_questions: int, repaired: bool) -> Calls:
    """`demo/visual_questioning.py`: the description, and questions that are not answered."""
    history: list[Message] = [("USER", f"{IMAGE_TAG}\n{DESCRIBE}"), ("ASSISTANT", None)]
    reply = yield Call(_prompt(history, system), _DEMO_FIRST)
    _clear_message(repaired)
    history[1] = ("ASSISTANT", reply)
    for _ in range(n_questions):
        reply = yield Call(_prompt([*history, ("VUSER", None)], system), _DEMO_ASKING)
    return reply


def demo_output(questions: Sequence[str]) -> str:
    """What the demo prints."""
    return "".join(f"VUSER:{number}:  {question}\n" for number, question in enumerate(questions))


def benchmark_calls(
    script: Script,
    system: str,
    tokenize: Tokenize,
    question: str | tuple[str, ...],
    *,
    n_questions: int,
    repaired: bool,
) -> Calls:
    """`model_vqa_loader.py --sq` and `model_vqa_science.py --sq` for one row.

    `question` is as the loader hands it over, a tuple of one text unless that is repaired. Raises AttributeError and
    ValueError where the released scripts do.
    """
    history: list[Message] = [("USER", f"{IMAGE_TAG}\n{DESCRIBE}{script.letter}"), ("ASSISTANT", None)]
    reply = yield Call(_prompt(history, system), script.first)
    _clear_message(repaired)
    history[1] = ("ASSISTANT", reply)
    own = []
    for _ in range(n_questions):
        cut = tokenize(_prompt([*history, ("VUSER", None)], system))[:-2]
        asked = yield Call("".join(cut), _ASKING)
        pieces = [*cut, *tokenize(asked), "</s>", *tokenize("ASSISTANT:")]
        answer = yield Call("".join(pieces), _GREEDY | {"max_new_tokens": script.max_new_tokens})
        own += [("USER", asked), ("ASSISTANT", answer)]
    final = [*history, *own, ("USER", _text(question) + script.letter), ("ASSISTANT", None)]
    return (yield Call(_prompt(final, system), script.final))


def answer_row(question_id: int | str, question: str, reply: str, model_id: str) -> dict[str, Any]:
    """A line of the loader's answer file, but for its random `answer_id`."""
    return {
        "question_id": question_id, "prompt": question, "text": reply.strip(), "model_id": model_id, "metadata": {},
    }  # fmt: skip


def _prompt(messages: Sequence[Message], system: str) -> str:
    return "<s>" + released_two_prompt(messages, system)


def _clear_message(repaired: bool) -> None:
    """The scripts call a method that their conversations do not have."""
    if not repaired:
        raise AttributeError("'Conversation' object has no attribute 'clear_message'")


def _text(message: str | tuple[str, ...]) -> str:
    """The template takes a tuple for (text, image, mode)."""
    if isinstance(message, tuple):
        message, _, _ = message
    return message
