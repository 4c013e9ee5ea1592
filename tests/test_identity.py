"""Identity of images, rows, settings and sets of ids."""

import hashlib
import math
import unicodedata

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vsel_platform.identity import (
    FINGERPRINT_LENGTH,
    canonical_json,
    fingerprint,
    hash_ids,
    image_id,
    normalise_text,
    sample_id,
)

TURNS = [("user", "<image>\nWhat is it?"), ("assistant", "A cat.")]
SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    SCALARS | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=10,
)


def test_image_id_is_the_sha256_of_the_bytes() -> None:
    assert image_id(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_sample_id_is_the_sha256_of_turns_and_images_as_json() -> None:
    expected = b'[[["user","<image>\\nWhat is it?"],["assistant","A cat."]],["aa","bb"]]'
    assert sample_id(TURNS, ["aa", "bb"]) == hashlib.sha256(expected).hexdigest()


@pytest.mark.parametrize(
    ("turns", "images"),
    [
        ([("user", "<image>\nWhat is it?"), ("assistant", "A dog.")], ["aa", "bb"]),
        ([("user", "<image>\nWhat is it?"), ("system", "A cat.")], ["aa", "bb"]),
        (TURNS, ["bb", "aa"]),
        (TURNS, ["aa"]),
        (TURNS[:1], ["aa", "bb"]),
    ],
)
def test_sample_id_depends_on_texts_roles_and_order(turns: list[tuple[str, str]], images: list[str]) -> None:
    assert sample_id(turns, images) != sample_id(TURNS, ["aa", "bb"])


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_sample_id_is_the_same_for_every_unicode_form_of_a_text(text: str) -> None:
    forms = {sample_id([("user", unicodedata.normalize(form, text))], []) for form in ("NFC", "NFD")}
    assert len(forms) == 1
    assert normalise_text(normalise_text(text)) == normalise_text(text)


def test_sample_id_cannot_be_confused_by_moving_text_between_turns() -> None:
    assert sample_id([("user", 'a"],["assistant","b')], []) != sample_id([("user", "a"), ("assistant", "b")], [])


@settings(deadline=None)
@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), VALUES))
def test_canonical_json_keeps_values_and_forgets_the_order_of_keys(value: dict[str, object]) -> None:
    shuffled = dict(reversed(value.items()))
    assert canonical_json(value) == canonical_json(shuffled)
    assert orjson.loads(canonical_json(value)) == value


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_has_no_fingerprint(number: float) -> None:
    with pytest.raises(ValueError, match="non-finite"):
        fingerprint(settings={"a": [1.0, (number,)]})


def test_what_json_cannot_hold_has_no_fingerprint() -> None:
    with pytest.raises(TypeError):
        fingerprint(settings=object())


def test_fingerprint_is_stable_short_and_sensitive() -> None:
    assert fingerprint(a=1, b="x") == fingerprint(b="x", a=1)
    assert len(fingerprint(a=1)) == FINGERPRINT_LENGTH
    assert len({fingerprint(a=1), fingerprint(a=1.5), fingerprint(a="1"), fingerprint(b=1)}) == 4


@settings(deadline=None)
@given(st.lists(st.text("0123456789abcdef", min_size=4, max_size=4)), st.randoms())
def test_hash_of_ids_is_that_of_the_set(ids: list[str], random: object) -> None:
    again = ids + ids[: len(ids) // 2]
    random.shuffle(again)  # type: ignore[attr-defined]
    assert hash_ids(again) == hash_ids(ids)


def test_hash_of_ids_tells_sets_apart() -> None:
    assert len({hash_ids([]), hash_ids(["a"]), hash_ids(["a", "b"]), hash_ids(["ab"])}) == 4
