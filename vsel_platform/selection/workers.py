"""Threads whose number never changes a result: fixed pieces of work, each on one single-threaded BLAS."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Piece = TypeVar("Piece")
Result = TypeVar("Result")


class Workers:
    """Runs pieces of work on a pool of threads; results come back in the order of the pieces."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool

    def map(self, work: Callable[[Piece], Result], pieces: Iterable[Piece]) -> list[Result]:
        """`[work(piece) for piece in pieces]`, several at a time."""
        return list(self._pool.map(work, pieces))

    def submit(self, work: Callable[[Piece], Result], piece: Piece) -> "Future[Result]":
        """Start one piece of work while the caller goes on."""
        return self._pool.submit(work, piece)

    def blocks(self, work: Callable[[slice], Result], n_rows: int, rows_per_block: int = 2048) -> list[Result]:
        """`work` on consecutive row slices; the slices depend on `n_rows` alone."""
        starts = range(0, n_rows, rows_per_block)
        return self.map(work, [slice(start, min(start + rows_per_block, n_rows)) for start in starts])


@contextmanager
def workers(n_threads: int = 0) -> Iterator[Workers]:
    """A pool of `n_threads` threads (0 = as many as OpenMP would use), BLAS limited to one thread meanwhile.

    A matrix product that a BLAS splits over its own threads may round differently for every number of threads;
    here the split is ours and fixed.
    """
    import faiss
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    size = n_threads or int(faiss.omp_get_max_threads())
    with (
        threadpool_limits(limits=1),
        ThreadPoolExecutor(size, initializer=faiss.omp_set_num_threads, initargs=(1,)) as pool,
    ):
        yield Workers(pool)
