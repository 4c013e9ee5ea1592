import json
import warnings
from pathlib import Path

import pytest
from PIL import Image, UnidentifiedImageError

from vsel_platform.config import ImageSettings
from vsel_platform.demo.broken import NOT_AN_IMAGE, TOO_LARGE, broken_rows, write_broken_files


def test_every_row_is_broken_in_its_own_way_and_is_json() -> None:
    rows = broken_rows("noto/1f355.png")
    assert len(rows) >= 12
    assert len({json.dumps(row, sort_keys=True) for row in rows}) == len(rows)
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows


def test_none_of_the_rows_would_pass_as_a_good_one() -> None:
    def is_good(row: object) -> bool:
        if not isinstance(row, dict) or not isinstance(row["id"], str) or row["image"] != "noto/1f355.png":
            return False
        turns = row.get("conversations")
        if not turns or [turn["from"] for turn in turns] != ["human", "gpt"] * (len(turns) // 2):
            return False
        return all(isinstance(t["value"], str) for t in turns) and str(turns).count("<image>") == 1

    assert not [row for row in broken_rows("noto/1f355.png") if is_good(row)]


def test_the_files_of_broken_rows_are_broken(tmp_path: Path) -> None:
    write_broken_files(tmp_path)
    with pytest.raises(UnidentifiedImageError):
        Image.open(tmp_path / NOT_AN_IMAGE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Image.open(tmp_path / TOO_LARGE) as image:
            width, height = image.size
    assert width * height > ImageSettings().max_pixels
    assert (tmp_path / TOO_LARGE).stat().st_size < 100_000


def test_the_large_picture_is_a_valid_png(tmp_path: Path) -> None:
    write_broken_files(tmp_path)
    with Image.open(tmp_path / TOO_LARGE) as image:
        image.load()
        assert image.mode == "1"
