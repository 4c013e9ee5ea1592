"""A source to manifest, quarantine and shards."""

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vsel_platform.config import DatasetSettings, ImageSettings, TaskSettings
from vsel_platform.errors import DataError, QuarantineLimitError
from vsel_platform.samples.columnar import from_json
from vsel_platform.samples.containers import container_of
from vsel_platform.samples.content import KnownContent
from vsel_platform.samples.ingest import IngestReport, ingest
from vsel_platform.samples.source import source_files, source_fingerprint
from vsel_platform.samples.writing import write_rows

Settings = Callable[..., DatasetSettings]


def known(*sinks: Any) -> tuple[KnownContent, set[str]]:
    """What a store knows after the shards of these sinks were published."""
    shards = {name: tables for sink in sinks for name, tables in sink.shards.items()}
    content = KnownContent.from_samples((name, samples) for name, (samples, _) in shards.items())
    return content, {image for _, images in shards.values() for image in images["image_id"].to_pylist()}


def again(settings: DatasetSettings, sink: Any, *before: Any) -> IngestReport:
    content, images = known(*before)
    return ingest(settings, sink, dataset="d", known=content, known_images=images)


def test_counts_and_tables_of_a_mixed_source(make_settings: Settings, make_row: Any, sink: Any) -> None:
    text_only = make_row(9, image=None, conversations=[{"from": "human", "value": "?"}, {"from": "gpt", "value": "!"}])
    rows = [make_row(0), "text", make_row(1), make_row(0, id="other"), make_row(1), text_only, make_row(2, image=None)]
    report = ingest(make_settings(rows), sink, dataset="d")
    assert (report.n_rows, report.n_accepted, report.n_rejected) == (7, 4, 3)
    assert report.rejected == {"duplicate_row": 1, "image_count_mismatch": 1, "not_an_object": 1}
    assert (report.n_duplicates, report.n_distinct, report.n_new) == (1, 3, 3)
    assert (report.n_text_only, report.n_images, report.n_new_images) == (1, 2, 2)
    assert report.new_shards == tuple(sink.shards)
    assert report.quarantine_rate == 3 / 7
    assert [row["position"] for row in sink.manifest_rows] == [0, 2, 3, 5]
    assert [row["is_duplicate"] for row in sink.manifest_rows] == [False, False, True, False]
    assert [row["source_id"] for row in sink.manifest_rows] == ['"row-0"', '"row-1"', '"other"', '"row-9"']
    assert [row["position"] for row in sink.quarantine_rows] == [1, 4, 6]


def test_only_rows_that_differ_from_the_kept_one_are_kept_again(
    make_settings: Settings, make_row: Any, sink: Any
) -> None:
    ingest(make_settings([make_row(0), make_row(0, id="x"), make_row(1)]), sink, dataset="d")
    own = [row["row_json"] for row in sink.manifest_rows]
    assert own[0] is own[2] is None
    assert json.loads(own[1]) == make_row(0, id="x")


def test_a_repeated_row_is_quarantined_and_repeated_content_is_not(
    make_settings: Settings, make_row: Any, sink: Any
) -> None:
    text = json.dumps(make_row(0))
    spaced = json.dumps(make_row(0), indent=3)
    ingest(make_settings(f"[{text}, {spaced}, {json.dumps(make_row(0, id=1))}]"), sink, dataset="d")
    (refused,) = sink.quarantine_rows
    assert (refused["position"], refused["reason"]) == (1, "duplicate_row")
    assert json.loads(refused["row_json"]) == make_row(0)
    assert [row["is_duplicate"] for row in sink.manifest_rows] == [False, True]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_the_number_of_workers_changes_nothing(
    make_settings: Settings, make_row: Any, new_sink: Any, monkeypatch: Any, workers: int
) -> None:
    monkeypatch.setattr("vsel_platform.samples.ingest.BATCH_BYTES", 2_000)
    rows = [make_row(i % 90, id=i % 100, bad=math.nan) if i % 7 == 0 else make_row(i % 90, id=i) for i in range(300)]
    settings = make_settings(rows, shard_rows=20)
    alone, together = new_sink(), new_sink()
    first = ingest(settings, alone, dataset="d", workers=0)
    second = ingest(settings, together, dataset="d", workers=workers)
    assert together.contents() == alone.contents()
    assert (first.rejected, first.new_shards) == (second.rejected, second.new_shards)
    assert first.rejected["nan_literal"] > 0


def test_known_content_makes_no_new_shard(make_settings: Settings, make_row: Any, new_sink: Any) -> None:
    settings = make_settings([make_row(i) for i in range(25)], shard_rows=10)
    first, second = new_sink(), new_sink()
    ingest(settings, first, dataset="d")
    report = again(settings, second, first)
    assert (report.n_new, report.n_new_images, second.shards) == (0, 0, {})
    assert second.manifest_rows == first.manifest_rows


def test_appended_rows_make_one_new_shard_and_keep_the_others(
    make_settings: Settings, make_row: Any, new_sink: Any
) -> None:
    first, second = new_sink(), new_sink()
    ingest(make_settings([make_row(i) for i in range(25)], shard_rows=10), first, dataset="d")
    report = again(make_settings([make_row(i) for i in range(28)], shard_rows=10), second, first)
    assert (report.n_new, len(report.new_shards)) == (3, 1)
    assert second.manifest_rows[:25] == first.manifest_rows
    assert {row["shard"] for row in second.manifest_rows[25:]} == set(report.new_shards)


def test_an_ingest_that_was_killed_goes_on_with_the_same_shards(
    make_settings: Settings, make_row: Any, new_sink: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr("vsel_platform.samples.ingest.BATCH_BYTES", 1_500)
    rows = [make_row(i * 7 % 40, id=i, image=f"{i % 11}.png") for i in range(110)]
    settings = make_settings(rows, shard_rows=6)
    whole = new_sink()
    ingest(settings, whole, dataset="d")
    for survived in range(len(whole.shards) + 1):
        killed, resumed = new_sink(), new_sink()
        kill_after(killed, survived)
        if survived < len(whole.shards):
            with pytest.raises(KeyboardInterrupt):
                ingest(settings, killed, dataset="d")
        else:
            ingest(settings, killed, dataset="d")
        assert list(killed.shards.items()) == list(whole.shards.items())[:survived]
        again(settings, resumed, killed)
        assert resumed.manifest_rows == whole.manifest_rows
        assert resumed.quarantine_rows == whole.quarantine_rows
        assert {**killed.shards, **resumed.shards} == whole.shards
        assert not killed.shards.keys() & resumed.shards.keys()


def kill_after(sink: Any, shards: int) -> None:
    """Let the sink publish so many shards, then stop the ingest as a signal would."""
    publish = sink.shard

    def shard(*tables: Any) -> None:
        if len(sink.shards) == shards:
            raise KeyboardInterrupt
        publish(*tables)

    sink.shard = shard


def test_content_has_one_identity_in_every_format(tmp_path: Path, new_sink: Any) -> None:
    llava = {
        "id": 1,
        "image": "a.png",
        "conversations": [{"from": "human", "value": "<image>\nQ"}, {"from": "gpt", "value": "A"}],
    }
    chat = [{"role": "user", "content": "<image>\nQ"}, {"role": "assistant", "content": "A"}]
    sources = {
        "llava": ("a.json", json.dumps([llava])),
        "vision_flan": ("b.json", json.dumps([{**llava, "task_name": "t"}])),
        "sharegpt": ("c.json", json.dumps([{"messages": chat, "images": ["a.png"]}])),
        "huggingface": ("d.jsonl", json.dumps({"messages": chat, "images": ["a.png"], "id": "x"})),
    }
    found = set()
    for form, (name, text) in sources.items():
        (tmp_path / name).write_text(text)
        sink = new_sink()
        images = ImageSettings(check="none")
        settings = DatasetSettings.model_validate({"format": form, "source": str(tmp_path / name), "images": images})
        ingest(settings, sink, dataset="d")
        found.update(sink.sample_rows)
    assert len(found) == 1


def test_tasks_come_from_a_column_and_from_files(make_settings: Settings, make_row: Any, new_sink: Any) -> None:
    rows = [make_row(0, task="a"), make_row(1, task="b"), make_row(2)]
    by_column, by_file = new_sink(), new_sink()
    settings = make_settings(rows, task=TaskSettings(column="task", default="none"))
    ingest(settings, by_column, dataset="d")
    assert [row["task"] for row in by_column.manifest_rows] == ["a", "b", "none"]
    path = Path(settings.source).with_name("vqa.json")
    path.write_text(json.dumps([{"unique_idx": 2}, {"unique_idx": 0}]))
    settings = make_settings(rows, task=TaskSettings(files={"vqa": str(path)}))
    ingest(settings, by_file, dataset="d", workers=1)
    assert [row["task"] for row in by_file.manifest_rows] == ["vqa", "default", "vqa"]


def test_images_of_equal_bytes_are_one_image(
    make_settings: Settings, make_row: Any, sink: Any, tmp_path: Path, png: Any
) -> None:
    for name in ("0.png", "1.png", "2.png"):
        (tmp_path / name).write_bytes(png(int(name[0]) // 2))
    report = ingest(make_settings([make_row(i) for i in range(4)], check="full"), sink, dataset="d")
    assert report.rejected == {"image_missing": 1}
    assert report.n_images == 2
    assert sorted(row["source_path"] for row in sink.image_rows) == ["0.png", "2.png"]


def test_a_parquet_source_with_embedded_images_comes_back_whole(
    tmp_path: Path, new_sink: Any, png: Any, make_row: Any
) -> None:
    chat = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
    rows = [{"messages": chat, "images": [{"bytes": png(i // 2), "path": None}], "score": float(i)} for i in range(6)]
    rows.append({"messages": chat, "images": [{"bytes": b"broken", "path": "x.png"}], "score": 0.5})
    source = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(rows), source)
    settings = DatasetSettings(format="huggingface", source=str(source), images=ImageSettings(check="full"))
    sink, next_sink = new_sink(), new_sink()
    report = ingest(settings, sink, dataset="d")
    assert report.rejected == {"image_unreadable": 1}
    assert (report.n_distinct, report.n_duplicates, report.n_images) == (3, 3, 3)
    assert sink.blobs == {hashlib.sha256(png(i)).hexdigest(): png(i) for i in range(3)}
    assert {row["path"] for row in sink.image_rows} == {f"memory/{name}" for name in sink.blobs}
    exported = sink.source_rows()
    assert [from_json(json.loads(row), sink.blobs.__getitem__) for row in exported] == rows[:6]
    exported = sink.source_rows()
    write_rows(exported, str(tmp_path / "out.parquet"), container_of(str(source)), sink.blobs.__getitem__)
    assert pq.read_table(tmp_path / "out.parquet").to_pylist() == rows[:6]
    assert again(settings, next_sink, sink).n_new == 0
    assert next_sink.blobs == {}


def test_a_source_and_images_on_another_file_system(sink: Any, png: Any, make_row: Any) -> None:
    fs = fsspec.filesystem("memory")
    fs.pipe("/ingest/rows.json", json.dumps([make_row(0), make_row(1, image="../x.png")]).encode())
    fs.pipe("/ingest/0.png", png())
    report = ingest(DatasetSettings(source="memory://ingest/rows.json"), sink, dataset="d")
    assert report.rejected == {"image_outside_root": 1}
    assert [row["path"] for row in sink.image_rows] == ["memory:///ingest/0.png"]


def test_the_fingerprint_is_that_of_the_files(make_settings: Settings, make_row: Any, sink: Any) -> None:
    settings = make_settings([make_row(0)])
    report = ingest(settings, sink, dataset="d")
    assert report.fingerprint == source_fingerprint(source_files(settings.source))


def test_a_source_that_changes_while_it_is_read_is_an_error(make_settings: Settings, make_row: Any, sink: Any) -> None:
    settings = make_settings([make_row(0)])

    def change(*_: int) -> None:
        Path(settings.source).write_text("[]")

    with pytest.raises(DataError, match="changed while it was read"):
        ingest(settings, sink, dataset="d", progress=change)


def test_progress_reaches_the_end(make_settings: Settings, make_row: Any, sink: Any) -> None:
    calls: list[tuple[int, int, int]] = []
    settings = make_settings([make_row(i) for i in range(5)])
    ingest(settings, sink, dataset="d", progress=lambda *numbers: calls.append(numbers))
    assert calls[-1][0] == 5
    assert 0 < calls[-1][1] <= calls[-1][2] == Path(settings.source).stat().st_size


@pytest.mark.parametrize("text", ["[]", "", "\n \n"])
def test_a_source_without_rows_is_an_error(make_settings: Settings, sink: Any, text: str) -> None:
    settings = make_settings([])
    Path(settings.source).write_text(text)
    with pytest.raises(DataError, match="has no rows; check `source` and `format` of dataset 'd'"):
        ingest(settings, sink, dataset="d")
    assert not sink.manifests


@pytest.mark.parametrize("workers", [0, 2])
def test_rows_are_counted_by_task_and_those_without_one_too(
    make_settings: Settings, make_row: Any, sink: Any, workers: int
) -> None:
    rows = [*({**make_row(i), "kind": "vqa"} for i in range(3)), {**make_row(3), "kind": "default"}, make_row(4)]
    settings = make_settings(rows).model_copy(update={"task": TaskSettings(column="kind")})
    report = ingest(settings, sink, dataset="d", workers=workers)
    assert (report.tasks, report.n_untasked) == ({"vqa": 3, "default": 2}, 1)


def test_too_many_refused_rows_are_an_error_that_names_the_reason(
    make_settings: Settings, make_row: Any, sink: Any
) -> None:
    report = ingest(make_settings([make_row(0), "a", "b", {}]), sink, dataset="d")
    report.require_quarantine_rate(0.75)
    with pytest.raises(QuarantineLimitError, match=r"3 of 4 rows \(75.0%\).*most frequent: not_an_object \(2\)"):
        report.require_quarantine_rate(0.7)
