"""Tasks about a picture of one drawing. Answers come from metadata and pixels, so they are exact."""

from vsel_platform.demo.artwork import VENDORS, Drawing
from vsel_platform.demo.chance import Chance
from vsel_platform.demo.colours import absent_colours, main_colour, visible_colours
from vsel_platform.demo.pictures import Variant
from vsel_platform.demo.rows import PictureTask, Source, Turns, choose_letter, list_options

NAME_QUESTIONS = ("What is this?", "What does the picture show?", "Name it.")
CAPTION_QUESTIONS = ("Describe the picture.", "Write a caption.", "What can be seen?")
_VARIANT_WORDS = {"plain": "", "inset": "small ", "turned": "tilted "}


def ask_name(drawing: Drawing, variant: Variant, source: Source, chance: Chance) -> Turns | None:
    """What it is, and every second time which emoji set drew it."""
    if not drawing.concept.nameable:
        return None
    name = (chance.pick(NAME_QUESTIONS), drawing.concept.name)
    return (name, ("Which emoji set drew it?", drawing.vendor)) if chance.happens(0.5) else (name,)


def ask_group(drawing: Drawing, variant: Variant, source: Source, chance: Chance) -> Turns | None:
    """Its group (nine of them), and every second time its subgroup."""
    question = chance.pick(("Which group does it belong to?", "Sort it into a group.", "What kind is it?"))
    group = (question, drawing.concept.group.lower())
    if chance.happens(0.5):
        return group, ("And the subgroup?", drawing.concept.subgroup.replace("-", " "))
    return (group,)


def ask_colour(drawing: Drawing, variant: Variant, source: Source, chance: Chance) -> Turns | None:
    """Its main colour, then whether a colour is in it that clearly is or is not."""
    main = main_colour(drawing)
    absent, others = absent_colours(drawing), visible_colours(drawing)[1:]
    if main is None or not absent:
        return None
    question = chance.pick(("What is the main colour?", "Which colour is it mostly?", "Name its colour."))
    present = bool(others) and chance.happens(0.5)
    asked = chance.pick(others if present else absent)
    return (question, main), (f"Is there any {asked} in it?", "yes" if present else "no")


def ask_yes_or_no(drawing: Drawing, variant: Variant, source: Source, chance: Chance) -> Turns | None:
    """Two or three of: is it this thing, this group, this emoji set; each is right every second time."""
    if not drawing.concept.nameable:
        return None
    group = drawing.concept.group.lower()
    asked = (
        ("Is this: {}?", drawing.concept.name, source.other_name(drawing.concept, chance)),
        ("Does it belong to {}?", group, chance.pick(source.other_groups(drawing.concept))),
        ("Did {} draw it?", drawing.vendor, chance.pick([v for v in VENDORS if v != drawing.vendor])),
    )
    turns = []
    for question, right, wrong in chance.sample(asked, 2 + chance.below(2)):
        is_right = chance.happens(0.5)
        turns.append((question.format(right if is_right else wrong), "yes" if is_right else "no"))
    return tuple(turns)


def ask_choice(drawing: Drawing, variant: Variant, source: Source, chance: Chance) -> Turns | None:
    """Which of four names, then which of four emoji groups; the answer is a letter."""
    if not drawing.concept.nameable:
        return None
    turns = []
    for question, right, wrong in (
        ("What is it?", drawing.concept.name, source.other_names(drawing.concept, 3, chance)),
        ("Which group?", drawing.concept.group.lower(), chance.sample(source.other_groups(drawing.concept), 3)),
    ):
        options = chance.sample([right, *wrong], 4)
        turns.append((f"{question} {list_options(options)}", choose_letter(options, right)))
    return tuple(turns)


def ask_caption(drawing: Drawing, variant: Variant, source: Source, chance: Chance) -> Turns | None:
    """A caption that names the emoji set, the thing and its visible colours."""
    if not drawing.concept.nameable:
        return None
    return ((chance.pick(CAPTION_QUESTIONS), caption(drawing, variant)),)


def caption(drawing: Drawing, variant: Variant) -> str:
    """Such as `a small noto drawing of pizza in yellow and red`."""
    colours = " and ".join(visible_colours(drawing)[:2])
    end = f" in {colours}" if colours else ""
    return f"a {_VARIANT_WORDS[variant]}{drawing.vendor} drawing of {drawing.concept.name}{end}"


PICTURE_TASKS: dict[str, PictureTask] = {
    "name": ask_name,
    "group": ask_group,
    "colour": ask_colour,
    "yes_no": ask_yes_or_no,
    "choice": ask_choice,
    "caption": ask_caption,
}
