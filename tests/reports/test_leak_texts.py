from report_store import contents

from vsel_platform.evaluation.benchmark import Question
from vsel_platform.evaluation.leakage import Finding, Leakage
from vsel_platform.pipeline.training_rows import training_rows
from vsel_platform.reports.leak_texts import Row, Texts, by_question, texts_of


def found(*findings: Finding) -> Leakage:
    return Leakage(9, 9, len({f.question_id for f in findings}), 0, (), findings)


def test_the_turn_that_is_asked_about_is_shown():
    turns = (
        ("system", "s"),
        ("user", "<image>\nWhere is\nthe dog?"),
        ("assistant", "Left."),
        ("user", "Which colour has the car?"),
        ("assistant", "Red."),
    )
    row = Row(turns, 0, "")
    assert row.text("which colour has the car") == "Which colour has the car? → Red."
    assert row.text("dog") == row.text("") == "Where is the dog? → Left."
    assert Row((), 0, "").text("dog") == ""
    assert len(Row((("user", "a " * 500), ("assistant", "b " * 500)), 0, "").text("")) < 190


def test_the_most_telling_rows_come_first():
    findings = [
        Finding("q", "image", "shown", "i", 3),
        Finding("q", "near_image", None, "near", 0.99),
        Finding("q", "near_image", None, "unknown", 0.98),
        Finding("q", "ngram", "text", None, 2),
        Finding("q", "question", "asked", None, 4),
        Finding("q", "question", "text", None, 4),
    ]
    assert Texts(showing={"near": "alike"}).places(findings) == ["asked", "text", "shown", "alike"]


def test_questions_are_grouped_up_to_a_limit():
    leaks = found(*(Finding(f"q{i // 2}", "image", "s", "i", 1) for i in range(6)))
    assert {name: len(group) for name, group in by_question(leaks, 2).items()} == {"q0": 2, "q1": 2}


def test_texts_come_from_the_store_with_their_place_in_the_source(ctx):
    rows = contents()
    alike = next(row for row in rows if row["image_ids"])
    same = [row["sample_id"] for row in rows if alike["image_ids"][0] in row["image_ids"]]
    other = next(row for row in rows if row["sample_id"] not in same)
    leaks = found(
        Finding("q0", "ngram", other["sample_id"], None, 1),
        Finding("q1", "near_image", None, alike["image_ids"][0], 0.99),
    )
    questions = [Question(f"q{i}", (("user", f"asked {i}"),), (), (), "") for i in range(3)]
    searched = training_rows(ctx, "shapes", [row["sample_id"] for row in rows])
    texts = texts_of(ctx, "shapes", questions, searched, leaks)
    assert texts.questions == {"q0": "asked 0", "q1": "asked 1"}
    assert texts.showing == {alike["image_ids"][0]: min(same)}
    assert set(texts.rows) == {other["sample_id"], min(same)}
    row = texts.rows[other["sample_id"]]
    assert (row.position, row.source_id) == (other["position"], "")
    assert row.text("").startswith(" ".join(row.turns[0][1].replace("<image>", " ").split())[:20])
