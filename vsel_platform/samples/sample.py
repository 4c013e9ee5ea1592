"""What ingest works on: source rows, accepted samples, refused rows, images.

Records that exist once per row are named tuples: immutable, and a third of the cost of a frozen dataclass.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

import orjson

from vsel_platform.errors import DataError

QUOTED_CHARACTERS = 2_000
DETAIL_CHARACTERS = 500


class Reason(StrEnum):
    """Why a row was refused; the values are the reason codes of the `quarantine` table."""

    INVALID_JSON = "invalid_json"
    INVALID_UTF8 = "invalid_utf8"
    LONE_SURROGATE = "lone_surrogate"
    NAN_LITERAL = "nan_literal"
    NESTING_TOO_DEEP = "nesting_too_deep"
    ROW_TOO_LONG = "row_too_long"
    NOT_AN_OBJECT = "not_an_object"
    ID_OF_WRONG_TYPE = "id_of_wrong_type"
    CONVERSATION_MISSING = "conversation_missing"
    CONVERSATION_EMPTY = "conversation_empty"
    TURN_NOT_AN_OBJECT = "turn_not_an_object"
    ROLE_UNKNOWN = "role_unknown"
    ROLES_NOT_ALTERNATING = "roles_not_alternating"
    TEXT_NOT_A_STRING = "text_not_a_string"
    IMAGE_REFERENCE_INVALID = "image_reference_invalid"
    IMAGE_COUNT_MISMATCH = "image_count_mismatch"
    IMAGE_OUTSIDE_ROOT = "image_outside_root"
    IMAGE_MISSING = "image_missing"
    IMAGE_UNREADABLE = "image_unreadable"
    IMAGE_TOO_MANY_BYTES = "image_too_many_bytes"
    IMAGE_TOO_MANY_PIXELS = "image_too_many_pixels"
    IMAGE_FORMAT_NOT_ALLOWED = "image_format_not_allowed"
    DUPLICATE_ROW = "duplicate_row"


REASONS: dict[Reason, str] = {
    Reason.INVALID_JSON: "The text is not valid JSON, or the file ends inside the row.",
    Reason.INVALID_UTF8: "The bytes are not valid UTF-8.",
    Reason.LONE_SURROGATE: "A text holds half of a surrogate pair, which no UTF-8 file can hold.",
    Reason.NAN_LITERAL: "A number is NaN, infinite, or too large for a double; JSON has no such numbers.",
    Reason.NESTING_TOO_DEEP: "Objects and lists are nested deeper than 64 levels.",
    Reason.ROW_TOO_LONG: "The row is longer than 16 MiB.",
    Reason.NOT_AN_OBJECT: "The row is not a JSON object.",
    Reason.ID_OF_WRONG_TYPE: "`id` is neither a string nor an integer.",
    Reason.CONVERSATION_MISSING: "The row has no list of turns under the key of its format.",
    Reason.CONVERSATION_EMPTY: "The list of turns is empty, or holds a system turn only.",
    Reason.TURN_NOT_AN_OBJECT: "A turn is not a JSON object.",
    Reason.ROLE_UNKNOWN: "A turn has no role, or one that the format does not know.",
    Reason.ROLES_NOT_ALTERNATING: "User and assistant do not take turns, starting with the user and ending "
    "with the assistant (one system turn may come first).",
    Reason.TEXT_NOT_A_STRING: "The text of a turn is missing or not a string.",
    Reason.IMAGE_REFERENCE_INVALID: "An image reference is neither a path nor embedded bytes.",
    Reason.IMAGE_COUNT_MISMATCH: "The texts hold more or fewer `<image>` tags than the row has images.",
    Reason.IMAGE_OUTSIDE_ROOT: "The image path leaves the declared root (.., absolute, link, NUL, other URL).",
    Reason.IMAGE_MISSING: "There is no file at the image path.",
    Reason.IMAGE_UNREADABLE: "The image file cannot be read or decoded.",
    Reason.IMAGE_TOO_MANY_BYTES: "The image file is larger than `images.max_bytes`.",
    Reason.IMAGE_TOO_MANY_PIXELS: "The image has more pixels than `images.max_pixels`.",
    Reason.IMAGE_FORMAT_NOT_ALLOWED: "The image is of a format that `images.formats` does not name.",
    Reason.DUPLICATE_ROW: "The complete row, id included, stands at an earlier position already; "
    "the same content under another id is accepted, as a repeated row.",
}


class RefusedRow(DataError):  # noqa: N818 (named after what it says)
    """Raised while one row is read; the ingest turns it into a `Rejected`."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class Turn(NamedTuple):
    """One turn; the role is system, user or assistant."""

    role: str
    text: str


class SourceRow(NamedTuple):
    """One row as the source has it: 0-based position over all files, parsed value.

    `json` is the compact JSON text where `value` alone does not say it (long integers, embedded images), else None.
    """

    position: int
    value: Any
    json: bytes | None = None

    @property
    def compact(self) -> bytes:
        """Compact JSON text of the row."""
        return orjson.dumps(self.value) if self.json is None else self.json


@dataclass(frozen=True, slots=True)
class EmbeddedImage:
    """An image whose bytes stand in the row itself (Parquet); `path` is the name given with them."""

    image_id: str
    path: str | None
    data: bytes = field(repr=False)


ImageReference = str | EmbeddedImage


class Conversation(NamedTuple):
    """What a format's reader gives back: `(role, text)` turns and image references, in order.

    `turns_key` is the row's key of the turns if they say all that stands there (see `rows`), else None.
    """

    turns: list[tuple[str, str]]
    images: list[ImageReference]
    turns_key: str | None = None


class ImageRecord(NamedTuple):
    """One distinct image; sizes in bytes and pixels, None where the file was not opened."""

    image_id: str
    path: str
    source_path: str
    n_bytes: int | None = None
    width: int | None = None
    height: int | None = None
    format: str | None = None


class Sample(NamedTuple):
    """An accepted row: identity, canonical conversation (JSON, NFC), images, and the row itself.

    `row_json` is the row's compact text, with null for its turns if `turns_key` names their key (see `rows`).
    """

    position: int
    sample_id: str
    conversation: bytes
    n_turns: int
    n_characters: int
    images: tuple[ImageRecord, ...]
    source_id: bytes | None
    row_json: bytes
    turns_key: str | None = None

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The turns, texts in NFC."""
        return tuple(Turn(role, text) for role, text in orjson.loads(self.conversation))

    @property
    def image_ids(self) -> tuple[str, ...]:
        """Identities of the images, in order."""
        return tuple(image.image_id for image in self.images)

    @property
    def image_paths(self) -> tuple[str, ...]:
        """Image paths as the source row gives them, in order."""
        return tuple(image.source_path for image in self.images)


class Rejected(NamedTuple):
    """A refused row: where, why, and the first 2,000 characters of it."""

    position: int
    reason: Reason
    detail: str
    row_json: str | None


def reject(position: int, reason: Reason, detail: str, raw: bytes | None) -> Rejected:
    """Make a `Rejected` whose texts any UTF-8 table can hold.

    `raw` is the row's text; what is not valid UTF-8 in it is replaced, only its beginning is kept.
    """
    text = None
    if raw is not None:
        text = raw[: 4 * QUOTED_CHARACTERS].decode("utf-8", "replace")[:QUOTED_CHARACTERS]
    short = detail[:DETAIL_CHARACTERS].encode("utf-8", "replace").decode("utf-8")
    return Rejected(position, reason, short, text)
