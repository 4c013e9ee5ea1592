import pytest

from vsel_platform.evaluation.formats.scienceqa_prompts import llava_record

PROBLEM = {
    "question": "Which  one?",
    "choices": ["x", "y"],
    "answer": 1,
    "hint": " ",
    "image": None,
    "lecture": "One.\nTwo.",
    "solution": "",
}


def texts(prompt_format, **changes):
    record = llava_record("7", {**PROBLEM, **changes}, prompt_format)
    return [turn["value"] for turn in record["conversations"]]


@pytest.mark.parametrize(
    ("prompt_format", "expected"),
    [
        ("CQM-A", ["Context: N/A\nQuestion: Which one?\nOptions: (A) x (B) y", "The answer is B."]),
        ("QCM-LEA", ["Which one?\nContext: N/A\nOptions: (A) x (B) y", "One.\nTwo. The answer is B."]),
        ("QCM-LEPA", ["Which one?\nContext: N/A\nOptions: (A) x (B) y", "LECTURE: One.\nTwo.\n###\nANSWER: B."]),
    ],
)
def test_prompt_formats(prompt_format, expected):
    assert texts(prompt_format) == expected


def test_an_image_is_named_and_its_tag_ends_the_question():
    record = llava_record("7", {**PROBLEM, "image": "image.png", "hint": "Look."})
    assert record["image"] == "7/image.png"
    assert record["conversations"][0]["value"] == (
        "Context: Look.\nQuestion: Which one?\nOptions: (A) x (B) y\n<image>"
    )
    assert "image" not in llava_record("7", PROBLEM)
