import json
import random

import pytest

from vsel_platform.errors import ConfigError
from vsel_platform.evaluation import leakage
from vsel_platform.evaluation.leakage import BenchmarkText, Finding, TrainingText, find_leaks
from vsel_platform.evaluation.near_images import NearImage

LONG = "which of the two animals that stand behind the wooden fence near the old barn is larger"
SUFFIX = "\nAnswer the question using a single word or phrase."


def question(name: str, text: str, *answers: str, images: tuple[str, ...] = ()) -> BenchmarkText:
    return BenchmarkText(name, images, text, answers)


def row(name: str, *turns: str, images: tuple[str, ...] = ()) -> TrainingText:
    roles = ("user", "assistant") * len(turns)
    return TrainingText(name, images, tuple(zip(roles, turns, strict=False)))


def found(leaks: leakage.Leakage) -> list[tuple[str, str, str | None]]:
    return [(one.question_id, one.kind, one.sample_id or one.image_id) for one in leaks.findings]


def test_a_long_question_leaks_by_its_words_whatever_their_form():
    rows = [row("r1", f"<image>\n{LONG.upper()}?", "The horse."), row("r2", "Something else?", "No.")]
    leaks = find_leaks([question("q1", LONG + "?", "horse")], rows)
    n = len(LONG.split())
    assert leaks.findings == (Finding("q1", "ngram", "r1", None, n - 12),)
    assert (leaks.n_affected, leaks.n_questions, leaks.n_rows) == (1, 1, 2)


def test_question_and_answer_together_make_the_words():
    """Eleven words of question and two of answer, which the row has one after the other."""
    text, answer = " ".join(LONG.split()[:11]), "brown cow"
    ask = f"{text}{SUFFIX}"
    assert found(find_leaks([question("q", ask, answer)], [row("r", ask, "Brown cow!")])) == [("q", "ngram", "r")]
    assert found(find_leaks([question("q", ask, answer)], [row("r", ask, "A horse.")])) == []


def test_a_short_question_leaks_only_with_its_image_and_its_answer():
    asked = question("q", "What colour is the car?" + SUFFIX, "red", images=("i1",))
    rows = {
        "other image": row("r", "What colour is the car?", "Red", images=("i2",)),
        "other answer": row("r", "What colour is the car?", "Blue", images=("i1",)),
        "other question": row("r", "What colour is the bus?", "Red", images=("i1",)),
        "answer elsewhere": row("r", "What colour is the car?", "Blue", "And the bus?", "Red", images=("i1",)),
        "all of it": row("r", "Hi", "Hello", "What colour is the car?" + SUFFIX, "Red.", images=("i1",)),
    }
    kinds = {name: [one.kind for one in find_leaks([asked], [one]).findings] for name, one in rows.items()}
    assert kinds == {
        "other image": [],
        "other answer": ["image"],
        "other question": ["image"],
        "answer elsewhere": ["image"],
        "all of it": ["image", "question"],
    }


def test_a_nearly_equal_image_counts_as_the_image_of_a_short_question():
    asked = question("q", "How many cats?", "2", images=("i1",))
    rows = [row("r", "How many cats?", "2", images=("i1-resized",))]
    leaks = find_leaks([asked], rows, [NearImage("i1-resized", "i1", 0.98)])
    assert found(leaks) == [("q", "near_image", "i1-resized"), ("q", "question", "r")]
    assert leaks.findings[0].value == 0.98


def test_an_equal_image_is_one_finding_that_counts_its_rows():
    asked = [question("q1", "a", "b", images=("i",)), question("q2", "c", "d", images=("i", "j"))]
    rows = [row("r2", "x", "y", images=("i", "i")), row("r1", "x", "y", images=("i",)), row("r0", "x", "y")]
    leaks = find_leaks(asked, rows)
    assert leaks.findings == (Finding("q1", "image", "r1", "i", 2), Finding("q2", "image", "r1", "i", 2))


def test_words_of_many_questions_are_an_instruction():
    asked = [question(f"q{i:02d}", f"{LONG} number {i}", str(i)) for i in range(11)]
    rows = [row("r", LONG, "yes")]
    assert found(find_leaks(asked, rows)) == []
    assert find_leaks(asked, rows).n_templates > 0
    assert len(find_leaks(asked[:10], rows).findings) == 10
    assert len(find_leaks(asked, rows, template_questions=11).findings) == 11


def test_sentences_about_the_form_are_no_content():
    asked = question("q", "Is it red?" + SUFFIX, "yes")
    assert found(find_leaks([asked], [row("r", "Is it red?" + SUFFIX, "no")], n_words=4)) == []


def test_a_question_keeps_its_strongest_findings_and_counts_all(monkeypatch):
    rows = [row(f"r{i:02d}", LONG, "no") for i in range(30)] + [row("best", f"{LONG} the horse", "no")]
    asked = [question("q", LONG, "the horse")]
    expected = find_leaks(asked, rows)
    assert [one.sample_id for one in expected.findings] == ["best", *(f"r{i:02d}" for i in range(9))]
    assert {one.kind: (one.n_questions, one.n_pairs) for one in expected.counts} == {
        "image": (0, 0), "near_image": (0, 0), "ngram": (1, 31), "question": (0, 0)
    }  # fmt: skip
    random.Random(0).shuffle(rows)
    monkeypatch.setattr(leakage, "_BLOCK_CHARACTERS", 200)
    assert find_leaks(asked, rows) == expected


def test_answers_that_only_a_server_knows_leave_the_question_to_be_found():
    assert found(find_leaks([question("q", LONG)], [row("r", LONG, "yes")])) == [("q", "ngram", "r")]
    assert found(find_leaks([question("q", "What?", images=("i",))], [row("r", "What?", "x", images=("i",))])) == [
        ("q", "image", "r")
    ]


def test_nothing_leaks_out_of_nothing():
    leaks = find_leaks([], [])
    assert (leaks.findings, leaks.n_affected, leaks.n_rows) == ((), 0, 0)
    assert json.loads(json.dumps(leaks.to_dict()))["findings"] == []
    with pytest.raises(ConfigError, match="n_words is 0"):
        find_leaks([], [], n_words=0)
