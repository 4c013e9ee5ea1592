"""Deliberately broken rows and files, one of each kind, so that quarantine has something to show."""

import struct
import zlib
from pathlib import Path
from typing import Any

NOT_AN_IMAGE = "broken/not_an_image.png"
TOO_LARGE = "broken/too_large.png"
_CLAIMED_EDGE_PX = 8_000


def broken_rows(good_image: str) -> list[Any]:
    """Rows that an ingest has to refuse, each for another reason; `good_image` is a path that does exist."""
    question = {"from": "human", "value": "<image>\nWhat is this?"}
    answer = {"from": "gpt", "value": "pizza"}

    def row(row_id: Any, image: Any, conversations: Any) -> dict[str, Any]:
        return {"id": row_id, "image": image, "task": "name", "conversations": conversations}

    without = row("broken-no-conversation", good_image, None)
    del without["conversations"]
    return [
        "a text where a row should be",
        without,
        row("broken-empty", good_image, []),
        row("broken-roles", good_image, [question, {"from": "human", "value": "And the colour?"}, answer]),
        row("broken-role", good_image, [question, {"from": "robot", "value": "pizza"}]),
        row("broken-text", good_image, [question, {"from": "gpt", "value": 42}]),
        row("broken-two-tags", good_image, [{"from": "human", "value": "<image> <image>\nWhat is it?"}, answer]),
        row("broken-no-tag", good_image, [{"from": "human", "value": "What is this?"}, answer]),
        row("broken-missing-file", "noto/no_such_drawing.png", [question, answer]),
        row("broken-outside", "../../outside.png", [question, answer]),
        row("broken-absolute", "/etc/hostname", [question, answer]),
        row("broken-not-an-image", NOT_AN_IMAGE, [question, answer]),
        row("broken-too-large", TOO_LARGE, [question, answer]),
        row(["broken", "id"], good_image, [question, answer]),
    ]


def write_broken_files(folder: Path) -> None:
    """Write the two files that broken rows name: text under an image's name, and a picture of 64 megapixels."""
    (folder / NOT_AN_IMAGE).parent.mkdir(parents=True, exist_ok=True)
    (folder / NOT_AN_IMAGE).write_bytes(b"This is text, whatever its name says.\n")
    (folder / TOO_LARGE).write_bytes(_empty_png(_CLAIMED_EDGE_PX))


def _empty_png(edge: int) -> bytes:
    """A valid one-bit PNG of `edge` x `edge` pixels; it is small because it is empty."""
    line = b"\0" * (1 + (edge + 7) // 8)
    header = struct.pack(">IIBBBBB", edge, edge, 1, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(line * edge, 9)), (b"IEND", b""))
    data = b"\x89PNG\r\n\x1a\n"
    for kind, body in chunks:
        data += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return data
