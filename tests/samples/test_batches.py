"""Found rows to tables."""

import gc
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vsel_platform.config import DatasetSettings, TaskSettings
from vsel_platform.samples.batches import GROUP_ROWS, BatchProcessor, Processed, accepted_schema, row_digest
from vsel_platform.samples.images import path_identity
from vsel_platform.samples.reading import SourceReader
from vsel_platform.tables import TABLES

Settings = Callable[..., DatasetSettings]


def process(settings: DatasetSettings) -> Processed:
    (batch,) = SourceReader([settings.source]).batches()
    return BatchProcessor(settings).process(batch)


def test_every_row_is_accepted_or_rejected_in_order(make_settings: Settings, make_row: Any) -> None:
    count = 2 * GROUP_ROWS + 9
    rows = [make_row(i) if i % 3 else {"id": i} for i in range(count)]
    found = process(make_settings(rows))
    assert found.n_rows == count
    assert found.accepted["position"].to_pylist() == [i for i in range(count) if i % 3]
    assert found.rejected["position"].to_pylist() == [i for i in range(count) if not i % 3]


def test_tables_have_their_schemas_even_when_empty(make_settings: Settings) -> None:
    found = process(make_settings([{}]))
    assert found.accepted.schema == accepted_schema()
    assert found.rejected.schema == TABLES["quarantine"].arrow_schema()
    assert found.images.schema == TABLES["images"].arrow_schema()
    assert found.accepted.num_rows == found.images.num_rows == 0


def test_an_accepted_row_has_everything_that_later_steps_need(make_settings: Settings, make_row: Any) -> None:
    row = make_row(4, task="vqa")
    (found,) = process(make_settings([row], task=TaskSettings(column="task"))).accepted.to_pylist()
    text = json.dumps({**row, "conversations": None}, separators=(",", ":")).encode()
    key = bytes.fromhex(found["sample_id"])
    assert found["digest"] == key + hashlib.sha256(key + text).digest()[:16]
    assert found["digest"][32:] == row_digest(key, text)
    assert (found["row_json"].encode(), found["turns_key"]) == (text, "conversations")
    assert found["image_ids"] == [path_identity("4.png")]
    assert (found["task_key"], found["source_id"], found["image_rows"]) == ("vqa", '"row-4"', [0])


def test_images_are_listed_once_in_order_of_appearance(make_settings: Settings, make_row: Any) -> None:
    def pair(first: str, second: str) -> Any:
        turns = [{"from": "human", "value": "<image><image>"}, {"from": "gpt", "value": "x"}]
        return make_row(image=[first, second], conversations=turns)

    found = process(make_settings([pair("b", "a"), pair("a", "c"), pair("c", "c")]))
    assert found.images["source_path"].to_pylist() == ["b", "a", "c"]
    assert found.accepted["image_rows"].to_pylist() == [[0, 1], [1, 2], [2, 2]]


def test_images_are_looked_up_beside_the_source_by_default(
    make_settings: Settings, make_row: Any, tmp_path: Path, png: Any
) -> None:
    (tmp_path / "0.png").write_bytes(png())
    found = process(make_settings([make_row(0), make_row(1)], check="header"))
    assert found.images["path"].to_pylist() == [str(tmp_path / "0.png")]
    assert found.rejected["reason"].to_pylist() == ["image_missing"]


def test_the_garbage_collector_is_left_as_it_was(make_settings: Settings, make_row: Any) -> None:
    settings = make_settings([make_row()])
    process(settings)
    assert gc.isenabled()
    gc.disable()
    try:
        process(settings)
        assert not gc.isenabled()
    finally:
        gc.enable()
