"""One row: accepted with its identity, or refused with a reason."""

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vsel_platform.config import ImageSettings
from vsel_platform.identity import sample_id
from vsel_platform.samples.formats import reader
from vsel_platform.samples.images import ImageIndex, path_identity
from vsel_platform.samples.parsing import parse_row
from vsel_platform.samples.sample import REASONS, Reason, Rejected, Sample, SourceRow, Turn
from vsel_platform.samples.validation import validate

HUMAN, GPT, SYSTEM = ({"from": name, "value": "x"} for name in ("human", "gpt", "system"))


@pytest.fixture
def check(tmp_path: Path) -> Callable[[Any], Sample | Rejected]:
    index = ImageIndex(str(tmp_path), ImageSettings(check="none"))

    def run(row: Any) -> Sample | Rejected:
        value, compact = parse_row(json.dumps(row).encode(), exact=True)
        return validate(SourceRow(5, value, compact), reader("llava"), index)

    return run


def test_a_good_row_is_identified_by_turns_and_images(make_row: Any, check: Any) -> None:
    sample = check(make_row(3))
    assert isinstance(sample, Sample)
    assert sample.position == 5
    assert sample.turns == (Turn("user", "<image>\nWhat is number 3?"), Turn("assistant", "It is 3."))
    assert sample.image_ids == (path_identity("3.png"),)
    assert sample.image_paths == ("3.png",)
    assert sample.sample_id == sample_id(sample.turns, sample.image_ids)
    assert (sample.n_turns, sample.n_characters) == (2, len("<image>\nWhat is number 3?It is 3."))
    assert sample.source_id == b'"row-3"'
    assert json.loads(sample.row_json) == make_row(3)


def test_identity_ignores_id_path_of_equal_content_and_unicode_form(make_row: Any, check: Any) -> None:
    composed, split = (unicodedata.normalize(form, "Café ü") for form in ("NFC", "NFD"))
    turns = [[{"from": "human", "value": f"<image>{text}"}, GPT] for text in (composed, split)]
    first, second = (check(make_row(1, id=i, conversations=turns[i])) for i in range(2))
    assert first.sample_id == second.sample_id
    assert first.conversation == second.conversation
    assert first.row_json != second.row_json
    assert first.sample_id == sample_id([("user", f"<image>{split}"), ("assistant", "x")], first.image_ids)


@pytest.mark.parametrize(("identity", "kept"), [("a", b'"a"'), (7, b"7"), (10**30, str(10**30).encode()), (None, None)])
def test_ids_are_kept_as_json(make_row: Any, check: Any, identity: Any, kept: bytes | None) -> None:
    assert check({**make_row(), "id": identity}).source_id == kept
    assert check({key: value for key, value in make_row().items() if key != "id"}).source_id is None


@pytest.mark.parametrize("identity", [True, 1.0, [], {}, ["a"]])
def test_other_ids_are_refused(make_row: Any, check: Any, identity: Any) -> None:
    assert check({**make_row(), "id": identity}).reason is Reason.ID_OF_WRONG_TYPE


@pytest.mark.parametrize("row", [None, 3, "text", [], [{}], True])
def test_what_is_no_object_is_refused(check: Any, row: Any) -> None:
    assert check(row).reason is Reason.NOT_AN_OBJECT


@pytest.mark.parametrize("turns", [[HUMAN, GPT], [SYSTEM, HUMAN, GPT], [HUMAN, GPT] * 40, [SYSTEM, *[HUMAN, GPT] * 70]])
def test_turns_that_alternate_are_accepted(check: Any, turns: list[Any]) -> None:
    assert isinstance(check({"conversations": turns}), Sample)


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ([SYSTEM], Reason.CONVERSATION_EMPTY),
        ([HUMAN], Reason.ROLES_NOT_ALTERNATING),
        ([GPT], Reason.ROLES_NOT_ALTERNATING),
        ([GPT, HUMAN], Reason.ROLES_NOT_ALTERNATING),
        ([HUMAN, HUMAN, GPT], Reason.ROLES_NOT_ALTERNATING),
        ([HUMAN, GPT, GPT], Reason.ROLES_NOT_ALTERNATING),
        ([HUMAN, GPT, HUMAN], Reason.ROLES_NOT_ALTERNATING),
        ([HUMAN, GPT, SYSTEM, HUMAN, GPT], Reason.ROLES_NOT_ALTERNATING),
        ([SYSTEM, SYSTEM, HUMAN, GPT], Reason.ROLES_NOT_ALTERNATING),
        ([SYSTEM, HUMAN], Reason.ROLES_NOT_ALTERNATING),
    ],
)
def test_turns_that_do_not_alternate_are_refused(check: Any, turns: list[Any], expected: Reason) -> None:
    assert check({"conversations": turns}).reason is expected


@pytest.mark.parametrize(
    ("tags", "images"), [(0, "a.png"), (2, "a.png"), (1, None), (1, ["a.png", "b.png"]), (3, ["a.png", "b.png"])]
)
def test_tags_and_images_must_agree(check: Any, tags: int, images: Any) -> None:
    row = {"image": images, "conversations": [{"from": "human", "value": "<image>" * tags}, GPT]}
    refused = check(row)
    assert refused.reason is Reason.IMAGE_COUNT_MISMATCH
    assert f"{tags} <image> tag(s)" in refused.detail


def test_tags_are_counted_over_all_turns(check: Any) -> None:
    turns = [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "like <image>?"}]
    assert check({"image": ["a.png", "b.png"], "conversations": turns}).image_paths == ("a.png", "b.png")


def test_a_refused_row_shows_its_beginning(check: Any) -> None:
    refused = check({"id": 1, "text": "é" * 5_000})
    assert refused.position == 5
    assert (
        refused.row_json
        == json.dumps({"id": 1, "text": "é" * 5_000}, ensure_ascii=False, separators=(",", ":"))[:2_000]
    )


def test_every_reason_has_a_meaning() -> None:
    assert set(REASONS) == set(Reason)
    assert all(meaning.endswith(".") for meaning in REASONS.values())
