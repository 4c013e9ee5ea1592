"""The task of a row: from a column, from task files, or from a rule on its image path."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from vsel_platform.config import TaskSettings
from vsel_platform.errors import ConfigError, DataError
from vsel_platform.samples.reading import read_rows
from vsel_platform.samples.sample import Rejected

POSITION_KEY = "unique_idx"


class TaskAssigner:
    """Names tasks in two steps: `key` needs only the row, `name` also the contents of task files.

    With a column or a rule the key is the task's name already; it is empty for a row that they do not name.
    """

    def __init__(self, settings: TaskSettings) -> None:
        self.settings = settings
        self._rule = _compile(settings.rule) if settings.rule is not None else None
        self._by_id: dict[str, str] | None = None

    def key(self, row: Mapping[str, Any], image_paths: Sequence[str], position: int) -> str:
        """Task name of a row, or with task files the row's `id_key` as JSON.

        PreSel's `unique_idx` is the row's position, so rows without it are matched by position.
        """
        settings = self.settings
        if settings.files is not None:
            given = row.get(settings.id_key, position if settings.id_key == POSITION_KEY else None)
            return _id_json(given) or ""
        if settings.column is not None:
            value = row.get(settings.column)
            if isinstance(value, str) and value:
                return value
            return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""
        if self._rule is not None and image_paths and (match := self._rule.search(image_paths[0])):
            return match.group(1) or ""
        return ""

    def name(self, key: str) -> str:
        """Task name of a key; the default for rows that nothing names. Reads task files once.

        Raises DataError if a task file is broken or two files claim the same row.
        """
        return self.find(key) or self.settings.default

    def find(self, key: str) -> str | None:
        """Like `name`, but None for rows that nothing names."""
        if self.settings.files is None:
            return key or None
        if self._by_id is None:
            self._by_id = read_task_files(self.settings.files, self.settings.id_key)
        return self._by_id.get(key)


def untasked_warning(settings: TaskSettings, n_untasked: int, n_rows: int) -> str | None:
    """What to tell about rows that the project file's source of tasks does not name; None if there is nothing.

    A project file that names the default expects such rows; that all of them are such is never expected.
    """
    if not n_untasked or (settings.column is None and settings.files is None and settings.rule is None):
        return None
    if n_untasked < n_rows and "default" in settings.model_fields_set:
        return None
    if settings.column is not None:
        what = f"no text or whole number under the key {settings.column!r} (`task.column`)"
    elif settings.files is not None:
        what = f"no entry in the task files (matched by {settings.id_key!r})"
    else:
        what = f"no image path that the task rule {settings.rule!r} matches"
    rows = f"all {n_rows:,} rows have" if n_untasked == n_rows else f"{n_untasked:,} of {n_rows:,} rows have"
    advice = "" if n_untasked == n_rows else " (give `task.default` a name if that is meant)"
    return f"{rows} {what}: their task is {settings.default!r}{advice}"


def _compile(rule: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(rule)
    except re.error as error:
        raise ConfigError(f"task rule {rule!r} is not a regular expression: {error}") from error
    if not pattern.groups:
        raise ConfigError(f"task rule {rule!r} has no group; the first group is the task name")
    return pattern


def _id_json(value: Any) -> str | None:
    if isinstance(value, str):
        return orjson.dumps(value).decode()
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return None


def read_task_files(files: Mapping[str, str], id_key: str) -> dict[str, str]:
    """Row id (as JSON) -> task name, from files that hold the rows of one task each.

    Raises DataError for a row without an id, a row that cannot be read, or a row in two files.
    """
    tasks: dict[str, str] = {}
    for task, file in files.items():
        for batch in read_rows([file]):
            for row in batch:
                if isinstance(row, Rejected):
                    raise DataError(f"task file {file}, row {row.position}: {row.reason}: {row.detail}")
                found = _id_json(row.value.get(id_key)) if isinstance(row.value, dict) else None
                if found is None:
                    raise DataError(f"task file {file}, row {row.position}: no {id_key!r} (set `task.id_key`)")
                if tasks.setdefault(found, task) != task:
                    raise DataError(f"row {found} is in the files of two tasks, {tasks[found]} and {task}")
    return tasks
