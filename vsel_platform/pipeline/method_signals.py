"""The signals of a dataset as methods see them (`methods.api.Signals`), read from given states of the store."""

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from vsel_platform.errors import NotMaterializedError
from vsel_platform.methods.api import AttentionTops, Clustering, Clusters, Condition, Indices, LossColumns
from vsel_platform.pipeline.context import Context
from vsel_platform.pipeline.lookup import turns_of
from vsel_platform.pipeline.moments import read_moments
from vsel_platform.selection.leverage import Moments
from vsel_platform.signals.question_texts import question_texts, text_id
from vsel_platform.storage.pointers import Pointer

# Vectors of these belong to images; those of the others to rows.
IMAGE_SIGNALS = ("image_embeddings",)
MOVED_ROWS = 8192


class StoreSignals:
    """Signals behind pointers: `manifest`, `samples` of its shards, and whatever signals are asked for."""

    def __init__(self, ctx: Context, pointers: Sequence[Pointer]) -> None:
        self._ctx = ctx
        self._pointers = pointers
        manifest = next(iter(self._of("manifest")))
        table = ctx.store.read(manifest, ["sample_id", "task", "is_duplicate"])
        table = table.filter(pc.invert(table["is_duplicate"])).sort_by("sample_id")
        self.sample_ids: list[str] = table["sample_id"].to_pylist()
        self.tasks: list[str] = table["task"].to_pylist()
        self._read: dict[str, tuple[Indices, NDArray[np.float32]]] = {}
        self._row = {sample: i for i, sample in enumerate(self.sample_ids)}

    @cached_property
    def image_ids(self) -> list[str | None]:
        """First image of every row."""
        return self._contents[0]

    @cached_property
    def n_characters(self) -> NDArray[np.int64]:
        """Length of all texts of every row."""
        return self._contents[1]

    @cached_property
    def _contents(self) -> tuple[list[str | None], NDArray[np.int64]]:
        images: list[str | None] = [None] * len(self.sample_ids)
        characters = np.zeros(len(self.sample_ids), np.int64)
        for pointer in self._of("samples"):
            table = self._ctx.store.read(pointer, ["sample_id", "image_ids", "n_characters"])
            rows = np.array([self._row.get(sample, -1) for sample in table["sample_id"].to_pylist()], np.int64)
            characters[rows[rows >= 0]] = table["n_characters"].to_numpy()[rows >= 0]
            lengths = pc.list_value_length(table["image_ids"]).to_numpy()
            first = pc.list_flatten(table["image_ids"]).take((np.cumsum(lengths) - lengths)[lengths > 0])
            for row, image in zip(rows[lengths > 0].tolist(), first.to_pylist(), strict=True):
                if row >= 0:
                    images[row] = image
        return images, characters

    def losses(self, condition: Condition) -> LossColumns:
        """Losses under the base model."""
        names = ("loss_sum", "loss_mean", "n_tokens", "entropy_mean", "el2n_mean")
        columns = {name: np.full(len(self.sample_ids), np.nan) for name in names}
        for pointer in self._of("losses"):
            table = self._ctx.store.read(pointer, ["sample_id", "condition", *names])
            table = table.filter(pc.equal(table["condition"], condition))
            rows = np.array([self._row.get(sample, -1) for sample in table["sample_id"].to_pylist()], np.int64)
            for name in names:
                values = pc.fill_null(table[name].cast("float64"), np.nan).to_numpy()
                columns[name][rows[rows >= 0]] = values[rows >= 0]
        return LossColumns(*(columns[name] for name in names))

    def vectors(self, signal: str) -> tuple[Indices, NDArray[np.float32]]:
        """Place of every row's vector, -1 for none, and the vectors; read once."""
        if signal not in self._read:
            self._read[signal] = self._vectors(signal)
        return self._read[signal]

    def _vectors(self, signal: str) -> tuple[Indices, NDArray[np.float32]]:
        contents = self._content_ids(signal)
        place, matrix = self._matrix(signal, {c for c in contents if c is not None})
        return np.array([-1 if c is None else place.get(c, -1) for c in contents], np.int64), matrix

    def _matrix(self, signal: str, wanted: set[str]) -> tuple[dict[str, int], NDArray[np.float32]]:
        """Places of the ids that have a vector, in their order, and the vectors: no more memory than these need."""
        ids = sorted(wanted)
        place = {content: i for i, content in enumerate(ids)}
        known, matrix = np.zeros(len(ids), np.bool_), np.empty((0, 0), np.float32)
        for found, vectors in self._ctx.vectors.blocks(signal, self._fingerprint(signal), self._version(signal)):
            matrix = matrix if matrix.size else np.empty((len(ids), vectors.shape[1]), np.float32)
            rows = np.array([place.get(content, -1) for content in found], np.int64)
            matrix[rows[rows >= 0]] = vectors[rows >= 0]
            known[rows[rows >= 0]] = True
        if known.all():
            return place, matrix
        kept = np.flatnonzero(known)
        for start in range(0, len(kept), MOVED_ROWS):
            rows = kept[start : start + MOVED_ROWS]
            matrix[start : start + len(rows)] = matrix[rows]
        return {ids[i]: n for n, i in enumerate(kept.tolist())}, matrix[: len(kept)]

    def blocks(self, signal: str) -> Iterator[tuple[Indices, NDArray[np.float32]]]:
        """Row numbers and vectors in blocks; rows that share an image come several times."""
        rows_of: dict[str, list[int]] = {}
        for i, content in enumerate(self._content_ids(signal)):
            if content is not None:
                rows_of.setdefault(content, []).append(i)
        for ids, vectors in self._ctx.vectors.blocks(signal, self._fingerprint(signal), self._version(signal)):
            pairs = [(row, place) for place, content in enumerate(ids) for row in rows_of.get(content, ())]
            if pairs:
                rows, places = np.array(pairs, np.int64).T
                yield rows, vectors[places]

    def clusters(self, clustering: Clustering) -> Clusters:
        """Cluster of every row, and the cosine to its centroid."""
        pointer = next((p for p in self._of("clusters") if p.partition["clustering"] == clustering.name), None)
        if pointer is None:
            raise NotMaterializedError(f"clustering {clustering.name} is not among those that the method says it needs")
        table = self._ctx.store.read(pointer)
        labels, cosine = np.full(len(self.sample_ids), -1, np.int64), np.full(len(self.sample_ids), np.nan)
        rows = np.array([self._row.get(sample, -1) for sample in table["sample_id"].to_pylist()], np.int64)
        known = rows >= 0
        labels[rows[known]] = pc.fill_null(table["cluster"], -1).to_numpy()[known]
        cosine[rows[known]] = pc.fill_null(table["cosine"], np.nan).to_numpy()[known]
        return Clusters(labels, cosine)

    def question_vectors(self) -> tuple[Indices, Indices, NDArray[np.float32]]:
        """Row of every user turn, place of its vector, and the vectors of the distinct questions."""
        rows: list[int] = []
        ids: list[str] = []
        for pointer in self._of("samples"):
            table = self._ctx.store.read(pointer, ["sample_id", "conversation"])
            for sample, conversation in zip(*(table[n].to_pylist() for n in table.column_names), strict=True):
                i = self._row.get(sample)
                if i is not None:
                    own = [text_id(text) for text in question_texts(turns_of(conversation))]
                    rows += [i] * len(own)
                    ids += own
        place, matrix = self._matrix("text_embeddings", set(ids))
        return np.array(rows, np.int64), np.array([place.get(i, -1) for i in ids], np.int64), matrix

    def attention_tops(self) -> tuple[AttentionTops, AttentionTops]:
        """Where the two models look; the pointers name the first model's states first."""
        pointers = self._of("attention_maps")
        names = list(dict.fromkeys(pointer.fingerprint for pointer in pointers))
        if len(names) == 1:
            names *= 2  # a model compared with itself
        first, second = (self._tops([p for p in pointers if p.fingerprint == name]) for name in names)
        return first, second

    def _tops(self, pointers: Sequence[Pointer]) -> AttentionTops:
        n_tokens = np.zeros(len(self.sample_ids), np.int64)
        sharpness = np.full(len(self.sample_ids), np.nan)
        tops: list[Indices] = [np.empty(0, np.int64)] * len(self.sample_ids)
        for pointer in pointers:
            table = self._ctx.store.read(pointer, ["sample_id", "n_tokens", "top_tokens", "sharpness"])
            rows = np.array([self._row.get(sample, -1) for sample in table["sample_id"].to_pylist()], np.int64)
            known = rows >= 0
            n_tokens[rows[known]] = table["n_tokens"].to_numpy()[known]
            sharpness[rows[known]] = table["sharpness"].to_numpy()[known]
            ends = np.cumsum(pc.list_value_length(table["top_tokens"]).to_numpy(), dtype=np.int64)
            values = pc.list_flatten(table["top_tokens"]).to_numpy().astype(np.int64)
            for row, part in zip(rows.tolist(), np.split(values, ends[:-1]), strict=True):
                if row >= 0:
                    tops[row] = part
        return AttentionTops(n_tokens, tops, sharpness)

    def moments(self, signal: str) -> Moments:
        """Moments of the rows that have a vector."""
        return read_moments(self._ctx, next(iter(self._of("representation_moments"))))

    def _content_ids(self, signal: str) -> Sequence[str | None]:
        return self.image_ids if signal in IMAGE_SIGNALS else self.sample_ids

    def _of(self, table: str) -> list[Pointer]:
        found = [pointer for pointer in self._pointers if pointer.table == table]
        if not found:
            raise NotMaterializedError(f"{table} is not among the signals that the method says it needs")
        return found

    def _fingerprint(self, signal: str) -> str:
        return self._of(signal)[0].fingerprint

    def _version(self, signal: str) -> int:
        return max(int(pointer.metadata.get("lance_version", 0)) for pointer in self._of(signal))
