import json
from pathlib import Path

import pytest

from vsel_platform.config import load_project
from vsel_platform.demo import project as demo_project
from vsel_platform.demo.dataset import DemoDataset
from vsel_platform.demo.project import DATASET, append_demo_rows, write_demo_project
from vsel_platform.errors import ConfigError


@pytest.fixture
def project_file(small: DemoDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(demo_project, "ensure_dataset", lambda seed: small)
    return write_demo_project(tmp_path / "demo")


def test_the_project_loads_and_its_files_exist(project_file: Path, small: DemoDataset) -> None:
    project = load_project(project_file)
    settings = project.dataset(DATASET)
    assert json.loads(Path(project.resolve(settings.source)).read_text("utf-8")) == small.pool
    assert Path(settings.image_root) == small.images
    assert (
        json.loads(Path(project.resolve(project.benchmark("held_out").questions)).read_text("utf-8"))
        == small.evaluation
    )
    assert Path(project.benchmark("held_out").image_root) == small.images
    assert project.recipe("presel_15").method == "presel"
    assert project.recipe("random_15").budget == project.recipe("presel_15").budget
    assert not project.recipe("presel_15_released").train
    assert project.vlm.model == "embedded:demo"


def test_the_full_pool_makes_several_shards_and_passes_the_quarantine_limit(project_file: Path) -> None:
    from vsel_platform.demo.broken import broken_rows
    from vsel_platform.demo.instructions import POOL_ROWS

    settings = load_project(project_file).dataset(DATASET)
    rows = sum(POOL_ROWS.values())
    assert rows / settings.shard_rows > 2
    assert len(broken_rows("x")) / rows < settings.max_quarantine_rate


def test_the_seed_is_that_of_the_recipes(small: DemoDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_project, "ensure_dataset", lambda seed: small)
    project = load_project(write_demo_project(tmp_path, seed=99))
    assert {recipe.seed for recipe in project.recipes.values()} == {99}
    assert project.reference.seed == project.reference.lora.seed == project.training.lora.seed == 99


def test_later_rows_are_appended_once_and_taken_back_by_a_new_demo(project_file: Path, small: DemoDataset) -> None:
    project = load_project(project_file)
    source = Path(project.resolve(project.dataset(DATASET).source))
    original = source.read_bytes()
    assert append_demo_rows(project_file) == len(small.new_rows) > 0
    assert json.loads(source.read_text("utf-8")) == [*small.pool, *small.new_rows]
    changed = source.stat().st_mtime_ns
    assert append_demo_rows(project_file) == 0
    assert source.stat().st_mtime_ns == changed
    write_demo_project(project_file.parent)
    assert source.read_bytes() == original


def test_writing_again_touches_nothing(project_file: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in project_file.parent.rglob("*") if file.is_file()}
    write_demo_project(project_file.parent)
    assert before == {file: file.stat().st_mtime_ns for file in project_file.parent.rglob("*") if file.is_file()}


def test_another_project_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "vsel.yaml"
    file.write_text("name: other\ndatasets: {mine: {source: rows.json}}\n")
    with pytest.raises(ConfigError, match="not a project of the demo"):
        append_demo_rows(file)


def test_a_failed_write_leaves_the_old_file(project_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = project_file.parent / "data" / "emoji.json"
    before = source.read_bytes()
    monkeypatch.setattr(Path, "replace", lambda self, target: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        append_demo_rows(project_file)
    assert source.read_bytes() == before
    assert not [file for file in source.parent.iterdir() if file.name.startswith(".")]
