import json

import pytest

from vsel_platform.errors import DataError
from vsel_platform.evaluation.benchmark import Question
from vsel_platform.evaluation.formats.annotation_files import (
    Entry,
    check_unique,
    first_character,
    read_entries,
    read_json,
)

ROWS = [{"a": 1}, {"a": "zwei\u2028drei"}]


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(ROWS),
        "\n".join(json.dumps(row) for row in ROWS) + "\n\n",
        "".join(json.dumps(row, ensure_ascii=False) for row in ROWS),
        "\ufeff" + json.dumps(ROWS),
    ],
    ids=["list", "lines", "without breaks", "byte order mark"],
)
def test_entries_are_read_from_all_layouts(tmp_path, content):
    path = tmp_path / "rows.json"
    path.write_text(content, encoding="utf-8")
    entries = read_entries(path)
    assert [entry.values for entry in entries] == ROWS
    assert [entry.place for entry in entries] == ["entry 1", "entry 2"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "holds no entries"),
        ("[]", "holds no entries"),
        ('{"a": 1}\n{"a"', "no valid JSON"),
        ("[1, 2", "no valid JSON"),
        ('[{"a": 1}, 7]', "entry 2: not an object"),
    ],
)
def test_wrong_content_is_named(tmp_path, content, problem):
    path = tmp_path / "rows.json"
    path.write_text(content)
    with pytest.raises(DataError, match=rf"rows\.json.*{problem}"):
        read_entries(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"absent\.json: cannot be read"):
        read_json(tmp_path / "absent.json")


@pytest.mark.parametrize(
    ("method", "arguments", "value"),
    [
        ("text", (), 1),
        ("text", (), None),
        ("identifier", (), True),
        ("identifier", (), 1.5),
        ("texts", (), "a"),
        ("texts", (), ["a", 1]),
        ("index", (2,), 2),
        ("index", (2,), -1),
        ("index", (2,), True),
    ],
)
def test_a_wrong_field_names_file_entry_and_field(method, arguments, value):
    entry = Entry("f.json", "entry 3", {"key": value})
    with pytest.raises(DataError, match=r"f\.json, entry 3: 'key'"):
        getattr(entry, method)("key", *arguments)


def test_right_fields():
    entry = Entry("f", "p", {"text": "a", "id": 7, "texts": ["x"], "index": 1})
    assert (entry.text("text"), entry.identifier("id"), entry.texts("texts")) == ("a", "7", ("x",))
    assert entry.index("index", 2) == 1


def test_an_id_that_stands_twice_is_named():
    question = Question("q7", (("user", "?"),), (), (), "c")
    assert check_unique("f", [question]) == [question]
    with pytest.raises(DataError, match="q7: stands twice"):
        check_unique("f", [question, question])


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"{}", "{"), (b"\xef\xbb\xbf \n\n  [1]", "["), (b" " * 9_000 + b"[", "["), (b"", ""), (b" \n ", "")],
)
def test_the_first_character_is_the_first_that_is_no_blank(tmp_path, content, expected):
    (tmp_path / "f").write_bytes(content)
    assert first_character(tmp_path / "f") == expected
    with pytest.raises(DataError, match="gone: cannot be read"):
        first_character(tmp_path / "gone")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no entries; write one per line$"),
        ('{"a": 1}\n\n{"a"\n{"a": 2}', r"no valid JSON .*line 4 column 1.*; mend lines 3 to 4$"),
        ('{"a": 1}\n{"a": ]}\n{"a": 2}', "no valid JSON .*; mend line 2$"),
        ('{"a": 1},\n{"a": 2}', "no valid JSON .*; mend line 1$"),
        ('[{"a": 1},\n 7]', "entry 2: not an object; mend entry 2$"),
        ('\n{"a": 1}\n7', "line 3: not an object; mend line 3$"),
        ("[1,\n 2", "mend line 2$"),
    ],
)
def test_an_own_file_is_to_be_mended_not_downloaded(tmp_path, content, message):
    path = tmp_path / "own.jsonl"
    path.write_text(content)
    with pytest.raises(DataError, match=rf"own\.jsonl.*{message}"):
        read_entries(path, own=True)


def test_own_entries_are_named_by_their_lines(tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_text('{"a": 1}\n\n{\n"a": 2}{"a": 3}\n')
    entries = read_entries(path, own=True)
    assert [(entry.place, entry.values["a"]) for entry in entries] == [("line 1", 1), ("line 3", 2), ("line 4", 3)]
    with pytest.raises(DataError, match=r"line 3: 'a' is 2, not a text; mend line 3"):
        entries[1].text("a")


def test_an_own_file_in_another_encoding_is_to_be_saved_anew(tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_bytes(b'{"a": "\xe4"}')
    with pytest.raises(DataError, match="save it as UTF-8"):
        read_entries(path, own=True)
