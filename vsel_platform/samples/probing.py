"""What an image file is, from its bytes: container format, width, height; every pixel only on request."""

import io

from vsel_platform.config import ImageSettings
from vsel_platform.samples.sample import Reason, RefusedRow

# Names of files that are refused without being opened, from their first bytes.
SIGNATURES = (
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"GIF8", "GIF"),
    (8, b"WEBP", "WEBP"),
    (0, b"BM", "BMP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftyp", "HEIF"),
    (0, b"\0\0\0\x0cjP  ", "JPEG2000"),
    (0, b"\0\0\x01\0", "ICO"),
    (0, b"8BPS", "PSD"),
    (0, b"%PDF", "PDF"),
    (0, b"%!PS", "EPS"),
    (0, b"<svg", "SVG"),
    (0, b"<?xml", "SVG"),
)


def signature(data: bytes) -> str | None:
    """Name of the format that the first bytes of a file show, None if they show none of the known ones."""
    for offset, magic, name in SIGNATURES:
        if data[offset : offset + len(magic)] == magic:
            return name
    return None


def probe(data: bytes, name: str, settings: ImageSettings) -> tuple[int, int, str]:
    """Width, height [pixels] and format of an image file; with `check: full` every pixel is decoded too.

    Only decoders of the allowed formats are tried, and pixels are counted before any is decoded.
    Raises RefusedRow.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data), formats=settings.formats) as image:
            width, height = image.size
            if width * height > settings.max_pixels:
                detail = f"{name}: {width} x {height} pixels, more than max_pixels {settings.max_pixels}"
                raise RefusedRow(Reason.IMAGE_TOO_MANY_PIXELS, detail)
            if settings.check == "full":
                image.load()
            return width, height, str(image.format)
    except RefusedRow:
        raise
    except Image.DecompressionBombError as error:
        raise RefusedRow(Reason.IMAGE_TOO_MANY_PIXELS, f"{name}: {error}") from error
    except UnidentifiedImageError as error:
        raise _unidentified(data, name, settings) from error
    except Exception as error:  # decoders raise whatever a damaged file leads them to
        raise RefusedRow(Reason.IMAGE_UNREADABLE, f"{name}: {type(error).__name__}: {error}") from error


def _unidentified(data: bytes, name: str, settings: ImageSettings) -> RefusedRow:
    found = signature(data)
    if found is not None and found not in settings.formats:
        allowed = ", ".join(settings.formats)
        return RefusedRow(Reason.IMAGE_FORMAT_NOT_ALLOWED, f"{name} is {found}; allowed: {allowed}")
    kind = "an empty file" if not data else "not an image that can be decoded"
    return RefusedRow(Reason.IMAGE_UNREADABLE, f"{name} is {kind}")
