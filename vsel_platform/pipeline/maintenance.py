"""Upkeep of a store that grew by many small writes."""

from vsel_platform.pipeline.context import Context
from vsel_platform.storage.vectors import VECTOR_SIGNALS, Compaction


def compact_vectors(ctx: Context) -> dict[str, Compaction]:
    """Merge the small files of every LanceDB table, by `signal/fingerprint`. Old versions stay readable."""
    found: dict[str, Compaction] = {}
    for signal in VECTOR_SIGNALS:
        for fingerprint in sorted({pointer.fingerprint for pointer in ctx.store.pointers(signal) if pointer.rows}):
            found[f"{signal}/{fingerprint}"] = ctx.vectors.compact(signal, fingerprint)
    return found
