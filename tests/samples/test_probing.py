"""Names of image formats from their first bytes."""

import io

import pytest
from PIL import Image

from vsel_platform.samples.probing import signature


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "ICO", "PDF", "EPS", "AVIF"])
def test_a_file_that_pillow_writes_is_recognised(form: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, form)
    assert signature(buffer.getvalue()) == form


@pytest.mark.parametrize("data", [b"", b"\x89PN", b"hello", b"\0" * 100])
def test_other_bytes_have_no_name(data: bytes) -> None:
    assert signature(data) is None
