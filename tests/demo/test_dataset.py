import hashlib
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from vsel_platform.config import DatasetSettings, TaskSettings
from vsel_platform.demo import dataset
from vsel_platform.demo.artwork import load_concepts
from vsel_platform.demo.broken import broken_rows
from vsel_platform.demo.dataset import DemoDataset, cache_root, ensure_dataset, spread
from vsel_platform.demo.instructions import POOL_ROWS
from vsel_platform.samples.ingest import ingest


def contents(folder: Path) -> dict[str, str]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_every_image_of_good_rows_exists(small: DemoDataset) -> None:
    rows = [row for row in small.pool if isinstance(row, dict) and str(row["id"]).startswith("emoji-")]
    paths = {row["image"] for row in [*rows, *small.evaluation, *small.new_rows] if "image" in row}
    assert len(rows) > 50
    assert all((small.images / path).is_file() for path in paths)
    assert small.about["images"] == len(paths)
    assert small.about["pool_rows"] == len(small.pool)


def test_evaluation_and_pool_share_no_image_bytes(small: DemoDataset) -> None:
    def digests(rows: list) -> set[str]:
        paths = {small.images / row["image"] for row in rows if isinstance(row, dict) and "image" in row}
        return {hashlib.sha256(path.read_bytes()).hexdigest() for path in paths if path.is_file()}

    assert digests(small.evaluation)
    assert not digests(small.evaluation) & digests([*small.pool, *small.new_rows])


def test_another_build_gives_the_same_bytes(
    small: DemoDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VSEL_CACHE", str(tmp_path))
    again = ensure_dataset(concept_limit=40)
    assert again.folder.name == small.folder.name
    assert contents(again.folder) == contents(small.folder)


def test_what_is_in_the_cache_is_not_built_again(small: DemoDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "_build", None)
    assert ensure_dataset(concept_limit=40) == small


def test_seed_and_package_versions_decide_the_folder(small: DemoDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "_build", lambda folder, *rest: (folder / "x").touch())
    assert ensure_dataset(seed=1, concept_limit=40) != small
    monkeypatch.setattr(dataset, "package_versions", lambda: {"pillow": "0"})
    assert ensure_dataset(concept_limit=40) != small


def test_every_module_that_decides_the_rows_is_part_of_the_name(small: DemoDataset) -> None:
    """What `dataset` imports from the demo, directly or not, must be hashed."""
    package = Path(dataset.__file__).parent
    wanted, found = ["dataset"], set()
    while wanted:
        name = wanted.pop()
        if name not in found:
            found.add(name)
            wanted += re.findall(r"from vsel_platform\.demo\.(\w+) import", (package / f"{name}.py").read_text("utf-8"))
    assert found == set(dataset._DECIDING_MODULES)


def test_a_build_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(folder: Path, *rest: object) -> None:
        (folder / "half").touch()
        raise KeyboardInterrupt

    monkeypatch.setenv("VSEL_CACHE", str(tmp_path))
    monkeypatch.setattr(dataset, "_build", fail)
    with pytest.raises(KeyboardInterrupt):
        ensure_dataset()
    assert list(tmp_path.iterdir()) == []


def test_of_two_builds_at_the_same_time_the_first_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(folder: Path, seed: int, *rest: object) -> None:
        (folder / "mine").touch()
        if seed == 1:  # while this one builds, another process publishes the same data set
            monkeypatch.setattr(dataset, "_build", lambda folder, *rest: (folder / "theirs").touch())
            ensure_dataset(seed=1)

    monkeypatch.setenv("VSEL_CACHE", str(tmp_path))
    monkeypatch.setattr(dataset, "_build", build)
    found = ensure_dataset(seed=1)
    assert [file.name for file in found.folder.iterdir()] == ["theirs"]
    assert list(tmp_path.iterdir()) == [found.folder]


def test_the_cache_lies_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VSEL_CACHE", "/chosen")
    assert cache_root() == Path("/chosen")
    monkeypatch.delenv("VSEL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_root() == Path("/xdg/vsel")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_root() == Path.home() / ".cache" / "vsel"


def test_a_limit_spreads_over_all_concepts() -> None:
    concepts = load_concepts()
    chosen = spread(concepts, 40)
    assert len(chosen) == len(set(chosen)) == 40
    assert len({concept.group for concept in chosen}) >= 7
    assert spread(concepts, 0) == concepts
    assert spread(concepts, 10**6) == concepts


class Sink:
    """Keeps what an ingest refuses."""

    def __init__(self) -> None:
        self.refused: list[dict] = []
        self.accepted: list[dict] = []

    def manifest(self, batch: Any) -> None:
        self.accepted += batch.to_pylist()

    def quarantine(self, batch: Any) -> None:
        self.refused += batch.to_pylist()

    def shard(self, name: str, samples: Any, images: Any) -> None:
        """Nothing is kept."""

    def blob(self, image_id: str, data: bytes) -> str:
        raise AssertionError(image_id)


def test_an_ingest_refuses_the_broken_rows_and_only_those(small: DemoDataset) -> None:
    settings = DatasetSettings(
        source=str(small.folder / "pool.json"), image_root=str(small.images), task=TaskSettings(column="task")
    )
    sink = Sink()
    report = ingest(settings, sink, dataset="emoji", workers=0)
    reasons = Counter(row["reason"] for row in sink.refused)
    copied = reasons.pop("duplicate_row")
    assert reasons.total() == len(broken_rows("x"))
    assert len(reasons) >= 12
    assert len(sink.accepted) == len(small.pool) - len(broken_rows("x")) - copied
    tasks = {row["task"] for row in sink.accepted}
    assert tasks <= set(POOL_ROWS)
    assert len(tasks) >= 9  # the few concepts hold no clock or key
    assert report.n_duplicates > 0


def test_files_are_plain_json(small: DemoDataset) -> None:
    for name in ("pool.json", "evaluation.json", "new_rows.json", "about.json"):
        json.loads((small.folder / name).read_text("utf-8"))
