"""Word n-grams that benchmark questions share with training rows: hashed, looked up in bulk, verified word by word.

Words are runs of letters and digits after NFKC and case folding; of Chinese and Japanese script and Korean syllables
every character is a word. Hashes are polynomials modulo 2^64 over the bytes of a word, then over the words of an
n-gram, so that all n-grams of a block of rows come out of two cumulative sums; what they find is compared exactly.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

_SYLLABLES = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_WORD = re.compile(rf"[{_SYLLABLES}]|[^\W_{_SYLLABLES}]+")
_BYTE_BASE = 0x9E3779B97F4A7C15
_WORD_BASE = 0xD1342543DE82EF95
_TABLE_BITS = 22
_IS_WORD = np.zeros(256, bool)
_IS_WORD[[*range(ord("0"), ord("9") + 1), *range(ord("a"), ord("z") + 1), *range(0x80, 0x100)]] = True


def normalised(text: str) -> str:
    """Text whose words are the runs of [a-z0-9] and non-ASCII characters: one space between words if not ASCII."""
    if text.isascii():
        return text.lower()
    return " ".join(_WORD.findall(unicodedata.normalize("NFKC", text).casefold()))


def words(text: str) -> list[str]:
    """Words of a text, in order."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def contains(text: Sequence[str], part: Sequence[str]) -> bool:
    """Whether the words of `part` stand in `text` one after the other; no words stand in nothing."""
    n = len(part)
    return n > 0 and any(list(text[i : i + n]) == list(part) for i in range(len(text) - n + 1))


def ngrams(texts: Iterable[str], n: int) -> set[str]:
    """Distinct n-grams of all texts, words joined by spaces."""
    found: set[str] = set()
    for text in texts:
        own = words(text)
        found.update(" ".join(own[i : i + n]) for i in range(len(own) - n + 1))
    return found


class NgramIndex:
    """N-grams that texts are searched for."""

    def __init__(self, grams: Iterable[str], n: int) -> None:
        """`grams` of `n` words each, as `ngrams` makes them."""
        self.n = n
        ordered = sorted(set(grams))
        by_hash: dict[int, list[str]] = {}
        for value, gram in zip(_gram_hashes(_Words.of(ordered), n)[0].tolist(), ordered, strict=True):
            by_hash.setdefault(value, []).append(gram)
        self._by_hash: Mapping[int, Sequence[str]] = by_hash
        self._hashes: Hashes = np.array(sorted(by_hash), dtype=np.uint64)
        # Nearly all n-grams of training rows are in no question: a table of leading bits that fits into the cache
        # turns them away before the search.
        self._table = np.zeros(1 << _TABLE_BITS, bool)
        self._table[self._hashes >> np.uint64(64 - _TABLE_BITS)] = True

    def search(self, texts: Sequence[str]) -> dict[int, set[str]]:
        """Distinct n-grams of the index in each text, by the text's number; texts without any are left out."""
        if not self._hashes.size:
            return {}
        block = _Words.of([normalised(text) for text in texts])
        hashes, first = _gram_hashes(block, self.n)
        kept = np.flatnonzero(self._table[hashes >> np.uint64(64 - _TABLE_BITS)])
        places = np.minimum(np.searchsorted(self._hashes, hashes[kept]), len(self._hashes) - 1)
        kept = kept[self._hashes[places] == hashes[kept]]
        found: dict[int, set[str]] = {}
        rows = np.searchsorted(block.row_ends, block.starts[first[kept]], side="left")
        for place, row, value in zip(first[kept].tolist(), rows.tolist(), hashes[kept].tolist(), strict=True):
            gram = block.text(place, place + self.n)
            if gram in self._by_hash[value]:
                found.setdefault(row, set()).add(gram)
        return found


class _Words:
    """Words of a block of normalised bytes. starts, ends: of every word [bytes]; row_ends: of the rows [bytes]."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.bytes = np.frombuffer(data, np.uint8)
        inside = np.zeros(len(data) + 2, np.int8)
        inside[1:-1] = _IS_WORD[self.bytes]
        edges = np.diff(inside)
        self.starts, self.ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
        self.row_ends = np.flatnonzero(self.bytes == 0)

    @classmethod
    def of(cls, texts: Iterable[str]) -> "_Words":
        """Words of normalised texts. A zero byte ends a row, and every n-gram with it; inside a text it is a space."""
        return cls("\0".join(text.replace("\0", " ") for text in texts).encode(errors="replace"))

    def text(self, first: int, last: int) -> str:
        """Words [first, last), joined by spaces."""
        parts = (self.data[self.starts[i] : self.ends[i]].decode() for i in range(first, last))
        return " ".join(parts)


def _gram_hashes(block: _Words, n: int) -> tuple[Hashes, NDArray[np.int64]]:
    """Hash of every n-gram that lies within one row, and the number of its first word."""
    values = _mixed(_windows(block.bytes.astype(np.uint64) + np.uint64(1), block.starts, block.ends, _BYTE_BASE))
    first = np.arange(max(len(values) - n + 1, 0), dtype=np.int64)
    hashes = _mixed(_windows(values, first, first + n, _WORD_BASE))
    row = np.searchsorted(block.row_ends, block.starts, side="left")
    whole = row[first] == row[first + n - 1]
    return hashes[whole], first[whole]


def _windows(values: Hashes, starts: NDArray[np.int64], ends: NDArray[np.int64], base: int) -> Hashes:
    """Sum of values[i] * base^(i - start) over start <= i < end for every window, modulo 2^64."""
    inverse = pow(base, -1, 1 << 64)
    sums = np.zeros(len(values) + 1, np.uint64)
    np.cumsum(values * _powers(base, len(values)), out=sums[1:])
    return (sums[ends] - sums[starts]) * _powers(inverse, len(values) + 1)[starts]


def _powers(base: int, n: int) -> Hashes:
    powers = np.full(n, base, np.uint64)
    powers[:1] = 1
    return np.multiply.accumulate(powers)


def _mixed(values: Hashes) -> Hashes:
    """Every input bit spread over all output bits (the finaliser of splitmix64, Steele et al., OOPSLA 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
