"""What the base is trained on: names and captions of drawings that no other split has."""

from collections.abc import Sequence

from vsel_platform.demo.artwork import Drawing
from vsel_platform.demo.chance import Chance
from vsel_platform.demo.picture_tasks import CAPTION_QUESTIONS, NAME_QUESTIONS, caption
from vsel_platform.demo.pictures import Variant, single
from vsel_platform.demo.rows import Row

VARIANTS: tuple[Variant, ...] = ("plain", "inset", "turned")


def alignment_rows(drawings: Sequence[Drawing], seed: int) -> list[Row]:
    """Per drawing and variant: a name and a caption in one conversation, and a caption without any question.

    The bare caption is LLaVA's own alignment task. Only names and captions occur: no groups, yes or no, counts ...
    """
    chance = Chance(seed, "alignment")
    rows = []
    for drawing in drawings:
        if not drawing.concept.nameable:
            continue
        for variant in VARIANTS:
            picture, words = single(drawing, variant), caption(drawing, variant)
            turns = [
                (chance.pick(NAME_QUESTIONS), drawing.concept.name),
                (chance.pick(CAPTION_QUESTIONS), words),
            ]
            rows.append(Row("alignment", picture, tuple(chance.sample(turns, 2))))
            rows.append(Row("alignment", picture, (("", words),)))
    return rows
