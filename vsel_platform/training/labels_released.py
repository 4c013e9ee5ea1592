"""Labels of LLaVA and SQ-LLaVA exactly as released, for comparison; `models.rendering` is the default.

The released code splits the prompt's text at its separators and counts re-tokenised pieces. Known faults, kept: a
question that contains " ASSISTANT: " masks its whole row (LLaVA) or teaches the model the user's words (SQ-LLaVA);
SQ-LLaVA keeps an answer at the start of a conversation, so that roles fall out of step.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from vsel_platform.errors import DataError
from vsel_platform.models.llava_released import IMAGE_TOKEN
from vsel_platform.models.templates import IMAGE_TAG
from vsel_platform.models.vlm import IGNORED_LABEL
from vsel_platform.signals.losses_released import released_texts

END = "</s>"
ROLES = {"human": "USER", "gpt": "ASSISTANT"}
VIRTUAL_USER = "VUSER"
Conversation = Sequence[Mapping[str, str]]


class LabelTokenizer(Protocol):
    """A tokenizer as the released label code uses it (`models.released_tokenizer.ReleasedTokenizer` is one)."""

    bos_id: int
    pad_id: int
    legacy: bool
    model_max_length: int

    def encode(self, text: str) -> list[int]:
        """Token ids of `text` with the tokenizer's special tokens, BOS first."""


class ReleasedLabels(NamedTuple):
    """Ids and labels int64 [n], and what the released code prints when its counts do not add up, or ""."""

    ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    warning: str


@dataclass(frozen=True, slots=True)
class Rounds:
    """How the released code takes a prompt apart.

    separator: between instruction and answer of a round. virtual_user: a round without it is a question that the model
    asks, instead of the end. joined: rounds after the first are one token shorter with a tokenizer that is not legacy.
    """

    separator: str = " ASSISTANT: "
    virtual_user: bool = False
    joined: bool = False


VICUNA = Rounds(joined=True)
VICUNA_SQ = Rounds(virtual_user=True)
LLAMA_2 = Rounds("[/INST] ")


def released_image_ids(prompt: str, tokenizer: LabelTokenizer) -> list[int]:
    """Token ids with IMAGE_TOKEN for every tag: the chunks between tags are tokenised on their own, and only the first
    keeps its BOS."""
    chunks = [tokenizer.encode(chunk) for chunk in prompt.split(IMAGE_TAG)]
    begins = chunks[0][:1] == [tokenizer.bos_id]
    ids = list(chunks[0])
    for chunk in chunks[1:]:
        ids += [IMAGE_TOKEN, *chunk[begins:]]
    return ids


def released_conversation(conversation: Conversation) -> list[dict[str, str]]:
    """An image row's turns after `preprocess_multimodal`: tags become one at the front of their turn."""
    turns = [dict(turn) for turn in conversation]
    return [{**turn, "value": text} for turn, text in zip(turns, released_texts(turns), strict=True)]


def released_flips(conversation: Conversation, ratio: float, draw: Callable[[], float]) -> list[bool]:
    """SQ-LLaVA: for every human turn of an image row behind the first turn, in order, whether the model asks it."""
    return [draw() < ratio for number, turn in enumerate(conversation) if number and turn["from"] == "human"]


def released_two_prompt(messages: Sequence[tuple[str, str | None]], system: str) -> str:
    """A prompt of `(ROLE, text)` messages (None: open), separated by a blank and the end token in turns."""
    prompt = system + " "
    for position, (role, text) in enumerate(messages):
        prompt += f"{role}: {text}{END if position % 2 else ' '}" if text else f"{role}:"
    return prompt


def released_vicuna_prompt(conversation: Conversation, system: str) -> str:
    """LLaVA's v1 prompt; a first turn that is not human is dropped. Raises DataError for roles out of step."""
    return released_two_prompt([(ROLES[role], text) for role, text in _alternating(conversation)], system)


def released_sq_prompt(conversation: Conversation, system: str, flips: Sequence[bool] = ()) -> str:
    """SQ-LLaVA's v1_sq prompt, with the human turns behind the first turn flipped (`released_flips`)."""
    left, messages = list(flips), []
    for number, turn in enumerate(conversation):
        flipped = bool(left) and number > 0 and turn["from"] == "human" and left.pop(0)
        messages.append((VIRTUAL_USER, turn["value"] + END) if flipped else (ROLES[turn["from"]], turn["value"]))
    return released_two_prompt(messages, system)


def released_llama_2_prompt(conversation: Conversation, system: str) -> str:
    """LLaVA's llava_llama_2 prompt; a first turn that is not human is dropped. Raises DataError as for vicuna."""
    prompt = ""
    for position, (_, text) in enumerate(_alternating(conversation)):
        words = f"<<SYS>>\n{system}\n<</SYS>>\n\n{text}" if not position else text
        prompt += f" {text} {END}" if position % 2 else f"<s>[INST] {words} [/INST]"
    return prompt.removeprefix("<s>")


def released_round_labels(prompt: str, tokenizer: LabelTokenizer, rounds: Rounds, *, has_image: bool) -> ReleasedLabels:
    """Ids and labels of a prompt, from the lengths of its re-tokenised rounds; rows without image are cut."""

    def tokens(text: str) -> list[int]:
        return released_image_ids(text, tokenizer) if has_image else tokenizer.encode(text)

    ids = np.array(tokens(prompt)[: None if has_image else tokenizer.model_max_length], dtype=np.int64)
    labels, current = ids.copy(), 1
    labels[:1] = IGNORED_LABEL
    for number, part in enumerate(prompt.split(END)):
        pieces = part.split(rounds.separator)
        if not part or (len(pieces) != 2 and not rounds.virtual_user):
            break
        instruction = pieces[0] + rounds.separator if len(pieces) == 2 else f"{VIRTUAL_USER}: "
        joined = int(rounds.joined and number > 0 and not tokenizer.legacy)
        labels[current : current + len(tokens(instruction)) - 2 - joined] = IGNORED_LABEL
        current += len(tokens(part)) - joined
    labels[current:] = IGNORED_LABEL
    total = int((ids != tokenizer.pad_id).sum())
    if current >= tokenizer.model_max_length or current == total:
        return ReleasedLabels(ids, labels, "")
    warning = f"WARNING: tokenization mismatch: {current} vs. {total}. (ignored)"
    return ReleasedLabels(ids, np.full_like(labels, IGNORED_LABEL), warning)


def released_plain_prompt(conversation: Conversation) -> str:
    """Pre-training: the image and its caption; what the human said is dropped. Raises DataError for another form."""
    if len(conversation) != 2 or IMAGE_TAG not in conversation[0]["value"]:
        raise DataError("a pre-training row is one turn with <image>, and its caption")
    return IMAGE_TAG + conversation[1]["value"] + "\n"


def released_plain_labels(prompt: str, tokenizer: LabelTokenizer) -> ReleasedLabels:
    """Ids and labels of a pre-training prompt: everything behind the image."""
    ids = np.array(released_image_ids(prompt, tokenizer), dtype=np.int64)
    labels = ids.copy()
    labels[: len(released_image_ids(IMAGE_TAG, tokenizer))] = IGNORED_LABEL
    return ReleasedLabels(ids, labels, "")


def _alternating(conversation: Conversation) -> list[tuple[str, str]]:
    turns = [(turn["from"], turn["value"]) for turn in conversation]
    if turns and turns[0][0] != "human":
        turns = turns[1:]
    for position, (role, _) in enumerate(turns):
        expected = "gpt" if position % 2 else "human"
        if role != expected:
            raise DataError(f"turn {position} is from {role!r}, expected {expected!r}")
    return turns
