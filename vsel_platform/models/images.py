"""Opening images: decoded ahead of the model, and a broken one is a record, never a crash."""

import struct
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from vsel_platform.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

T = TypeVar("T")
Pixels = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ImageInput:
    """What a model's image processor makes of one picture, where that is more than pixels of one size.

    arrays: the vision tower's arguments by name, with the picture's own axis in front. layout: what the prompt has to
    know of the picture besides its number of tokens (a grid, or rows and columns of tiles).
    """

    arrays: dict[str, NDArray[Any]]
    layout: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return sum(array.nbytes for array in self.arrays.values())


Preprocessed = Pixels | ImageInput
ImageProvider = Callable[[str], "Image.Image | Preprocessed"]

READ_AHEAD = 16


@dataclass(frozen=True, slots=True)
class ContentFailure:
    """Content for which a signal could not be computed: identity, reason code, what happened."""

    content_id: str
    reason: str
    detail: str


def attempt_image(image_id: str, load: Callable[[], T]) -> T | ContentFailure:
    """`load()`, or the failure that its exception means.

    Reasons: image_missing (no such file), image_too_large (decompression bomb), image_unreadable (anything else
    that decoders raise). Lost connections and time-outs say nothing about the image and are raised.
    """
    from PIL import Image

    broken = (
        DataError, OSError, ValueError, SyntaxError, EOFError, IndexError, OverflowError,
        struct.error, zlib.error, Image.DecompressionBombError,
    )  # fmt: skip
    try:
        return load()
    except broken as error:
        cause = error.__cause__ if isinstance(error, DataError) and error.__cause__ else error
        if isinstance(cause, ConnectionError | TimeoutError):
            raise
        reason = "image_unreadable"
        if isinstance(cause, FileNotFoundError):
            reason = "image_missing"
        elif isinstance(cause, Image.DecompressionBombError):
            reason = "image_too_large"
        return ContentFailure(image_id, reason, f"{type(cause).__name__}: {error}")


def decode_ahead(
    items: Iterable[tuple[str, Callable[[], T]]], *, workers: int
) -> Iterator[tuple[str, T | ContentFailure]]:
    """Run the loaders of `(image_id, load)` items in threads, a bounded number ahead; results in order.

    `workers=0` runs each loader when its result is asked for.
    """
    if workers == 0:
        for image_id, load in items:
            yield image_id, attempt_image(image_id, load)
        return
    source = iter(items)
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        pending: deque[tuple[str, Future[T | ContentFailure]]] = deque()
        try:
            while True:
                for image_id, load in islice(source, workers * READ_AHEAD - len(pending)):
                    pending.append((image_id, pool.submit(attempt_image, image_id, load)))
                if not pending:
                    return
                image_id, future = pending.popleft()
                yield image_id, future.result()
        finally:
            for _, future in pending:
                future.cancel()
