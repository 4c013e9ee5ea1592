"""Finished batches of a running job: a killed job resumes from them, a published one removes them."""

import hashlib
import io

import pyarrow as pa
import pyarrow.parquet as pq

from vsel_platform.storage.files import FileStore


class PartLog:
    """Parts of one job under `work/<key>/`; the key says table, partition and fingerprint."""

    def __init__(self, files: FileStore, key: str) -> None:
        self._files = files
        self._prefix = f"work/{key}"

    def save(self, table: pa.Table) -> None:
        """Write one finished batch (whole or not at all)."""
        sink = io.BytesIO()
        pq.write_table(table, sink, compression="zstd")
        data = sink.getvalue()
        self._files.write_once(f"{self._prefix}/{hashlib.sha256(data).hexdigest()[:20]}.parquet", data)

    def load(self, columns: list[str] | None = None) -> pa.Table | None:
        """All finished batches as one table (or some columns of it), None if there are none.

        A writer of the same partition may publish and clear them at any moment, so what this job computed itself
        must not be read back from here.
        """
        names = [name for name, _ in self._files.list(self._prefix) if name.endswith(".parquet")]
        parts = [pq.read_table(io.BytesIO(data), columns=columns) for data in self._files.read_many(names).values()]
        return pa.concat_tables(parts) if parts else None

    def clear(self) -> None:
        """Remove the parts, after what they hold was published."""
        self._files.delete_tree(self._prefix)
