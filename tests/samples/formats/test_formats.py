"""Every format's reader: the same conversation, and reasons for what is none."""

from typing import Any

import pytest

from vsel_platform.errors import ConfigError
from vsel_platform.samples.formats import reader
from vsel_platform.samples.sample import Conversation, EmbeddedImage, Reason, RefusedRow

TURNS = [("system", "Be brief."), ("user", "<image>\nWhat?"), ("assistant", "A cat.")]
LLAVA = [
    {"from": "system", "value": "Be brief."},
    {"from": "human", "value": "<image>\nWhat?"},
    {"from": "gpt", "value": "A cat."},
]
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "<image>\nWhat?"},
    {"role": "assistant", "content": "A cat."},
]
PICTURE = EmbeddedImage("ab" * 32, None, b"bytes")


def reason(name: str, row: dict[str, Any]) -> RefusedRow:
    with pytest.raises(RefusedRow) as refused:
        reader(name).read(row)
    return refused.value


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("llava", {"conversations": LLAVA, "image": "a.png"}),
        ("llava", {"conversations": LLAVA, "image": ["a.png"]}),
        ("llava", {"conversations": LLAVA, "images": ["a.png"]}),
        ("vision_flan", {"conversations": LLAVA, "image": "a.png", "task_name": "t"}),
        ("sharegpt", {"messages": CHAT, "images": ["a.png"]}),
        ("sharegpt", {"messages": CHAT, "images": "a.png"}),
        ("huggingface", {"messages": CHAT, "images": ["a.png"]}),
        ("huggingface", {"conversations": LLAVA, "image": {"path": "a.png", "bytes": None}}),
        ("huggingface", {"conversations": CHAT, "messages": None, "images": [{"path": "a.png", "bytes": None}]}),
    ],
)
def test_the_same_conversation_in_every_format(name: str, row: dict[str, Any]) -> None:
    assert reader(name).read(row)[:2] == Conversation(TURNS, ["a.png"])[:2]


@pytest.mark.parametrize("empty", [{}, {"image": None}, {"image": ""}, {"images": []}, {"image": "", "images": None}])
def test_no_image_is_no_image(empty: dict[str, Any]) -> None:
    assert reader("llava").read({"conversations": LLAVA, **empty}).images == []


@pytest.mark.parametrize(
    ("image", "detail"),
    [
        ({"image": 3}, "image[0]"),
        ({"image": 0}, "image[0]"),
        ({"image": {"path": 3}}, "image[0]"),
        ({"images": ["a.png", None]}, "images[1]"),
        ({"images": ["a.png", ""]}, "images[1]"),
        ({"image": "a.png", "images": ["a.png"]}, "both"),
    ],
)
def test_what_is_no_path_is_no_image_reference(image: dict[str, Any], detail: str) -> None:
    refused = reason("llava", {"conversations": LLAVA, **image})
    assert refused.reason is Reason.IMAGE_REFERENCE_INVALID
    assert detail in refused.detail


@pytest.mark.parametrize(
    ("turns", "expected", "detail"),
    [
        (None, Reason.CONVERSATION_MISSING, "missing"),
        ("text", Reason.CONVERSATION_MISSING, "a str"),
        ({"0": {}}, Reason.CONVERSATION_MISSING, "a dict"),
        ([], Reason.CONVERSATION_EMPTY, "empty"),
        (["text"], Reason.TURN_NOT_AN_OBJECT, "[0]"),
        ([LLAVA[1], None], Reason.TURN_NOT_AN_OBJECT, "[1]"),
        ([{"value": "x"}], Reason.ROLE_UNKNOWN, "None"),
        ([{"from": "Human", "value": "x"}], Reason.ROLE_UNKNOWN, "known: human, gpt, system"),
        ([{"from": ["human"], "value": "x"}], Reason.ROLE_UNKNOWN, "['human']"),
        ([{"from": "human"}], Reason.TEXT_NOT_A_STRING, "NoneType"),
        ([LLAVA[1], {"from": "gpt", "value": 7}], Reason.TEXT_NOT_A_STRING, "[1].value is a int"),
        ([{"from": "human", "value": ["x"]}], Reason.TEXT_NOT_A_STRING, "list"),
    ],
)
def test_turns_that_cannot_be_read_say_why(turns: Any, expected: Reason, detail: str) -> None:
    refused = reason("llava", {"conversations": turns})
    assert refused.reason is expected
    assert detail in refused.detail


def test_parts_of_a_message_are_joined_with_tags_for_images() -> None:
    content = [{"type": "image"}, {"type": "text", "text": "What?"}]
    row = {"messages": [{"role": "user", "content": content}, CHAT[2]], "images": [PICTURE]}
    assert reader("huggingface").read(row) == Conversation(TURNS[1:], [PICTURE])


@pytest.mark.parametrize("part", ["text", {"type": "video"}, {"type": "text", "text": None}, None])
def test_other_parts_of_a_message_are_refused(part: Any) -> None:
    row = {"messages": [{"role": "user", "content": [part]}]}
    assert reason("huggingface", row).reason is Reason.TEXT_NOT_A_STRING


def test_pairs_of_texts_have_their_images_first() -> None:
    row = {"texts": [{"user": "Q", "assistant": "A"}, {"user": "Q2", "assistant": "A2"}], "images": [PICTURE, PICTURE]}
    turns = [("user", "<image>\n<image>\nQ"), ("assistant", "A"), ("user", "Q2"), ("assistant", "A2")]
    assert reader("huggingface").read(row) == Conversation(turns, [PICTURE, PICTURE])


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([], Reason.CONVERSATION_EMPTY),
        (["x"], Reason.TURN_NOT_AN_OBJECT),
        ([{"user": "x"}], Reason.TEXT_NOT_A_STRING),
    ],
)
def test_broken_pairs_are_refused(pairs: Any, expected: Reason) -> None:
    assert reason("huggingface", {"texts": pairs}).reason is expected


def test_tags_that_are_there_stay_where_they_are() -> None:
    row = {"messages": [{"role": "user", "content": "What is <image> here?"}, CHAT[2]], "images": ["a.png"]}
    assert reader("huggingface").read(row).turns[0] == ("user", "What is <image> here?")


def test_an_unknown_format_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="known: llava, sharegpt, vision_flan, huggingface"):
        reader("coco")
