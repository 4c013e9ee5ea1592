import json

import pytest

from vsel_platform.errors import DataError
from vsel_platform.evaluation.benchmark import BenchmarkFiles
from vsel_platform.evaluation.formats.rows import FORMAT

TURNS = [("human", "<image>\nWhat?"), ("gpt", "A dog."), ("human", "Why?"), ("gpt", "It barks.")]
ROW = {"id": "a", "image": "a.jpg", "conversations": [{"from": who, "value": text} for who, text in TURNS]}


def read(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return FORMAT.read(BenchmarkFiles(str(path)))


def test_every_answer_of_a_row_is_a_question_with_the_right_turns_before(tmp_path):
    first, second = read(tmp_path / "rows.json", [ROW])
    assert (first.question_id, first.answers, len(first.turns)) == ("a#1", ("A dog.",), 1)
    assert (second.question_id, second.answers, len(second.turns)) == ("a#3", ("It barks.",), 3)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('[{"id": 1},\n{"id": ]}]', "no valid JSON .*; mend line 2$"),
        ("", "no valid JSON .*; mend line 1$"),
        ({"id": 1}, "are a JSON list of objects"),
        ([ROW, 7], "row 1 is no object with `conversations`; mend it$"),
        ([ROW, ROW | {"image": ["a.jpg", "b.jpg"]}], "row 1: 2 images, but another number of <image> .*; mend it$"),
        ([{"conversations": [{"from": "nobody", "value": "x"}]}], "row 0: a turn needs `from` .*; mend it$"),
    ],
)
def test_what_is_wrong_is_to_be_mended_where_it_stands(tmp_path, content, problem):
    with pytest.raises(DataError, match=rf"rows\.json.*{problem}"):
        read(tmp_path / "rows.json", content)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.json: cannot be read \(No such file"):
        FORMAT.read(BenchmarkFiles(str(tmp_path / "none.json")))
