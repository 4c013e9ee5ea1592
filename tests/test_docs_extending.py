"""Runs docs/extending.md: saves named blocks, applies changes to a copy of the package, runs the rest in order."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from vsel_platform.models.encoders import ENTRY_POINT_GROUP

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "extending.md"
MOST_LINES = 30


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the file name behind it, its text."""

    language: str
    file: str
    text: str


def sections() -> dict[str, list[Block]]:
    """Fenced blocks of every section of the page."""
    found: dict[str, list[Block]] = {}
    for part in re.split(r"^## ", PAGE.read_text("utf-8"), flags=re.MULTILINE)[1:]:
        blocks = re.findall(r"^```(\w+)(?: file=(\S+))?\n(.*?)^```$", part, re.MULTILINE | re.DOTALL)
        found[part.splitlines()[0]] = [Block(*block) for block in blocks]
    return found


def change(package: Path, diff: str) -> None:
    """Apply a diff: every group of lines is found by its unchanged and removed lines, exactly once."""
    header, *groups = diff.split("@@\n")
    path = package / header.removeprefix("--- ").strip()
    text = path.read_text("utf-8")
    for group in groups:
        lines = group.splitlines()
        before = "\n".join(line[1:] for line in lines if line[:1] in (" ", "-"))
        after = "\n".join(line[1:] for line in lines if line[:1] in (" ", "+"))
        assert text.count(before) == 1, f"{path.name} does not hold these lines once:\n{before}"
        text = text.replace(before, after)
    path.write_text(text, "utf-8")


def run(block: Block, directory: Path) -> str:
    """Output of a Python block that is run in `directory` with the package's copy first on the path."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(directory), str(ROOT)]), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-c", block.text], cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("title", sections())
def test_a_section_does_what_it_says(title: str, tmp_path: Path) -> None:
    blocks = sections()[title]
    if any(block.language == "diff" for block in blocks):
        shutil.copytree(
            ROOT / "vsel_platform", tmp_path / "vsel_platform", ignore=shutil.ignore_patterns("__pycache__")
        )
    printed = ""
    for block in blocks:
        if block.language == "diff":
            change(tmp_path, block.text)
        elif block.file:
            (tmp_path / block.file).write_text(block.text, "utf-8")
        elif block.language == "python":
            printed = run(block, tmp_path)
        elif block.language == "text":
            assert printed == block.text


@pytest.mark.parametrize("title", sections())
def test_a_new_part_stays_short(title: str) -> None:
    modules = [block for block in sections()[title] if block.file]
    assert len(modules) == 1
    assert len(modules[0].text.splitlines()) <= MOST_LINES


def test_the_entry_point_on_the_page_is_read_by_the_platform() -> None:
    (block,) = [block for blocks in sections().values() for block in blocks if block.language == "toml"]
    points = tomllib.loads(block.text)["project"]["entry-points"]
    assert list(points) == [ENTRY_POINT_GROUP]
    modules = {Path(block.file).stem for blocks in sections().values() for block in blocks if block.file}
    assert {target.partition(":")[0] for target in points[ENTRY_POINT_GROUP].values()} <= modules
