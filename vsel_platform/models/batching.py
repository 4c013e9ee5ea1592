"""Batches of a token budget, and what happens when one does not fit into memory."""

import gc
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TypeVar

from vsel_platform.errors import OutOfMemoryError

T = TypeVar("T")
R = TypeVar("R")

MOST_IMAGES = {"cpu": 32, "cuda": 256}
"""Largest automatic image batch of a device kind; beyond it a batch only costs memory."""

CPU_BATCH_TOKENS = 2048
"""Largest token batch on a CPU: beyond it activations fall out of its caches and a token takes longer."""

_MEMORY_PHRASES = ("out of memory", "can't allocate", "cannot allocate", "not enough memory")


class BatchLimits:
    """Largest batch that is known to fit, per key (model, device, unit): found once, used from then on."""

    def __init__(self) -> None:
        self._limits: dict[Hashable, int] = {}

    def limit(self, key: Hashable, default: int) -> int:
        """The remembered limit of `key`, or `default` if nothing smaller is known."""
        return min(default, self._limits.get(key, default))

    def lower(self, key: Hashable, limit: int) -> None:
        """Remember that batches of `key` must not be larger than `limit` (at least 1)."""
        self._limits[key] = max(1, min(limit, self._limits.get(key, limit)))


def is_out_of_memory(error: BaseException) -> bool:
    """True for the exceptions by which torch, CUDA and Python say that memory is short."""
    if isinstance(error, MemoryError):
        return True
    if not isinstance(error, RuntimeError):  # torch.cuda.OutOfMemoryError is a RuntimeError too
        return False
    if type(error).__name__ == "OutOfMemoryError":
        return True
    return any(phrase in str(error).lower() for phrase in _MEMORY_PHRASES)


def free_memory() -> None:
    """Give back what a failed batch still holds (Python cycles, torch's CUDA cache)."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def token_batches(lengths: Sequence[int], limit: Callable[[], int]) -> Iterator[list[int]]:
    """Cut rows into batches whose padded size (rows x longest row) stays within a token budget.

    `lengths` are tokens per row; `limit()` is asked before every batch, so that a budget that was lowered on the
    way counts at once. Yields row indices, longest rows first (a batch that does not fit shows at the start), ties
    by index; a row longer than the budget is a batch of its own.
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    start = 0
    while start < len(order):
        rows = max(1, limit() // max(1, lengths[order[start]]))
        yield order[start : start + rows]
        start += rows


def run_with_oom_ladder(
    batch: Sequence[T],
    run: Callable[[Sequence[T]], R],
    *,
    key: Hashable,
    limits: BatchLimits,
    size_of: Callable[[Sequence[T]], int],
    name_of: Callable[[T], str],
) -> list[tuple[Sequence[T], R]]:
    """Run `batch`; when memory is short, run its halves instead, down to single rows.

    Returns `(part, result)` pairs in order. `limits` learns half the size (in the unit of `size_of`) of every batch
    that did not fit. Raises OutOfMemoryError that names the row (`name_of`) that does not fit alone; other errors
    of `run` pass through.
    """
    try:
        return [(batch, run(batch))]
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        if len(batch) == 1:
            raise OutOfMemoryError(
                f"{name_of(batch[0])} does not fit into memory even alone ({size_of(batch)} units of "
                f"{key!r}): {error}. Lower vlm.max_tokens, use a smaller dtype or a device with more memory"
            ) from error
    # Outside the handler: the exception's traceback would keep the tensors of the failed batch alive.
    free_memory()
    limits.lower(key, size_of(batch) // 2)
    half = (len(batch) + 1) // 2
    parts = (batch[:half], batch[half:])
    return [
        pair
        for part in parts
        for pair in run_with_oom_ladder(part, run, key=key, limits=limits, size_of=size_of, name_of=name_of)
    ]


def automatic_batch_size(device: str, item_bytes: int) -> int:
    """Images per batch when the settings leave it open: a power of two.

    `item_bytes` is an estimate of what one image needs at the model's peak; the batch gets at most half of the
    free memory of the device, and never more images than MOST_IMAGES.
    """
    kind = device.split(":", maxsplit=1)[0]
    affordable = _free_bytes(device) // 2 // max(1, item_bytes)
    size = MOST_IMAGES.get(kind, MOST_IMAGES["cpu"])
    while size > 1 and size > affordable:
        size //= 2
    return size


def _free_bytes(device: str) -> int:
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(torch.device(device).index)[0])
    import psutil

    return int(psutil.virtual_memory().available)


def usable_batch_tokens(batch_tokens: int, device: str) -> int:
    """Tokens per batch on `device`: what the settings allow, and no more than CPU_BATCH_TOKENS on a CPU."""
    return min(batch_tokens, CPU_BATCH_TOKENS) if device.startswith("cpu") else batch_tokens
