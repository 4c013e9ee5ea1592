"""Free2DS's attention maps as released (specification C1.2, C1.3): for comparison; `signals.attention_maps` is the
default.

The released LLaVA script saves nothing: it asks the model for one pass and indexes the result as generated steps.
This is the routine of the script for the other model, which works, applied to LLaVA. Its prompt ends in a blank
without the assistant's marker, the request for one word is repeated where the question has it, and the tokens that
name the maps are one place off.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vsel_platform.errors import DataError
from vsel_platform.methods.free2ds_released_data import first_question, one_word_message, one_word_prompt
from vsel_platform.models.devices import DtypeName
from vsel_platform.models.generation import generate_with_attention
from vsel_platform.models.images import ContentFailure
from vsel_platform.models.llava_released import IMAGE_TOKEN, ReleasedLlava, expand_images, load_released_llava
from vsel_platform.models.vlm import GeneratedAnswer, RenderedRow
from vsel_platform.signals.losses_released import released_ids
from vsel_platform.signals.relative_attention import relative_maps
from vsel_platform.signals.windows import RowWindow, WindowOptions, windows

MAX_NEW_TOKENS = 100
MAX_LENGTH = 2048
ReleasedTemplate = Literal["llava_v1", "vicuna_v1"]


@dataclass(frozen=True, slots=True)
class ReleasedAttention:
    """What the released script saves of one entry; T is the number of generated tokens.

    token_ids: int64 [T - 1], the first ones of the sequence, which begins with BOS: map t stands beside the token
    before the one it belongs to. attention, relative: float32 [T - 1, P]. vision: range [start, end) of the image
    tokens in the prompt.
    """

    unique_id: Any
    token_ids: NDArray[np.int64]
    attention: NDArray[np.float32]
    relative: NDArray[np.float32]
    vision: tuple[int, int]


@dataclass(frozen=True, slots=True)
class ReleasedMaps:
    """`values` in order; `skipped`: ids of the entries without an image, which the released script leaves out without
    a word; `failures`: entries that would have ended its chunk, by unique_id."""

    values: list[ReleasedAttention]
    skipped: list[Any]
    failures: list[ContentFailure]


def released_attention(
    entries: Sequence[dict[str, Any]],
    model_dir: Path,
    image_folder: Path,
    *,
    vision_tower: Path | None = None,
    template: ReleasedTemplate = "llava_v1",
    max_new_tokens: int = MAX_NEW_TOKENS,
    device: str = "auto",
    dtype: DtypeName = "float32",
    batch_tokens: int = 8192,
) -> ReleasedMaps:
    """Attention maps of entries `{"unique_id", "image", "conversations"}` under an original LLaVA checkpoint.

    Rows are batched and images shared, which the released code does not do; values agree to 1e-5 in float32. An
    answer of one token has no maps and is a value nevertheless. Raises DataError for an entry without a unique_id.
    """
    for number, entry in enumerate(entries):
        if "unique_id" not in entry:
            raise DataError(f"entry {number} has no unique_id; add ids first (write_with_unique_id)")
    model = load_released_llava(model_dir, vision_tower=vision_tower, device=device, dtype=dtype)
    rows = [_Entry(entry) for entry in entries if entry.get("image")]
    result = ReleasedMaps([], [entry["unique_id"] for entry in entries if not entry.get("image")], [])
    for window in windows(model, rows, lambda name: _open(image_folder / name), WindowOptions(batch_tokens)):
        found = _window_maps(model, window, template, max_new_tokens)
        result.values.extend(found[i] for i in sorted(found))
        result.failures.extend(window.failures[i] for i in sorted(window.failures))
    return result


def released_attention_ids(
    conversations: Sequence[dict[str, str]], model: ReleasedLlava, template: ReleasedTemplate = "llava_v1"
) -> NDArray[np.int64]:
    """Token ids int64 [n] of the one-word prompt, IMAGE_TOKEN for the image, cut to 2,048 of them.

    Raises DataError where the released code stops: no answered question, or not one image tag.
    """
    prompt = one_word_prompt(one_word_message(first_question(conversations)), template)
    ids = np.array(released_ids(prompt, model.tokenizer)[:MAX_LENGTH], np.int64)
    tags = int((ids == IMAGE_TOKEN).sum())
    if tags != 1:
        raise DataError(f"the prompt has {tags} <image> tags within {MAX_LENGTH} tokens, and one image")
    return ids


class _Entry:
    """An entry as a row: its identity is `unique_id`, its image the file name."""

    def __init__(self, entry: dict[str, Any]) -> None:
        self.unique_id = entry["unique_id"]
        self.conversations: list[dict[str, str]] = entry["conversations"]
        self.images = [str(entry["image"])]

    @property
    def sample_id(self) -> str:
        return str(self.unique_id)

    @property
    def turns(self) -> list[tuple[str, str]]:
        return [(turn["from"], turn["value"]) for turn in self.conversations]


def _window_maps(
    model: ReleasedLlava, window: RowWindow[_Entry], template: ReleasedTemplate, max_new_tokens: int
) -> dict[int, ReleasedAttention]:
    prompts = _prompts(model, window, template)
    window.load_images(list(prompts))
    todo = [i for i in prompts if i not in window.failures]

    def run(part: Sequence[int]) -> list[GeneratedAnswer]:
        return generate_with_attention(
            model,
            [prompts[i] for i in part],
            [window.features_of(i) for i in part],
            end_token=model.tokenizer.end_id,
            max_tokens=max_new_tokens,
        )

    found = {}
    for part, answers in window.run(todo, [len(prompts[i]) + max_new_tokens for i in todo], run):
        for i, answer in zip(part, answers, strict=True):
            found[i] = _saved(window.rows[i].unique_id, answer, model, prompts[i])
    return found


def _prompts(model: ReleasedLlava, window: RowWindow[_Entry], template: ReleasedTemplate) -> dict[int, RenderedRow]:
    found = {}
    for i, row in enumerate(window.rows):
        try:
            ids = released_attention_ids(row.conversations, model, template)
        except DataError as error:
            window.fail(i, "row_not_renderable", str(error))
            continue
        none = np.full(len(ids), -1, np.int64)
        prompt = RenderedRow(*expand_images(ids, none, image_tokens=model.image_tokens, limit=model.max_positions))
        if len(model.image_places(prompt)) < model.image_tokens:
            window.fail(i, "prompt_too_long", f"the image lies behind position {model.max_positions}")
        else:
            found[i] = prompt
    return found


def _saved(unique_id: Any, answer: GeneratedAnswer, model: ReleasedLlava, prompt: RenderedRow) -> ReleasedAttention:
    steps = len(answer.token_ids) - 1
    sequence = np.concatenate([[model.tokenizer.bos_id], answer.token_ids])
    start = int(model.image_places(prompt)[0])
    return ReleasedAttention(
        unique_id,
        sequence[:steps].astype(np.int64),
        answer.attention[:steps],
        relative_maps(answer.attention),
        (start, start + model.image_tokens),
    )


def _open(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")
