import pytest

from vsel_platform.demo.artwork import Drawing, load_concepts
from vsel_platform.demo.chance import Chance
from vsel_platform.demo.pictures import single
from vsel_platform.demo.rows import Row, Source, choose_letter, list_options


@pytest.fixture
def source(drawings: list[Drawing]) -> Source:
    return Source(tuple(drawings), (), tuple(load_concepts()))


def test_a_row_becomes_llava_json_with_the_tag_in_the_first_question(drawing_of: dict[str, Drawing]) -> None:
    row = Row("name", single(drawing_of["noto/1f355"]), (("What is it?", "pizza"), ("And the colour?", "yellow")))
    assert row.to_json("demo-1") == {
        "id": "demo-1",
        "image": "noto/1f355.png",
        "task": "name",
        "conversations": [
            {"from": "human", "value": "<image>\nWhat is it?"},
            {"from": "gpt", "value": "pizza"},
            {"from": "human", "value": "And the colour?"},
            {"from": "gpt", "value": "yellow"},
        ],
    }


def test_a_text_only_row_has_neither_image_nor_tag() -> None:
    value = Row("text", None, (("How many letters has pizza?", "5"),)).to_json("demo-2")
    assert "image" not in value
    assert "<image>" not in str(value)


def test_wrong_names_are_wrong_and_half_of_them_related(source: Source) -> None:
    pizza = next(concept for concept in source.concepts if concept.key == "1f355")
    chance = Chance(0, "x")
    names = [source.other_name(pizza, chance) for _ in range(400)]
    subgroup = {concept.name: concept.subgroup for concept in source.concepts}
    assert pizza.name not in names
    related = sum(subgroup[name] == pizza.subgroup for name in names) / len(names)
    assert 0.4 < related < 0.62


def test_several_wrong_names_differ(source: Source) -> None:
    pizza = next(concept for concept in source.concepts if concept.key == "1f355")
    for seed in range(50):
        assert len(set(source.other_names(pizza, 5, Chance(seed, "x")))) == 5


def test_other_groups_are_all_but_the_right_one(source: Source) -> None:
    pizza = next(concept for concept in source.concepts if concept.key == "1f355")
    assert len(source.other_groups(pizza)) == 8
    assert "food & drink" not in source.other_groups(pizza)


def test_clocks_and_keys_are_told_apart(source: Source) -> None:
    assert {drawing.concept.reads for drawing in source.keys} == set("0123456789")
    assert len({drawing.concept.reads for drawing in source.clocks}) == 24


def test_only_drawings_that_can_be_named_are_named(source: Source) -> None:
    assert all(drawing.concept.nameable for drawing in source.nameable)
    assert {drawing.concept.subgroup for drawing in source.drawings} >= {"keycap", "alphanum"}
    assert not {drawing.concept.subgroup for drawing in source.nameable} & {"keycap", "alphanum"}
    assert all(drawing.vendor == vendor for vendor, group in source.by_vendor.items() for drawing in group)


def test_options_are_lettered_in_order() -> None:
    options = ["pizza", "taco", "sushi"]
    assert list_options(options) == "a) pizza b) taco c) sushi"
    assert [choose_letter(options, option) for option in options] == ["a", "b", "c"]
