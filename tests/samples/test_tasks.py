"""Task of a row."""

import json
from pathlib import Path
from typing import Any

import pytest

from vsel_platform.config import TaskSettings
from vsel_platform.errors import ConfigError, DataError
from vsel_platform.samples.tasks import TaskAssigner, read_task_files, untasked_warning


def task(settings: TaskSettings, row: dict[str, Any], image: str | None = None, position: int = 0) -> str:
    assigner = TaskAssigner(settings)
    return assigner.name(assigner.key(row, [image] if image else [], position))


def test_without_a_source_of_tasks_every_row_has_the_default() -> None:
    assert task(TaskSettings(), {"task": "x"}, "a.png") == "default"


@pytest.mark.parametrize(
    ("value", "expected"),
    [("vqa", "vqa"), (7, "7"), ("", "other"), (None, "other"), (True, "other"), (["vqa"], "other"), (1.5, "other")],
)
def test_a_column_names_the_task(value: Any, expected: str) -> None:
    assert task(TaskSettings(column="task_name", default="other"), {"task_name": value}) == expected


def test_a_row_without_the_column_has_the_default() -> None:
    assert task(TaskSettings(column="task_name"), {}) == "default"


def test_a_rule_names_the_task_by_the_first_image() -> None:
    settings = TaskSettings(rule=r"^([^/]+)/", default="text")
    assert task(settings, {}, "coco/train/1.jpg") == "coco"
    assert task(settings, {}, "1.jpg") == "text"
    assert task(settings, {}) == "text"


def test_a_rule_whose_group_takes_no_part_gives_the_default() -> None:
    assert task(TaskSettings(rule=r"(gqa)?.*jpg"), {}, "a.jpg") == "default"


@pytest.mark.parametrize(("rule", "message"), [("(", "not a regular expression"), ("coco", "no group")])
def test_a_rule_that_names_nothing_is_refused(rule: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TaskAssigner(TaskSettings(rule=rule))


def files(folder: Path, **rows: Any) -> dict[str, str]:
    for name, content in rows.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return {name: str(folder / f"{name}.json") for name in rows}


def test_task_files_name_the_task_by_id(tmp_path: Path) -> None:
    settings = TaskSettings(files=files(tmp_path, one=[{"id": "a"}, {"id": 7}], two=[{"id": "7"}]), id_key="id")
    assert task(settings, {"id": "a"}) == "one"
    assert task(settings, {"id": 7}) == "one"
    assert task(settings, {"id": "7"}) == "two"
    assert task(settings, {"id": "b"}) == "default"
    assert task(settings, {"id": None}) == "default"
    assert task(settings, {}, position=7) == "default"


def test_rows_without_unique_idx_are_matched_by_position(tmp_path: Path) -> None:
    settings = TaskSettings(files=files(tmp_path, one=[{"unique_idx": 0}], two=[{"unique_idx": 1}]))
    assert [task(settings, {}, position=n) for n in range(3)] == ["one", "two", "default"]
    assert task(settings, {"unique_idx": 0}, position=1) == "one"


def test_a_row_in_the_files_of_two_tasks_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="row 3 is in the files of two tasks, one and two"):
        read_task_files(files(tmp_path, one=[{"id": 3}], two=[{"id": 3}]), "id")


def test_a_row_twice_in_one_file_is_none(tmp_path: Path) -> None:
    assert read_task_files(files(tmp_path, one=[{"id": 3}, {"id": 3}]), "id") == {"3": "one"}


@pytest.mark.parametrize("row", [{}, {"id": None}, {"id": 1.5}, {"id": True}, "text"])
def test_a_task_file_row_without_an_id_is_an_error(tmp_path: Path, row: Any) -> None:
    with pytest.raises(DataError, match=r"one\.json, row 0: no 'id'"):
        read_task_files(files(tmp_path, one=[row]), "id")


def test_a_broken_task_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    path.write_text('[{"id": 1}, {"id"')
    with pytest.raises(DataError, match=r"one\.json, row 1: invalid_json"):
        read_task_files({"one": str(path)}, "id")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (TaskSettings(column="kind"), "under the key 'kind' (`task.column`): their task is 'default'"),
        (TaskSettings(files={"one": "one.json"}), "no entry in the task files (matched by 'unique_idx')"),
        (TaskSettings(rule="(a)", default="other"), "no image path that the task rule '(a)' matches"),
    ],
)
def test_rows_that_nothing_names_are_told(settings: TaskSettings, words: str) -> None:
    warning = untasked_warning(settings, 4, 4)
    assert warning is not None
    assert warning.startswith("all 4 rows have no ")
    assert words in warning
    assert untasked_warning(settings, 0, 4) is None


def test_a_default_that_is_named_expects_some_rows_without_a_task() -> None:
    assert untasked_warning(TaskSettings(column="kind", default="text"), 3, 4) is None
    assert "3 of 4 rows have no" in str(untasked_warning(TaskSettings(column="kind"), 3, 4))
    assert untasked_warning(TaskSettings(), 4, 4) is None
