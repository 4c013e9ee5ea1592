"""Stores for the storage tests: every test that takes `root` runs on a directory and on S3."""

from pathlib import Path

import pytest
from s3_server import s3_root, s3_server

__all__ = ["s3_root", "s3_server"]


@pytest.fixture(params=["directory", pytest.param("s3", marks=pytest.mark.integration)])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Root of a fresh store."""
    if request.param == "s3":
        return str(request.getfixturevalue("s3_root"))
    return str(tmp_path / "store")
