"""Tasks about pictures that are composed for the question: counting, positions, reading."""

from collections.abc import Sequence

from vsel_platform.demo.artwork import Drawing
from vsel_platform.demo.chance import Chance
from vsel_platform.demo.colours import main_colour
from vsel_platform.demo.pictures import grid, line, pair, single
from vsel_platform.demo.rows import Row, SceneTask, Source

_MOST_COPIES = 6
_ROW_NAMES = ("top", "middle", "bottom")
_CENTRE_CELL = 4
_CLOCK_SHARE = 0.4


def count_row(source: Source, chance: Chance) -> Row | None:
    """One to six copies of a drawing on a 3 x 3 grid: how many, how many in one row, is the centre empty."""
    if not source.nameable:
        return None
    cells = sorted(chance.sample(range(9), 1 + chance.below(_MOST_COPIES)))
    row = chance.below(3)
    turns = [
        (chance.pick(("How many are there?", "Count them.", "How many copies?")), str(len(cells))),
        (f"How many are in the {_ROW_NAMES[row]} row?", str(sum(cell // 3 == row for cell in cells))),
        ("Is the centre empty?", "no" if _CENTRE_CELL in cells else "yes"),
    ]
    kept = 1 + chance.below(len(turns))
    return Row("count", grid(chance.pick(source.nameable), cells), tuple(turns[:kept]))


def position_row(source: Source, chance: Chance) -> Row | None:
    """Two drawings side by side or one above the other: where is which, what is where, which colour is where."""
    if not source.by_vendor:
        return None
    drawings = source.by_vendor[chance.pick(sorted(source.by_vendor))]
    first, second = chance.sample(drawings, 2)
    if chance.happens(0.5):
        picture, places = pair(first, second, "row"), ("left", "right")
    else:
        picture, places = pair(first, second, "column"), ("top", "bottom")
    parts = list(zip((first, second), places, strict=True))
    turns = [
        chance.pick([(f"Where is the {drawing.concept.name}?", place) for drawing, place in parts]),
        chance.pick([(f"What is on the {place}?", drawing.concept.name) for drawing, place in parts]),
        *_colour_turns(parts, chance),
    ]
    return Row("position", picture, tuple(chance.sample(turns, 2 + chance.below(2))))


def _colour_turns(parts: list[tuple[Drawing, str]], chance: Chance) -> list[tuple[str, str]]:
    coloured = [(main_colour(drawing), place) for drawing, place in parts]
    known = [(colour, place) for colour, place in coloured if colour is not None]
    turns = []
    if known:
        colour, place = chance.pick(known)
        turns.append((f"Which colour is on the {place}?", colour))
    if len(known) == len(parts) and known[0][0] != known[1][0]:
        colour, place = chance.pick(known)
        turns.append((f"Which side is {colour}?", place))
    return turns


def reading_row(source: Source, chance: Chance) -> Row | None:
    """A clock face: which time; or two to three number keys: which number."""
    if source.clocks and (chance.happens(_CLOCK_SHARE) or not source.keys):
        return _clock_row(chance.pick(source.clocks), chance)
    return _number_row(source.keys, chance) if source.keys else None


def _clock_row(clock: Drawing, chance: Chance) -> Row:
    time = clock.concept.reads or ""
    picture = single(clock, "inset" if chance.happens(0.5) else "plain")
    turns = [(chance.pick(("What time is it?", "Read the clock.", "Which time does it show?")), time)]
    if chance.happens(0.5):
        turns.append(("Is it a full hour?", "yes" if time.endswith(":00") else "no"))
    return Row("reading", picture, tuple(turns))


def _number_row(keys: Sequence[Drawing], chance: Chance) -> Row:
    shown = [chance.pick(keys) for _ in range(2 + chance.below(2))]
    number = "".join(key.concept.reads or "" for key in shown)
    turns = [(chance.pick(("Which number do the keys show?", "Read the keys.", "Which number is it?")), number)]
    if chance.happens(0.5):
        turns.append(("What is the last digit?", number[-1]))
    return Row("reading", line(shown), tuple(turns))


SCENE_TASKS: dict[str, SceneTask] = {"count": count_row, "position": position_row, "reading": reading_row}
