"""The demo data set in the user's cache: rendered once, published whole or not at all."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import orjson

from vsel_platform.demo.artwork import Concept, Drawing, find_drawings, load_concepts, package_versions
from vsel_platform.demo.broken import write_broken_files
from vsel_platform.demo.instructions import evaluation_rows, new_rows, numbered, pool_json, pool_rows
from vsel_platform.demo.rows import Row
from vsel_platform.demo.splits import Splits, split_drawings
from vsel_platform.errors import DataError
from vsel_platform.identity import fingerprint

DEFAULT_SEED = 12345
_DECIDING_MODULES = (
    "artwork", "broken", "chance", "colours", "dataset", "instructions", "picture_tasks", "pictures", "rows",
    "scene_tasks", "splits", "text_tasks",
)  # fmt: skip


@dataclass(frozen=True)
class DemoDataset:
    """The published data set: a folder with the images and the rows as JSON files."""

    folder: Path

    @property
    def images(self) -> Path:
        """Root of the image paths in the rows."""
        return self.folder / "images"

    @cached_property
    def pool(self) -> list[Any]:
        """Rows to select from, the broken ones included."""
        return self._read("pool.json")

    @cached_property
    def evaluation(self) -> list[dict[str, Any]]:
        """Held-out rows."""
        return self._read("evaluation.json")

    @cached_property
    def new_rows(self) -> list[dict[str, Any]]:
        """Rows that arrive later."""
        return self._read("new_rows.json")

    @cached_property
    def about(self) -> dict[str, Any]:
        """Counts, and the package versions that the pictures come from."""
        about: dict[str, Any] = orjson.loads((self.folder / "about.json").read_bytes())
        return about

    def _read(self, name: str) -> list[Any]:
        rows: list[Any] = orjson.loads((self.folder / name).read_bytes())
        return rows


def cache_root() -> Path:
    """Where rendered data lies: `$VSEL_CACHE`, else `vsel` in the user's cache directory."""
    if chosen := os.environ.get("VSEL_CACHE"):
        return Path(chosen).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "vsel"


def spread(concepts: Sequence[Concept], limit: int) -> list[Concept]:
    """`limit` concepts at equal distances in the list; all of them for 0."""
    if not limit or limit >= len(concepts):
        return list(concepts)
    return [concepts[number * len(concepts) // limit] for number in range(limit)]


def ensure_dataset(*, seed: int = DEFAULT_SEED, concept_limit: int = 0) -> DemoDataset:
    """The demo data set, built if this combination of seed, size and package versions is not in the cache yet.

    The files are made in a temporary directory that is renamed when everything is in it, so a killed build leaves
    no half data set, and of two builds at the same time one wins. Raises MissingPackageError if a package with
    artwork is not installed.
    """
    versions = package_versions()
    key = fingerprint(code=_code_hash(), seed=seed, concept_limit=concept_limit, packages=versions)
    folder = cache_root() / f"demo-{key}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            _build(building, seed, concept_limit, versions)
            building.chmod(0o755)
            _publish(building, folder)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    return DemoDataset(folder)


@lru_cache(maxsize=1)
def _code_hash() -> str:
    """Hash of the modules that decide the data set, so that a changed one never finds the data of the old one."""
    digest = hashlib.sha256()
    for name in _DECIDING_MODULES:
        digest.update(Path(__file__).with_name(f"{name}.py").read_bytes())
    return digest.hexdigest()


def _publish(building: Path, folder: Path) -> None:
    try:
        building.rename(folder)
    except OSError:
        if not folder.is_dir():  # otherwise another process was first, with the same bytes
            raise


@dataclass(frozen=True)
class PlannedRows:
    """All rows of the demo before anything is rendered, and the split of the drawings they come from."""

    splits: Splits
    pool: list[Row]
    evaluation: list[Row]
    later: list[Row]


def plan_rows(*, seed: int = DEFAULT_SEED, concept_limit: int = 0) -> PlannedRows:
    """The demo's rows. Raises DataError if the evaluation shared a drawing with the rest."""
    every = load_concepts()
    drawings = find_drawings(spread(every, concept_limit))
    splits = split_drawings(drawings)
    # A small demo still draws its wrong answers from all concepts.
    concepts = every if concept_limit else _drawn(every, drawings)
    plan = PlannedRows(
        splits,
        pool_rows(splits, concepts, seed),
        evaluation_rows(splits, concepts, seed),
        new_rows(splits, concepts, seed),
    )
    _check_disjoint([*plan.pool, *plan.later], plan.evaluation)
    return plan


def _build(folder: Path, seed: int, concept_limit: int, versions: dict[str, str]) -> None:
    plan = plan_rows(seed=seed, concept_limit=concept_limit)
    n_images = _write_pictures([*plan.pool, *plan.evaluation, *plan.later], folder / "images")
    write_broken_files(folder / "images")
    rows = pool_json(plan.pool, seed)
    _write_json(folder / "pool.json", rows)
    _write_json(folder / "evaluation.json", numbered(plan.evaluation, "evaluation"))
    _write_json(folder / "new_rows.json", numbered(plan.later, "new"))
    about = {
        "images": n_images,
        "pool_rows": len(rows),
        "evaluation_rows": len(plan.evaluation),
        "packages": versions,
    }
    _write_json(folder / "about.json", about)


def _drawn(concepts: Sequence[Concept], drawings: Iterable[Drawing]) -> list[Concept]:
    drawn = {drawing.concept.key for drawing in drawings}
    return [concept for concept in concepts if concept.key in drawn]


def _check_disjoint(pool: Iterable[Row], evaluation: Iterable[Row]) -> None:
    used = {drawing for row in pool if row.picture for drawing in row.picture.drawings}
    shared = used & {drawing for row in evaluation if row.picture for drawing in row.picture.drawings}
    if shared:
        raise DataError(f"the demo's evaluation shares drawings with its pool: {', '.join(sorted(shared)[:5])}")


def _write_pictures(rows: Iterable[Row], folder: Path) -> int:
    pictures = {row.picture.path: row.picture for row in rows if row.picture}
    # In the order of paths, so that the drawings of a concept are rendered once.
    for path in sorted(pictures):
        pictures[path].write(folder)
    return len(pictures)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", "utf-8")
