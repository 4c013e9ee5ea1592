"""ScalSelect's extraction as released (specification B1.2, B1.3): for comparison; `signals.vision_representations` is
the default.

The released code renders the checkpoint's own chat template with all answers, looks for the answers' tokens in the
result, and takes everything else that is no image for the instruction. Here only the vision tower, the projector and
the first decoder layer run, where the released code ran all layers and kept every attention map.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vsel_platform.config import VlmSettings
from vsel_platform.errors import ModelError
from vsel_platform.methods.scalselect_released import attended_vision_released
from vsel_platform.methods.scalselect_released_data import convert_messages
from vsel_platform.models.devices import DtypeName
from vsel_platform.models.images import ContentFailure, attempt_image
from vsel_platform.models.llava import LlavaAdapter, load_llava
from vsel_platform.models.quiet import quiet_transformers
from vsel_platform.models.vlm import AttentionRows, RenderedRow

if TYPE_CHECKING:
    from PIL import Image

Positions = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ReleasedRow:
    """One row as the released code sees it, in its batch, which is padded on the left.

    text: the prompt, an image tag per image. input_ids: int64 [S]. vision, user, assistant: positions int64, none in
    two of them. attended: which of `vision` are averaged, largest attention first.
    """

    sample_id: str
    text: str
    input_ids: Positions
    vision: Positions
    user: Positions
    assistant: Positions
    attended: Positions


@dataclass(frozen=True, slots=True)
class ReleasedRepresentations:
    """ids and vectors float32 [n, model width] of the rows that have one, in order, how they came about, and the
    entries that the released code drops."""

    ids: list[str]
    vectors: NDArray[np.float32]
    rows: list[ReleasedRow]
    failures: list[ContentFailure]


@dataclass(frozen=True, slots=True)
class _Sample:
    sample_id: str
    messages: list[dict[str, str]]
    images: "list[Image.Image]"


@dataclass(frozen=True, slots=True)
class _Batch:
    """input_ids, is_padding: [rows, S]; pixels float32 [images, 3, height, width], row by row."""

    texts: list[str]
    input_ids: Positions
    is_padding: NDArray[np.bool_]
    pixels: NDArray[np.float32]


def released_representations(
    model_dir: Path,
    entries: Sequence[dict[str, Any]],
    image_folder: Path,
    *,
    threshold: float = 0.9,
    batch_size: int = 1,
    max_length: int = 4096,
    device: str = "auto",
    dtype: DtypeName = "float32",
) -> ReleasedRepresentations:
    """Vectors of ShareGPT entries as `feature_extract_sft.py` gives them for a LLaVA in the transformers format.

    Entries are `{"id", "messages", "images"}`; image names are relative to `image_folder`. Dropped are entries without
    id, messages or an image that opens; of several images those that do not open are left out. One entry that cannot
    be processed (cut off inside an image, say) takes its whole batch with it. Padding is listed among `vision` or
    `user` as in the released code, but neither pays attention nor is averaged; heads are averaged in float32. Raises
    ModelError if the checkpoint is no such LLaVA or has no processor.
    """
    settings = VlmSettings(model=str(model_dir), template="plain", dtype=dtype, max_tokens=max_length)
    model = load_llava(settings, device)
    processor = _load_processor(model_dir)
    failures: list[ContentFailure] = []
    rows: list[ReleasedRow] = []
    vectors = [np.zeros((0, model.model.config.text_config.hidden_size), np.float32)]
    for samples in _batches(entries, image_folder, batch_size, failures):
        batch = _process(processor, model, samples, max_length)
        if isinstance(batch, str):
            failures += [ContentFailure(sample.sample_id, "batch_failed", batch) for sample in samples]
            continue
        for found in _represent(model, processor.tokenizer, samples, batch, threshold):
            if isinstance(found, ContentFailure):
                failures.append(found)
            else:
                rows.append(found[0])
                vectors.append(found[1][None])
    return ReleasedRepresentations([row.sample_id for row in rows], np.concatenate(vectors), rows, failures)


def answer_positions(ids: Sequence[int], answers: Sequence[Sequence[int]], start: int = 0) -> Positions:
    """Positions of the answers' tokens in `ids`, int64, found as released.

    Each answer is its first occurrence at or behind the end of the one found before, from `start` on, even if that
    is in a question; one that does not occur is passed over.
    """
    found: list[int] = []
    for answer in answers:
        size = len(answer)
        for first in range(start, len(ids) - size + 1 if size else 0):
            if list(ids[first : first + size]) == list(answer):
                start = first + size
                found += range(first, start)
                break
    return np.array(found, np.int64)


def _load_processor(model_dir: Path) -> Any:
    import transformers

    try:
        with quiet_transformers():
            processor = transformers.AutoProcessor.from_pretrained(model_dir, backend="pil", trust_remote_code=False)
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(f"{model_dir}: the processor cannot be loaded: {error}") from error
    lacking = [name for name in ("tokenizer", "chat_template", "patch_size") if getattr(processor, name, None) is None]
    if lacking:
        raise ModelError(
            f"{model_dir}: the processor has no {', '.join(lacking)}; save the checkpoint's LlavaProcessor beside it"
        )
    processor.tokenizer.padding_side = "left"
    if processor.tokenizer.pad_token is None:
        processor.tokenizer.pad_token = processor.tokenizer.eos_token
    return processor


def _batches(
    entries: Sequence[dict[str, Any]], image_folder: Path, size: int, failures: list[ContentFailure]
) -> Iterator[list[_Sample]]:
    """Usable entries in batches of `size`; the others are added to `failures`."""
    batch: list[_Sample] = []
    for number, entry in enumerate(entries):
        sample = _sample(entry, number, image_folder)
        if isinstance(sample, ContentFailure):
            failures.append(sample)
            continue
        batch.append(sample)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _sample(entry: dict[str, Any], number: int, image_folder: Path) -> _Sample | ContentFailure:
    if entry.get("id") is None:
        return ContentFailure(f"entry {number}", "no_id", "the entry has no id")
    sample_id = str(entry["id"])
    if not entry.get("messages"):
        return ContentFailure(sample_id, "no_messages", "the entry has no messages")
    names = entry.get("images") or []
    paths = [image_folder / name for name in ([names] if isinstance(names, str) else names)]
    opened = [attempt_image(str(path), partial(_open, path)) for path in paths]
    images = [image for image in opened if not isinstance(image, ContentFailure)]
    if not images:
        broken = [f"{image.content_id}: {image.detail}" for image in opened if isinstance(image, ContentFailure)]
        return ContentFailure(sample_id, "no_image", "; ".join(broken) or "the entry has no image")
    return _Sample(sample_id, entry["messages"], images)


def _open(path: Path) -> "Image.Image":
    from PIL import Image

    with Image.open(path) as image:
        return image.convert("RGB")


def _process(processor: Any, model: LlavaAdapter, samples: Sequence[_Sample], max_length: int) -> _Batch | str:
    """Tokens and pixels of a batch; why there are none, if the processor or the model refuses it."""
    from jinja2 import TemplateError

    try:
        messages = [convert_messages(sample.messages, len(sample.images)) for sample in samples]
        texts = [processor.apply_chat_template(own, tokenize=False, add_generation_prompt=False) for own in messages]
        processed = processor(
            text=list(texts),
            images=[sample.images for sample in samples],
            padding=True,
            truncation=True,
            max_length=max_length,
            return_tensors="np",
        )
    except (KeyError, TypeError, ValueError, TemplateError) as error:
        return f"{type(error).__name__}: {error}"
    ids = np.asarray(processed["input_ids"], np.int64)
    needed = [len(sample.images) * model.image_tokens for sample in samples]
    given = [len(model.image_places(_tokens(row))) for row in ids]
    if given != needed:
        return f"{given} image tokens in the rows, but {needed} image features"
    is_padding = np.asarray(processed["attention_mask"]) == 0
    return _Batch(texts, ids, is_padding, np.asarray(processed["pixel_values"], np.float32))


def _represent(
    model: LlavaAdapter, tokenizer: Any, samples: Sequence[_Sample], batch: _Batch, threshold: float
) -> list[tuple[ReleasedRow, NDArray[np.float32]] | ContentFailure]:
    """Rows with vectors float32 [model width]. What lies in the padding is left out before the model runs."""
    places = [
        _positions(tokenizer, sample, ids, is_padding)
        for sample, ids, is_padding in zip(samples, batch.input_ids, batch.is_padding, strict=True)
    ]
    padding = batch.is_padding.sum(axis=1)
    user, vision = (
        [own[kind][own[kind] >= lead] - lead for own, lead in zip(places, padding, strict=True)] for kind in (0, 1)
    )
    rows = [_tokens(ids[lead:]) for ids, lead in zip(batch.input_ids, padding, strict=True)]
    hidden, mass = _first_layer(model, rows, [len(s.images) for s in samples], batch.pixels, (user, vision))
    results: list[tuple[ReleasedRow, NDArray[np.float32]] | ContentFailure] = []
    for k, (all_user, all_vision, assistant) in enumerate(places):
        n = len(vision[k])
        if not n or not len(user[k]):
            why = f"{n} vision and {len(user[k])} instruction tokens"
            results.append(ContentFailure(samples[k].sample_id, "no_positions", why))
            continue
        # One row of attention that is the mean already.
        vector, chosen = attended_vision_released(hidden[k, vision[k]], mass[k : k + 1, :n], [0], range(n), threshold)
        attended = chosen + (len(all_vision) - n)
        ids = batch.input_ids[k]
        row = ReleasedRow(samples[k].sample_id, batch.texts[k], ids, all_vision, all_user, assistant, attended)
        results.append((row, vector))
    return results


def _first_layer(
    model: LlavaAdapter,
    rows: Sequence[RenderedRow],
    n_images: Sequence[int],
    pixels: NDArray[np.float32],
    places: tuple[list[Positions], list[Positions]],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Hidden states [rows, tokens, width] behind the first decoder layer, and the mean attention [rows, vision] that
    the first `places` of a row pay to the second."""
    import torch

    with torch.inference_mode():
        features = torch.split(model.project(model.tower_features(pixels)), list(n_images))
        states = model.layer_states(
            rows, [list(own) for own in features], layers=[1], attention=AttentionRows([0], *places)
        )
        return states.hidden[1].float().cpu().numpy(), states.mass[0].cpu().numpy()


def _tokens(ids: Positions) -> RenderedRow:
    return RenderedRow(ids, np.full(len(ids), -1))


def _positions(
    tokenizer: Any, sample: _Sample, ids: Positions, is_padding: NDArray[np.bool_]
) -> tuple[Positions, Positions, Positions]:
    """Positions (user, vision, assistant) of a row. Vision is every token that was added to the vocabulary, which
    includes padding and may include chat markers."""
    special = [getattr(tokenizer, name, None) for name in ("vision_token_id", "image_token_id")]
    is_vision = (ids >= tokenizer.vocab_size) | np.isin(ids, [i for i in special if i is not None])
    answers = [m["content"].strip() for m in sample.messages if m["role"] == "assistant"]
    tokens = [tokenizer(answer, add_special_tokens=False)["input_ids"] for answer in answers]
    assistant = answer_positions(ids.tolist(), tokens, int(is_padding.sum()))
    is_user = ~is_vision
    is_user[assistant] = False
    return np.flatnonzero(is_user), np.flatnonzero(is_vision), assistant
