"""A task without a picture: questions about words alone."""

from vsel_platform.demo.artwork import Concept
from vsel_platform.demo.chance import Chance
from vsel_platform.demo.rows import Row, Source, choose_letter, list_options


def text_row(source: Source, chance: Chance) -> Row | None:
    """Two questions of three kinds: the group of a thing, the number of its letters, the odd one out."""
    nameable = [concept for concept in source.text_concepts if concept.nameable]
    if not nameable:
        return None
    concept = chance.pick(nameable)
    turns = [
        (f"Which group does {concept.name} belong to?", concept.group.lower()),
        (f"How many letters has {concept.name}?", str(sum(letter.isalpha() for letter in concept.name))),
        _odd_one_out(concept, source, chance),
    ]
    return Row("text", None, tuple(chance.sample(turns, 2)))


def _odd_one_out(concept: Concept, source: Source, chance: Chance) -> tuple[str, str]:
    group = [other for other in source.concepts if other.group != concept.group and other.nameable]
    odd = chance.pick(group)
    same = [other.name for other in source.concepts if other.group == concept.group and other.nameable]
    options = chance.sample([odd.name, *chance.sample(same, 2)], 3)
    return f"Which is not from {concept.group.lower()}? {list_options(options)}", choose_letter(options, odd.name)
