"""Rows written back from manifest and samples."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from vsel_platform.config import DatasetSettings
from vsel_platform.errors import DataError
from vsel_platform.samples.containers import container_of
from vsel_platform.samples.export import export, export_rows
from vsel_platform.samples.ingest import ingest

Settings = Callable[..., DatasetSettings]


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
    found = export_rows(pa.concat_tables(sink.manifests), sink.lookup)
    target = str(tmp_path / "out.json")
    assert export("llava", found, target, container=container_of(settings.source)) == len(rows)
    assert Path(target).read_text("utf-8") == Path(settings.source).read_text("utf-8")


def test_positions_are_written_in_the_order_asked_for(make_settings: Settings, rows: list[Any], sink: Any) -> None:
    ingest(make_settings(rows), sink, dataset="d")
    found = export_rows(pa.concat_tables(sink.manifests), sink.lookup, [4, 0, 2])
    assert list(map(json.loads, found)) == [rows[4], rows[0], rows[2]]


def test_without_a_container_the_formats_own_is_written(tmp_path: Path) -> None:
    row = {"id": 1, "messages": [{"role": "user", "content": "é"}]}
    export("sharegpt", iter([json.dumps(row).encode()]), str(tmp_path / "out.json"))
    assert (tmp_path / "out.json").read_text("utf-8") == json.dumps([row], indent=2, ensure_ascii=False)


def test_what_is_missing_is_named(make_settings: Settings, rows: list[Any], sink: Any) -> None:
    ingest(make_settings(rows), sink, dataset="d")
    manifest = pa.concat_tables(sink.manifests)
    with pytest.raises(DataError, match=r"2 position\(s\) are not in the manifest, the first is 60"):
        list(export_rows(manifest, sink.lookup, [0, 60, 70]))
    with pytest.raises(DataError, match="not in the store"):
        list(export_rows(manifest, lambda ids: {}))
