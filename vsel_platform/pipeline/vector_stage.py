"""A stage that gives every content of a shard one vector: once per model, resumable, in LanceDB."""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vsel_platform.errors import StorageError
from vsel_platform.identity import hash_ids
from vsel_platform.models.images import ContentFailure
from vsel_platform.pipeline.context import Context, Inputs, StageResult, inputs_of
from vsel_platform.pipeline.parts import PartLog
from vsel_platform.pipeline.timing import record_rate
from vsel_platform.signals.failures import failures_table

PART_ROWS = 512


@dataclass(frozen=True, slots=True)
class VectorBatch:
    """Vectors float32 [n, d] of `ids`, and the contents that have none."""

    ids: Sequence[str]
    vectors: NDArray[np.float32] | Sequence[NDArray[np.float32]]
    failures: Sequence[ContentFailure] = ()


@dataclass(frozen=True)
class VectorStage:
    """What is special about one vector signal.

    source: table of the shard whose contents are embedded. unit: what progress counts. fingerprint: names the
    vectors under the project's settings. wanted: ids of a shard that have such a vector. compute: vectors of
    the given ids of a shard, batch by batch.
    """

    signal: str
    source: Literal["images", "samples"]
    code: str
    unit: str
    fingerprint: Callable[[Context], str]
    wanted: Callable[[Context, str], list[str]]
    compute: Callable[[Context, str, list[str]], Iterator[VectorBatch]]

    def partition(self, ctx: Context, shard: str) -> dict[str, str]:
        """Partition of a shard's vectors under the project's settings."""
        return {"fingerprint": self.fingerprint(ctx), "shard": shard}

    def inputs(self, ctx: Context, shard: str) -> Inputs:
        """What the stage reads: the shard's contents."""
        return inputs_of([ctx.store.require(self.source, {"shard": shard})], encoder=self.fingerprint(ctx))

    def is_current(self, ctx: Context, shard: str) -> bool:
        """Whether the stored vectors are those of the present contents and model."""
        pointer = ctx.store.pointer(self.signal, self.partition(ctx, shard))
        return pointer is not None and pointer.input_fingerprint == self.inputs(ctx, shard).fingerprint

    def missing(self, ctx: Context, shard: str) -> list[str]:
        """Ids of a shard whose vectors are neither stored nor finished."""
        ids = self.wanted(ctx, shard)
        stored = ctx.vectors.existing_ids(self.signal, self.fingerprint(ctx), ids)
        done = self._log(ctx, shard).load(["id"])
        finished = set(done["id"].to_pylist()) if done is not None else set()
        return [i for i in ids if i not in stored and i not in finished]

    def parts(self, ctx: Context, shard: str) -> "VectorParts":
        """Where another stage leaves vectors of a shard that it gets on its way; `run` takes them from there."""
        return VectorParts(self._log(ctx, shard))

    def run(self, ctx: Context, shard: str) -> StageResult:
        """Compute the vectors of a shard that are not there yet, and publish."""
        start = time.perf_counter()
        key, wanted = self.partition(ctx, shard), self.inputs(ctx, shard)
        ids = self.wanted(ctx, shard)
        known = ctx.vectors.existing_ids(self.signal, key["fingerprint"], ids)
        log = self._log(ctx, shard)
        vectors, failures, taken = self._compute(ctx, shard, [i for i in ids if i not in known], log)
        if not ctx.share.is_main:
            return StageResult(self.signal, {"shard": shard}, "", 0)
        if known:
            vectors.update(zip(*ctx.vectors.read(self.signal, key["fingerprint"], sorted(known)), strict=True))
        version = self._store(ctx, key, vectors)
        failed = failures_table(failures)
        ctx.store.publish(
            "signal_failures",
            {"signal": self.signal, **key},
            failed,
            run_id=ctx.run_id,
            fingerprint=key["fingerprint"],
        )
        pointer = ctx.store.publish_pointer(
            self.signal,
            key,
            rows=len(vectors),
            data_version=hash_ids(f"{i}{hashlib.sha256(v.tobytes()).hexdigest()}" for i, v in vectors.items()),
            fingerprint=key["fingerprint"],
            input_fingerprint=wanted.fingerprint,
            inputs=wanted.references,
            code_version=self.code,
            run_id=ctx.run_id,
            metadata=version,
        )
        log.clear()
        # Vectors that another run left behind took no time here.
        own = len(vectors) - len(known) - taken
        record_rate(ctx, self.signal, key["fingerprint"], own, time.perf_counter() - start)
        return StageResult(
            self.signal,
            {"shard": shard},
            pointer.data_version,
            pointer.rows,
            computed=len(vectors) - len(known),
            reused=len(known),
            failed=failed.num_rows,
            seconds=time.perf_counter() - start,
            references=[pointer.reference],
            # Of those computed; they lay there, finished by another stage or by a run that was killed.
            metadata=version | ({"taken_over": taken} if taken else {}),
        )

    def _log(self, ctx: Context, shard: str) -> PartLog:
        return PartLog(ctx.store.files, f"{self.signal}-{self.fingerprint(ctx)}-{shard}")

    def _store(
        self, ctx: Context, key: dict[str, str], vectors: dict[str, NDArray[np.float32]]
    ) -> dict[str, str | int]:
        ids = sorted(vectors)
        if not ids:
            return {"dimension": 0}
        matrix = np.stack([vectors[i] for i in ids]).astype(np.float32)
        lance = ctx.vectors.replace_shard(self.signal, key["fingerprint"], key["shard"], ids, matrix)
        return {"lance_table": lance.table, "lance_version": lance.version, "dimension": int(matrix.shape[1])}

    def _compute(
        self, ctx: Context, shard: str, ids: list[str], log: PartLog
    ) -> tuple[dict[str, NDArray[np.float32]], list[tuple[str, str, str]], int]:
        """Vectors and failures of the given ids, and how many vectors were taken over: finished batches of an earlier,
        killed run, and by-products of another stage."""
        vectors = _finished(log, set(ids))
        taken = len(vectors)
        todo = ctx.share.agreed([i for i in ids if i not in vectors])
        own = ctx.share.part(todo, PART_ROWS)
        failures = ctx.share.together(lambda: self._share(ctx, shard, own, log, vectors))
        if ctx.share.world > 1 and ctx.share.is_main:
            vectors = _finished(log, set(ids)) | vectors
            gone = len(set(ids) - set(vectors) - {i for i, _, _ in failures})
            if gone:
                raise StorageError(f"{self.signal}: another writer cleared {gone} vectors; run the stage again")
        return vectors, failures, taken

    def _share(
        self, ctx: Context, shard: str, ids: list[str], log: PartLog, vectors: dict[str, NDArray[np.float32]]
    ) -> list[tuple[str, str, str]]:
        """Failures of the given ids; their vectors go into `vectors` and `log`."""
        failures: list[tuple[str, str, str]] = []
        if not ids:
            return failures
        finished = len(vectors)
        parts = VectorParts(log)
        for batch in self.compute(ctx, shard, ids):
            for content, vector in zip(batch.ids, batch.vectors, strict=True):
                vectors[content] = vector
                parts.add(content, vector)
            failures.extend((f.content_id, f.reason, f.detail) for f in batch.failures)
            ctx.progress(self.unit, len(vectors) + len(failures), finished + len(ids))
        parts.flush()
        return failures


class VectorParts:
    """Vectors on their way into parts of PART_ROWS."""

    def __init__(self, log: PartLog) -> None:
        self._log = log
        self._pending: list[tuple[str, NDArray[np.float32]]] = []

    def add(self, content: str, vector: NDArray[np.float32]) -> None:
        """Keep a vector; a full part is written."""
        self._pending.append((content, vector))
        if len(self._pending) >= PART_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write what is kept."""
        if self._pending:
            ids, vectors = zip(*self._pending, strict=True)
            matrix = np.stack(vectors).astype(np.float32)
            column = pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), matrix.shape[1])
            self._log.save(pa.table({"id": list(ids), "vector": column}))
            self._pending.clear()


def _finished(log: PartLog, ids: set[str]) -> dict[str, NDArray[np.float32]]:
    done = log.load()
    if done is None:
        return {}
    found = done["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    matrix = found.astype(np.float32, copy=False).reshape(done.num_rows, -1)
    return {content: matrix[i] for i, content in enumerate(done["id"].to_pylist()) if content in ids}
