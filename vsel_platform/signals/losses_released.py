"""PreSel's losses exactly as released (specification A1.2, A1.3): for comparison; `signals.losses` is the default.

The released label masking splits the prompt's text and masks a whole row when its lengths do not add up, and
the question-free form joins all answers into one turn, so that the two conditions have different targets.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vsel_platform.errors import DataError
from vsel_platform.models.devices import DtypeName
from vsel_platform.models.images import ContentFailure
from vsel_platform.models.llava_released import (
    IMAGE_TOKEN,
    ReleasedLlava,
    expand_images,
    load_released_llava,
)
from vsel_platform.models.released_tokenizer import ReleasedTokenizer
from vsel_platform.models.templates import IMAGE_TAG
from vsel_platform.models.vlm import IGNORED_LABEL, RenderedRow
from vsel_platform.signals.answer_scoring import RowScores, score_windows
from vsel_platform.signals.windows import WindowOptions

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
ROLES = {"human": "USER", "gpt": "ASSISTANT"}
END = "</s>"
ANSWER_SEPARATOR = " ASSISTANT: "


@dataclass(frozen=True, slots=True)
class ReleasedLosses:
    """`values`: {"unique_idx", "loss", "perplexity"} per scored entry in order, NaN where all labels were masked.
    `failures`: entries that would have ended the released run, by unique_idx."""

    values: list[dict[str, Any]]
    failures: list[ContentFailure]


def released_texts(conversations: Sequence[dict[str, str]]) -> list[str]:
    """Texts of the turns after LLaVA's `preprocess_multimodal`: a tag moves to the front of its turn."""
    texts = []
    for turn in conversations:
        value = turn["value"]
        if IMAGE_TAG in value:
            value = (IMAGE_TAG + "\n" + value.replace(IMAGE_TAG, "").strip()).strip()
        texts.append(value)
    return texts


def released_prompt(conversations: Sequence[dict[str, str]]) -> str:
    """The vicuna_v1 prompt of an entry; a first turn that is not human is dropped.

    Raises DataError where the released code stops: roles that do not alternate, an unknown role, no turn.
    """
    turns = [(turn["from"], text) for turn, text in zip(conversations, released_texts(conversations), strict=True)]
    if not turns:
        raise DataError("the entry has no turns")
    if turns[0][0] != "human":
        turns = turns[1:]
    prompt = SYSTEM + " "
    for position, (role, text) in enumerate(turns):
        expected = "human" if position % 2 == 0 else "gpt"
        if role != expected:
            raise DataError(f"turn {position} is from {role!r}, expected {expected!r}")
        separator = " " if position % 2 == 0 else END
        prompt += f"{ROLES[role]}: {text}{separator}" if text else f"{ROLES[role]}:"
    return prompt


def released_ids(text: str, tokenizer: ReleasedTokenizer) -> list[int]:
    """Token ids with IMAGE_TOKEN for every tag: the chunks between tags are tokenised on their own."""
    first, *others = (tokenizer.encode(chunk) for chunk in text.split(IMAGE_TAG))
    ids = list(first)
    for chunk in others:
        ids += [IMAGE_TOKEN, *chunk[1:]]
    return ids


def released_labels(prompt: str, tokenizer: ReleasedTokenizer) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ids and labels int64 [n] of a prompt; labels are IGNORED_LABEL outside the answers (A1.3, steps 3 and 4)."""
    ids = np.array(released_ids(prompt, tokenizer), dtype=np.int64)
    labels = ids.copy()
    labels[0] = IGNORED_LABEL
    current = 1
    for number, part in enumerate(prompt.split(END)):
        pieces = part.split(ANSWER_SEPARATOR)
        if not part or len(pieces) != 2:
            break
        # "USER" is one token after the end token, but two with the word mark at the start of a text.
        joined = 1 if number > 0 and not tokenizer.legacy else 0
        instruction = len(released_ids(pieces[0] + ANSWER_SEPARATOR, tokenizer)) - 2 - joined
        labels[current : current + instruction] = IGNORED_LABEL
        current += len(released_ids(part, tokenizer)) - joined
    labels[current:] = IGNORED_LABEL
    if current < tokenizer.model_max_length and current != int((ids != tokenizer.pad_id).sum()):
        labels[:] = IGNORED_LABEL
    return ids, labels


def released_losses(
    entries: Sequence[dict[str, Any]],
    model_dir: Path,
    image_folder: Path,
    *,
    vision_tower: Path | None = None,
    device: str = "auto",
    dtype: DtypeName = "float32",
    batch_tokens: int = 8192,
) -> ReleasedLosses:
    """Loss and perplexity of LLaVA entries as PreSel's `loss_ppl_calc.py` gives them.

    Entries are `{"image", "unique_idx", "conversations"}`; run it on the rewritten entries for the loss without
    question. An entry that would end the released run (image missing, roles wrong) becomes a failure. Rows are
    batched and images shared, which the released code does not do; values agree to 1e-4.
    """
    model = load_released_llava(model_dir, vision_tower=vision_tower, device=device, dtype=dtype)
    rows = [_Entry(entry) for entry in entries]
    values: list[dict[str, Any]] = []
    failures: list[ContentFailure] = []
    for window in score_windows(
        model,
        rows,
        lambda name: _open(image_folder / name),
        conditions=lambda row: ("full",),
        options=WindowOptions(batch_tokens),
        render=lambda row, *_: released_row(row.turns_as_given, model),
    ):
        for result in window:
            if result.failure is not None and result.failure.reason != "no_answer_tokens":
                failures.append(result.failure)
            else:
                values.append(_value(result))
    return ReleasedLosses(values, failures)


def released_row(conversations: Sequence[dict[str, str]], model: ReleasedLlava) -> RenderedRow:
    """One entry as the released code feeds it to the model. Raises DataError where that code would stop."""
    prompt = released_prompt(conversations)
    if prompt.count(IMAGE_TAG) != 1:
        raise DataError(f"{prompt.count(IMAGE_TAG)} turns with <image>, and one image")
    ids, labels = expand_images(
        *released_labels(prompt, model.tokenizer),
        image_tokens=model.image_tokens,
        limit=model.max_positions,
    )
    return RenderedRow(ids, np.where(labels == IGNORED_LABEL, -1, 0))


class _Entry:
    """An entry as a row: its identity is `unique_idx`, its image the file name."""

    def __init__(self, entry: dict[str, Any]) -> None:
        self.unique_idx = entry["unique_idx"]
        self.turns_as_given: list[dict[str, str]] = entry["conversations"]
        self.images = [str(entry["image"])]

    @property
    def sample_id(self) -> str:
        return str(self.unique_idx)

    @property
    def turns(self) -> list[tuple[str, str]]:
        return [(turn["from"], turn["value"]) for turn in self.turns_as_given]


def _value(result: RowScores[_Entry]) -> dict[str, Any]:
    scores = result.scores.get("full")
    loss = float(scores.nll.mean()) if scores is not None else math.nan
    return {"unique_idx": result.row.unique_idx, "loss": loss, "perplexity": float(np.exp(loss))}


def _open(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")
