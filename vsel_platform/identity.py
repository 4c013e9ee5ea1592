"""Content identity: what a row, an image, a setting is, independent of names, paths and positions."""

import hashlib
import math
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import orjson

FINGERPRINT_LENGTH = 20


def image_id(data: bytes) -> str:
    """sha256 (hex) of an image file's bytes; decoding policy belongs to the encoder's fingerprint."""
    return hashlib.sha256(data).hexdigest()


def normalise_text(text: str) -> str:
    """Unicode NFC form of `text`; ASCII, by far the most common case, is returned as it is."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def sample_id(turns: Sequence[tuple[str, str]], image_ids: Sequence[str]) -> str:
    """sha256 (hex) of a canonical row: `(role, text)` turns in NFC and image identities, in order.

    Roles are the platform's (`system`, `user`, `assistant`), so the same conversation has the same identity
    in every source format.
    """
    canonical = [[[role, normalise_text(text)] for role, text in turns], list(image_ids)]
    return hashlib.sha256(orjson.dumps(canonical)).hexdigest()


def canonical_json(value: Any) -> bytes:
    """Canonical JSON bytes: sorted keys, no spaces, UTF-8; a non-finite number is refused."""
    _refuse_non_finite(value)
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)


def _refuse_non_finite(value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"cannot fingerprint the non-finite number {value!r}")
    if isinstance(value, dict):
        for item in value.values():
            _refuse_non_finite(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _refuse_non_finite(item)


def fingerprint(**parts: Any) -> str:
    """Hash of named settings: the first 20 hex digits (80 bits) of sha256 over canonical JSON.

    Raises ValueError for a non-finite number, TypeError for what JSON cannot hold.
    """
    return hashlib.sha256(canonical_json(parts)).hexdigest()[:FINGERPRINT_LENGTH]


def hash_ids(ids: Iterable[str]) -> str:
    """Hash of a SET of ids: independent of their order, 20 hex digits."""
    digest = hashlib.sha256()
    for item in sorted(set(ids)):
        digest.update(item.encode())
        digest.update(b"\n")
    return digest.hexdigest()[:FINGERPRINT_LENGTH]
