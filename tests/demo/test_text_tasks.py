import re

from vsel_platform.demo.artwork import load_concepts
from vsel_platform.demo.chance import Chance
from vsel_platform.demo.dataset import PlannedRows
from vsel_platform.demo.rows import Source
from vsel_platform.demo.splits import is_held_out
from vsel_platform.demo.text_tasks import text_row

GROUPS = {concept.name: concept.group.lower() for concept in load_concepts()}
LETTERS = re.compile(r"How many letters has (.+)\?$")
GROUP = re.compile(r"Which group does (.+) belong to\?$")
ODD = re.compile(r"Which is not from (.+)\? a\) (.+) b\) (.+) c\) (.+)$")


def test_every_answer_about_words_is_right(plan: PlannedRows) -> None:
    turns = [turn for row in [*plan.pool, *plan.evaluation] if row.task == "text" for turn in row.turns]
    for question, answer in turns:
        if match := LETTERS.match(question):
            assert answer == str(len(re.sub(r"[\W\d_]", "", match[1])))
        elif match := GROUP.match(question):
            assert answer == GROUPS[match[1]]
        else:
            found = ODD.match(question)
            assert found
            outside = [
                letter for letter, name in zip("abc", found.groups()[1:], strict=True) if GROUPS[name] != found[1]
            ]
            assert outside == [answer]
    assert len(turns) > 800


def test_the_evaluation_asks_about_words_that_the_pool_does_not(plan: PlannedRows) -> None:
    def asked(rows: list) -> set[str]:
        questions = [question for row in rows if row.task == "text" for question, _ in row.turns]
        return {match[1] for question in questions if (match := LETTERS.match(question) or GROUP.match(question))}

    held_out = {concept.name for concept in load_concepts() if is_held_out(concept)}
    assert asked(plan.evaluation) <= held_out
    assert not asked(plan.pool) & held_out


def test_text_rows_have_two_different_questions_and_no_picture(plan: PlannedRows) -> None:
    for row in plan.pool:
        if row.task == "text":
            assert row.picture is None
            assert len({question.split()[1] + question.split()[2] for question, _ in row.turns}) == 2


def test_without_words_there_is_no_row() -> None:
    assert text_row(Source((), (), tuple(load_concepts())), Chance(0, "x")) is None
