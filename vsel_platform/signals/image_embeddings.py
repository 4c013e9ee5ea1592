"""Embeddings of images: decoded once, ahead of the model; fixed batch shapes; failures as records."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vsel_platform.errors import ModelError
from vsel_platform.models.batching import BatchLimits, automatic_batch_size, run_with_oom_ladder
from vsel_platform.models.encoders import ImageEncoder
from vsel_platform.models.image_features import ACTIVATIONS_PER_PIXEL_BYTE
from vsel_platform.models.images import ContentFailure, Pixels, decode_ahead

if TYPE_CHECKING:
    from PIL import Image

ImageItem = tuple[str, "Callable[[], Image.Image]"]
_Decoded = tuple[str, Pixels | ContentFailure]


@dataclass(frozen=True, slots=True)
class EmbeddingBatch:
    """Vectors float32 [n, dimension] of `ids` (in the order of the items), and the items that have none."""

    ids: list[str]
    vectors: NDArray[np.float32]
    failures: list[ContentFailure]


def embed_images(
    encoder: ImageEncoder,
    items: Iterable[ImageItem],
    *,
    batch_size: int = 0,
    decode_workers: int = 2,
    limits: BatchLimits | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> Iterator[EmbeddingBatch]:
    """Embed `(image_id, load)` items; every distinct image is decoded and encoded once, by its first item.

    One EmbeddingBatch per `batch_size` consecutive distinct images (0 chooses the size). The model always sees
    batches of one shape, the last one padded, so a vector does not depend on how many images come after it. When
    memory is short the shape is halved, and stays so. `on_batch` gets the number of images done so far. Raises
    OutOfMemoryError if one image does not fit alone.
    """
    limits = limits or BatchLimits()
    done = 0
    batch: list[_Decoded] = []
    loaders = ((i, lambda load=load: encoder.preprocess(load())) for i, load in _distinct(items))
    for decoded in decode_ahead(loaders, workers=decode_workers):
        batch_size = batch_size or _automatic(encoder, decoded[1])
        batch.append(decoded)
        if len(batch) < (batch_size or 1):
            continue
        done += len(batch)
        yield _embed_batch(encoder, batch, batch_size, limits)
        if on_batch is not None:
            on_batch(done)
        batch = []
    if batch:
        yield _embed_batch(encoder, batch, batch_size, limits)
        if on_batch is not None:
            on_batch(done + len(batch))


def _distinct(items: Iterable[ImageItem]) -> Iterator[ImageItem]:
    seen: set[str] = set()
    for image_id, load in items:
        if image_id not in seen:
            seen.add(image_id)
            yield image_id, load


def _automatic(encoder: ImageEncoder, first: Pixels | ContentFailure) -> int:
    """Batch size for pictures like `first`; 0 (ask again) while nothing could be decoded."""
    if isinstance(first, ContentFailure):
        return 0
    return automatic_batch_size(encoder.device, first.nbytes * ACTIVATIONS_PER_PIXEL_BYTE)


def _embed_batch(
    encoder: ImageEncoder, batch: Sequence[_Decoded], batch_size: int, limits: BatchLimits
) -> EmbeddingBatch:
    failures = [pixels for _, pixels in batch if isinstance(pixels, ContentFailure)]
    good = [(image_id, pixels) for image_id, pixels in batch if not isinstance(pixels, ContentFailure)]
    key = (encoder.fingerprint, encoder.device, "images")
    vectors: list[NDArray[np.float32]] = []
    start = 0
    while start < len(good):
        shape = limits.limit(key, batch_size)
        part: list[tuple[str, Pixels] | None] = [*good[start : start + shape]]
        part += [None] * (shape - len(part))
        start += shape
        for _, found in run_with_oom_ladder(
            part,
            lambda piece: _encode_padded(encoder, piece),
            key=key,
            limits=limits,
            size_of=len,
            name_of=lambda item: f"image {item[0]}" if item else "padding",
        ):
            vectors += list(found)
    return _without_non_finite([image_id for image_id, _ in good], vectors, encoder.dimension, failures)


def _encode_padded(encoder: ImageEncoder, piece: Sequence[tuple[str, Pixels] | None]) -> NDArray[np.float32]:
    """Vectors of the images of a piece; its shape counts the padding (None) behind them."""
    images = [item[1] for item in piece if item is not None]
    if not images:
        return np.empty((0, encoder.dimension), dtype=np.float32)
    if len({pixels.shape for pixels in images}) > 1:
        sizes = ", ".join(sorted({str(pixels.shape) for pixels in images}))
        raise ModelError(
            f"{encoder.name}: preprocessing gives pictures of different sizes ({sizes}); use an image processor "
            "with a fixed output size"
        )
    pixels = np.zeros((len(piece), *images[0].shape), dtype=np.float32)
    pixels[: len(images)] = np.stack(images)
    return encoder.encode(pixels)[: len(images)]


def _without_non_finite(
    ids: list[str], vectors: list[NDArray[np.float32]], dimension: int, failures: list[ContentFailure]
) -> EmbeddingBatch:
    matrix = np.stack(vectors) if vectors else np.empty((0, dimension), dtype=np.float32)
    finite: NDArray[np.bool_] = np.asarray(np.isfinite(matrix).all(axis=1))
    bad = [
        ContentFailure(image_id, "non_finite_embedding", "the encoder gives a vector that is not finite")
        for image_id, ok in zip(ids, finite, strict=True)
        if not ok
    ]
    kept = [image_id for image_id, ok in zip(ids, finite, strict=True) if ok]
    return EmbeddingBatch(kept, matrix[finite], failures + bad)
