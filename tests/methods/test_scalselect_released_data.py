"""ShareGPT data around the released ScalSelect."""

import json

import pytest

from vsel_platform.errors import DataError
from vsel_platform.methods.scalselect_released_data import (
    check_dataset_validity,
    convert_messages,
    filter_valid_samples,
    importance_lines,
    select_sharegpt,
    to_sharegpt_json,
)

TALK = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "What <image>is\n<img> this? "},
    {"role": "assistant", "content": " A cat. "},
    {"role": "user", "content": "<image>Where?"},
]
IMAGE = {"type": "image"}


def text(value):
    return {"type": "text", "text": value}


def test_images_move_to_the_front_of_the_first_user_turn():
    contents = [m["content"] for m in convert_messages(TALK, 2)]
    assert contents == [
        [text("be brief")],
        [IMAGE, IMAGE, text("What is\n this?")],
        [text(" A cat. ")],
        [text("<image>Where?")],
    ]


def test_without_images_the_tags_stay():
    assert convert_messages(TALK, 0)[1]["content"] == [text("What <image>is\n<img> this? ")]


def test_other_turns_stay_plain_texts_for_qwen():
    contents = [m["content"] for m in convert_messages(TALK, 1, model_type="qwen")]
    assert contents == ["be brief", [IMAGE, text("What is\n this?")], " A cat. ", "<image>Where?"]


def test_a_turn_without_text_is_dropped_but_not_its_images():
    talk = [{"role": "user", "content": "<image>"}, {"role": "assistant", "content": ""}]
    assert convert_messages(talk, 1) == [{"role": "user", "content": [IMAGE]}]


def test_score_file_and_selection_fit_together():
    lines = importance_lines([(3, 0.5), (1, 0.25), (9, 0.125)]).splitlines()
    assert json.loads(lines[0]) == {"sample_id": 3, "importance": 0.5}
    entries = [{"id": 1, "v": "old"}, {"id": 3}, {"v": "no id"}, {"id": 1, "v": "猫"}]
    selected, missing = select_sharegpt(['{"metadata": {}}', "", *lines], entries)
    assert selected == [{"id": 1, "v": "猫"}, {"id": 3}]
    assert missing == [9]
    assert select_sharegpt(lines, entries, 1)[0] == [{"id": 3}]
    assert "猫" in to_sharegpt_json(selected)


@pytest.mark.parametrize("line", ["{", "[1]", '{"importance": 1}', "5"])
def test_lines_that_are_no_score_are_named(line):
    with pytest.raises(DataError, match="line 2"):
        select_sharegpt(['{"sample_id": 1, "importance": 1}', line], [])


def test_base_path_is_joined_without_separator_unless_absolute(tmp_path):
    (tmp_path / "img_a.jpg").touch()
    absolute = str(tmp_path / "img_a.jpg")
    entries = [{"id": 1, "images": "a.jpg"}, {"id": 2, "images": [absolute]}, {"id": 3, "images": ["a.jpg", "b.jpg"]}]
    kept, stats = filter_valid_samples(entries, f"{tmp_path}/img_")
    assert [entry["id"] for entry in kept] == [1, 2]
    assert (stats.skipped_missing_files, stats.skipped_no_images) == (1, 0)


def test_an_entry_without_id_counts_once(tmp_path):
    check = check_dataset_validity([{"images": []}, {"id": None, "images": ["x"]}, {"id": 4}], f"{tmp_path}/")
    assert (check.total, check.valid, check.invalid) == (3, 0, 3)
    assert check.details == {"no_images_field": [4], "no_id": [0, 1], "missing_image_files": []}
