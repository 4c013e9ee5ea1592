"""Ids, chunk files, prompts and human turns of the released Free2DS."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vsel_platform.errors import DataError
from vsel_platform.methods.free2ds_released_data import (
    ONE_WORD_SUFFIX,
    add_unique_id,
    first_question,
    human_messages,
    merge_chunks,
    one_word_message,
    one_word_prompt,
    read_entries,
    split_into_chunks,
    write_entries,
    write_with_unique_id,
)

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
ENTRIES = st.lists(st.dictionaries(st.text(), VALUES, max_size=3), max_size=12)


def turns(*pairs):
    return [{"from": role, "value": value} for role, value in pairs]


def entries(count):
    return [{"id": f"s{i}", "conversations": turns(("human", f"q{i}"), ("gpt", "a"))} for i in range(count)]


@settings(max_examples=50)
@given(found=ENTRIES, indent=st.sampled_from([2, 4]), ascii_only=st.booleans())
def test_files_are_those_of_json_dump(tmp_path_factory, found, indent, ascii_only):
    file = tmp_path_factory.mktemp("json") / "out.json"
    assert write_entries(file, found, indent=indent, ascii_only=ascii_only) == len(found)
    expected = json.dumps(found, indent=indent, ensure_ascii=ascii_only)
    assert file.read_bytes() == expected.encode()
    assert list(read_entries(file)) == found


@settings(max_examples=30)
@given(found=ENTRIES, n_splits=st.integers(1, 14))
def test_merging_a_split_gives_the_entries_back(tmp_path_factory, found, n_splits):
    folder = tmp_path_factory.mktemp("split")
    write_entries(folder / "in.json", found, indent=2)
    files = split_into_chunks(folder / "in.json", folder / "chunks", n_splits)
    sizes = [len(json.loads(file.read_text("utf-8"))) for file in files]
    assert len(files) == n_splits
    assert sizes == sorted(sizes, reverse=True)
    assert merge_chunks(folder / "chunks", folder / "merged.json") == len(found)
    assert json.loads((folder / "merged.json").read_text("utf-8")) == found


def test_ids_begin_at_one_and_replace_old_ones():
    found = list(add_unique_id([{"unique_id": "old", "a": 1}, {"b": 2}]))
    assert found == [{"unique_id": 1, "a": 1}, {"b": 2, "unique_id": 2}]
    assert list(found[0]) == ["unique_id", "a"]


def test_ids_can_be_written_into_the_source_file(tmp_path):
    file = tmp_path / "data.json"
    write_entries(file, entries(3), indent=2)
    assert write_with_unique_id(file, file) == 3
    assert [entry["unique_id"] for entry in read_entries(file)] == [1, 2, 3]
    assert [f.name for f in tmp_path.iterdir()] == ["data.json"]


def test_released_merge_is_in_lexical_order_and_the_default_in_numeric(tmp_path):
    write_entries(tmp_path / "in.json", entries(11), indent=2)
    split_into_chunks(tmp_path / "in.json", tmp_path / "chunks", 11)
    for mode, order in (("released", [0, 9, 10, *range(1, 9)]), ("default", range(11))):
        merge_chunks(tmp_path / "chunks", tmp_path / f"{mode}.json", mode=mode)
        assert [entry["id"] for entry in read_entries(tmp_path / f"{mode}.json")] == [f"s{i}" for i in order]


def test_released_split_refuses_fractions_and_the_default_keeps_them(tmp_path):
    write_entries(tmp_path / "in.json", [{"n": 1}, {"n": 0.1}], indent=2)
    with pytest.raises(DataError, match=r"chunk_2\.json holds a number with a fraction.*Decimal is not JSON"):
        split_into_chunks(tmp_path / "in.json", tmp_path / "released", 2, mode="released")
    files = split_into_chunks(tmp_path / "in.json", tmp_path / "default", 2)
    assert [json.loads(file.read_text()) for file in files] == [[{"n": 1}], [{"n": 0.1}]]


def test_statistics_and_the_target_itself_are_not_merged(tmp_path):
    for name in ("chunk_1.json", "filter_stats_chunk_1.json"):
        write_entries(tmp_path / name, entries(1), indent=2)
    for _ in range(2):
        assert merge_chunks(tmp_path, tmp_path / "merged_chunks.json") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [('{"item": 1}', r"does not begin with \["), ('[{"a": 1', "not valid JSON"), ("", r"does not begin with \[")],
)
def test_a_file_that_is_no_array_is_named(tmp_path, text, message):
    file = tmp_path / "chunk_1.json"
    file.write_text(text)
    for run in (
        lambda: split_into_chunks(file, tmp_path / "out", 2),
        lambda: merge_chunks(tmp_path, tmp_path / "merged.json"),
    ):
        with pytest.raises(DataError, match=rf"chunk_1\.json.*{message}"):
            run()
    assert not (tmp_path / "merged.json").exists()


def test_missing_files_and_no_splits_are_refused(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        split_into_chunks(tmp_path / "none.json", tmp_path, 2)
    with pytest.raises(DataError, match=r"no file \*chunk"):
        merge_chunks(tmp_path, tmp_path / "out.json")
    with pytest.raises(DataError, match="n_splits is 0"):
        split_into_chunks(tmp_path / "none.json", tmp_path, 0)


def test_the_first_question_is_the_first_with_an_answer_behind_it():
    assert first_question(turns(("Human", "lost"), ("USER", "used"), ("Assistant", "a"), ("human", "b"))) == "used"
    assert first_question(turns(("system", "s"), ("gpt", "a"), ("human", "q"), ("gpt", "b"))) == "q"
    for without in ([], turns(("human", "q")), turns(("gpt", "a"), ("human", "q"), ("system", "s"))):
        with pytest.raises(DataError, match="nothing to ask"):
            first_question(without)


def test_the_tag_is_put_in_front_only_if_there_is_none():
    assert one_word_message("What?") == "<image>\nWhat?" + ONE_WORD_SUFFIX
    assert one_word_message("What?\n<image>") == "What?\n<image>" + ONE_WORD_SUFFIX
    assert one_word_message("What?" + ONE_WORD_SUFFIX).count("single word") == 2


def test_prompts_of_the_two_scripts_differ_in_the_system_text_alone():
    llava, mgm = (one_word_prompt("m", template) for template in ("llava_v1", "vicuna_v1"))
    assert llava == mgm.replace("curious user", "curious human").replace("the user's", "the human's") != mgm
    assert llava.endswith(" USER: m ")


def test_human_messages_keep_positions_and_drop_tags():
    found = human_messages(
        [
            {"unique_id": 1, "conversations": turns(("system", "s"), ("HUMAN", " <image>\n<Image>q "), ("gpt", "a"))},
            {"unique_id": 2, "conversations": turns(("human", "<image>"), ("gpt", "a"), ("human", "<IMAGE>"))},
            {"conversations": turns(("human", "no id"))},
            {"unique_id": 3, "conversations": turns(("gpt", "a"))},
            {"unique_id": 1, "conversations": turns(("human", "later"))},
            {"unique_id": 2, "conversations": turns(("user", "another role"))},
        ]
    )
    assert [tuple(row.values()) for row in found] == [(1, 0, "later"), (2, 0, ""), (2, 2, "<IMAGE>")]
