"""A row is kept without its turns, and comes back whole."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from vsel_platform.config import DatasetSettings
from vsel_platform.samples.containers import container_of
from vsel_platform.samples.formats import reader
from vsel_platform.samples.ingest import ingest
from vsel_platform.samples.rows import whole_row, without_turns
from vsel_platform.samples.writing import write_rows

Settings = Callable[..., DatasetSettings]
CHAT = {
    "messages": [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "Q"},
        {"role": "assistant", "content": "A"},
    ]
}


@pytest.fixture
def rows(make_row: Any) -> list[Any]:
    """Distinct rows, content that repeats with other attributes, text-only rows, odd keys and numbers."""
    text_only = make_row(7, image=None, conversations=[{"from": "human", "value": "é?"}, {"from": "gpt", "value": ""}])
    repeated = {key: make_row(1)[key] for key in ("conversations", "image", "id")}
    return [make_row(1), make_row(2), {**make_row(1), "id": 2**80}, text_only, repeated, make_row(3, score=1e-9)]


@pytest.mark.parametrize("style", [{}, {"indent": 4}, {"ensure_ascii": False, "separators": (",", ":")}])
def test_an_untouched_selection_is_the_source(
    make_settings: Settings, rows: list[Any], sink: Any, tmp_path: Path, style: Any
) -> None:
    settings = make_settings(json.dumps(rows, **style))
    assert ingest(settings, sink, dataset="d").rejected == {}
    target = str(tmp_path / "out.json")
    assert write_rows(sink.source_rows(), target, container_of(settings.source)) == len(rows)
    assert Path(target).read_text("utf-8") == Path(settings.source).read_text("utf-8")


@pytest.mark.parametrize(("form", "row", "key"), [
    ("llava", {"id": 1, "conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}], "z": None},
     "conversations"),
    ("sharegpt", {"a": [1], **CHAT, "b": 0.5}, "messages"),
])  # fmt: skip
def test_turns_are_left_out_and_put_back_in_their_place(form: str, row: Any, key: str) -> None:
    conversation = reader(form).read(row)
    assert conversation.turns_key == key
    kept = without_turns(row, key)
    assert json.loads(kept) == {**row, key: None}
    assert whole_row(kept, key, orjson.dumps(conversation.turns)) == orjson.dumps(row)


@pytest.mark.parametrize("turn", [
    {"value": "Q", "from": "human"}, {"from": "human", "value": "Q", "lang": "en"},
])  # fmt: skip
def test_turns_that_say_more_or_in_another_order_stay_in_the_row(
    make_settings: Settings, make_row: Any, sink: Any, turn: Any
) -> None:
    row = make_row(1, image=None, conversations=[turn, {"from": "gpt", "value": "A"}])
    ingest(make_settings([row]), sink, dataset="d")
    (sample,) = sink.sample_rows.values()
    assert sample["turns_key"] is None
    assert json.loads(sample["row_json"]) == row


def test_a_text_that_is_normalised_stays_as_it_was_in_the_row(
    make_settings: Settings, make_row: Any, sink: Any
) -> None:
    turns = [{"from": "human", "value": "e\u0301?"}, {"from": "gpt", "value": "\u00e9"}]
    row = make_row(1, image=None, conversations=turns)
    ingest(make_settings([row]), sink, dataset="d")
    (sample,) = sink.sample_rows.values()
    assert json.loads(sample["conversation"])[0][1] == "\u00e9?"
    assert list(map(json.loads, sink.source_rows())) == [row]


def test_null_under_the_other_key_is_not_mistaken_for_turns(make_settings: Settings, sink: Any) -> None:
    row = {"conversations": None, **CHAT}
    ingest(make_settings([row], format="sharegpt"), sink, dataset="d")
    assert list(map(json.loads, sink.source_rows())) == [row]
