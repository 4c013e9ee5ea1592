"""`vsel doctor`: what this store and this machine may be used for."""

import importlib.metadata
import io
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vsel_platform.errors import StorageError
from vsel_platform.storage.files import FileStore
from vsel_platform.storage.race import RaceReport, race

PINNED = {
    "duckdb": ("1.5.5", "its extensions exist for this version only, and the SQL check was made for it"),
    "torch": ("2.13.0", "all figures were measured with it"),
    "sqlalchemy": ("2.0", "2.1 changes the default PostgreSQL driver, which breaks dagster-postgres"),
}
CORE_PACKAGES = ("pyarrow", "lancedb", "pylance", "s3fs", "transformers", "peft", "dagster")
FREE_WARN_GIB, FREE_FAIL_GIB = 10.0, 1.0
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
ONE_WRITER = "run one writer at a time: max_concurrent_runs: 1 in dagster.yaml, and no second deployment"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was found, and what to do about it."""

    check: str
    status: Literal["ok", "warn", "fail"]
    detail: str
    advice: str = ""


def diagnose(store_root: str) -> list[Finding]:
    """Probe the store at `store_root` (it is created if missing) and the machine.

    The probe writes and removes small files below `<root>/.doctor/`.
    """
    checks: list[Callable[[], list[Finding]]] = [
        lambda: _store(store_root),
        lambda: _disk(store_root),
        _packages,
        _dagster_storage,
        _device,
        _decoders,
    ]
    return [finding for check in checks for finding in check()]


def _store(root: str) -> list[Finding]:
    try:
        files = FileStore(root)
        files.write(".doctor/probe", b"probe")
        if files.read(".doctor/probe") != b"probe" or [e.path for e in files.entries(".doctor")] == []:
            return [Finding("store", "fail", f"{root}: a written file is not read back", "use another store")]
        report = race(files, ".doctor/race")
    except StorageError as error:
        return [Finding("store", "fail", str(error), "mend the path, rights, bucket or AWS_* environment")]
    finally_removed = _remove(files)
    return [Finding("store", "ok", f"{files.root_url} can be written and read"), _verdict(report), *finally_removed]


def _remove(files: FileStore) -> list[Finding]:
    try:
        files.delete_tree(".doctor")
    except StorageError as error:
        return [Finding("store deletes", "warn", str(error), "allow deletes: without them `vsel gc` frees nothing")]
    return []


def _verdict(report: RaceReport) -> Finding:
    detail = f"{report.rounds} rounds of {report.writers} writers: {report.summary}"
    if report.safe:
        return Finding("conditional writes", "ok", f"several writers: {detail}")
    return Finding("conditional writes", "warn", f"one writer only: {detail}", ONE_WRITER)


def _disk(root: str) -> list[Finding]:
    if "://" in root:
        return []
    path = Path(root).absolute()
    while not path.exists():
        path = path.parent
    free = shutil.disk_usage(path).free / 2**30
    detail = f"{free:.1f} GiB free at {path}"
    if free < FREE_FAIL_GIB:
        return [Finding("disk", "fail", detail, "free space or move the store; `vsel gc --dry-run` shows what can go")]
    if free < FREE_WARN_GIB:
        return [Finding("disk", "warn", detail, "`vsel gc --dry-run` shows what can go")]
    return [Finding("disk", "ok", detail)]


def _packages() -> list[Finding]:
    found = [Finding("python", "ok", sys.version.split()[0])]
    for name, (wanted, reason) in PINNED.items():
        version = _version(name)
        if version is None:
            if name != "sqlalchemy":  # only the Dagster deployment needs it
                found.append(Finding(name, "fail", "not installed", "pip install -c constraints.txt ."))
        elif version.split("+")[0] == wanted or version.startswith(f"{wanted}."):
            found.append(Finding(name, "ok", version))
        else:
            found.append(
                Finding(name, "warn", f"{version}; tested with {wanted}: {reason}", "pip install -c constraints.txt .")
            )
    others = [f"{name} {_version(name)}" for name in CORE_PACKAGES if _version(name)]
    return [*found, Finding("packages", "ok", ", ".join(others))]


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _dagster_storage() -> list[Finding]:
    host = os.environ.get("DAGSTER_PG_HOST")
    if host:
        return [Finding("dagster storage", "ok", f"PostgreSQL at {host}")]
    return [
        Finding(
            "dagster storage",
            "ok",
            "SQLite: for one machine and few runs at a time",
            "for more, set DAGSTER_PG_HOST, _PORT, _USERNAME, _PASSWORD and _DB (docs/operations.md)",
        )
    ]


def _device() -> list[Finding]:
    import torch

    if not torch.cuda.is_available():
        threads = torch.get_num_threads()
        return [Finding("device", "ok", f"CPU, {threads} threads; no CUDA device is visible to torch")]
    names = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return [Finding("device", "ok", ", ".join(f"{p.name} ({p.total_memory / 2**30:.0f} GiB)" for p in names))]


def _decoders() -> list[Finding]:
    from PIL import Image

    broken = []
    for name in FORMATS:
        buffer = io.BytesIO()
        try:
            Image.new("RGB", (8, 8), (200, 10, 10)).save(buffer, name)
            with Image.open(io.BytesIO(buffer.getvalue())) as image:
                image.convert("RGB").load()
        except (OSError, KeyError, ValueError) as error:
            broken.append(f"{name} ({error})")
    if broken:
        return [
            Finding("image decoders", "fail", f"cannot decode {', '.join(broken)}", "reinstall pillow from its wheel")
        ]
    return [Finding("image decoders", "ok", ", ".join(FORMATS))]
