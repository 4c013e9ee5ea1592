"""Former answers that still hold; evaluations through them are in `test_evaluation.py`."""

import json

import pytest
from report_store import report_context
from small_project import draw

from vsel_platform.config import Project
from vsel_platform.pipeline import asked
from vsel_platform.pipeline.asked import image_state, usable_answers
from vsel_platform.pipeline.benchmarks import read_benchmark
from vsel_platform.pipeline.context import Context


@pytest.fixture
def ctx(tmp_path):
    """Three questions: about two pictures, and about none."""
    lines = [{"question_id": name, "text": "What?", "image": f"{name}.png", "answers": "x"} for name in "ab"]
    lines.append({"question_id": "c", "text": "What?", "answers": "x"})
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for seed, name in enumerate("ab"):
        draw(tmp_path / "images" / f"{name}.png", seed)
    values = report_context(tmp_path).project.model_dump()
    values["benchmarks"]["own"] = {"format": "jsonl", "questions": "own.jsonl", "image_root": "images"}
    return Context(Project.model_validate(values))


def rows(ctx, **failures):
    """An answer to every question about its present images, or a failure."""
    found = read_benchmark(ctx, "own")
    return [
        {
            "question_id": q.question_id,
            "failure": failures.get(q.question_id),
            "image_state": found.image_state(q.images),
        }
        for q in found.questions
    ]


def usable(ctx, stored):
    return sorted(usable_answers(read_benchmark(ctx, "own"), stored))


def test_answers_about_the_present_images_hold(ctx, tmp_path):
    stored = rows(ctx)
    assert usable(ctx, stored) == ["a", "b", "c"]
    (tmp_path / "images" / "a.png").write_bytes(b"other")
    (tmp_path / "images" / "b.png").unlink()
    assert usable(ctx, stored) == ["c"]
    assert usable(ctx, [row | {"question_id": "gone"} for row in stored]) == []
    assert usable(ctx, [row | {"image_state": None} for row in stored]) == []


def test_a_failure_holds_only_if_it_would_come_again(ctx, tmp_path):
    """A fault that passed leaves the same name and size; what no template can write stays so."""
    assert usable(ctx, rows(ctx, a="image_unreadable: was locked", c="unusable_question: two system turns")) == [
        "b",
        "c",
    ]
    (tmp_path / "images" / "a.png").write_bytes(b"no picture")
    assert usable(ctx, rows(ctx, a="image_unreadable: no picture")) == ["a", "b", "c"]


def test_an_answer_counts_and_not_the_failure_beside_it(ctx):
    answered, failed = rows(ctx), rows(ctx, a="unusable_question: x")
    for both in ([*answered, *failed], [*failed, *answered]):
        found = usable_answers(read_benchmark(ctx, "own"), both)
        assert found["a"]["failure"] is None


def test_the_state_of_the_images_reads_the_questions_once_and_no_image(ctx, tmp_path, monkeypatch):
    first = image_state(ctx, "own")
    monkeypatch.setattr(asked, "read_benchmark", lambda *_: pytest.fail("questions were read again"))
    assert image_state(ctx, "own") == first
    (tmp_path / "images" / "a.png").write_bytes(b"other")
    assert image_state(ctx, "own") != first


def test_the_state_of_the_images_is_the_same_wherever_they_lie(ctx, tmp_path):
    def state(**settings):
        values = ctx.project.model_dump()
        values["benchmarks"]["own"] |= settings
        return image_state(Context(Project.model_validate(values)), "own")

    first = state()
    (tmp_path / "images").rename(tmp_path / "moved")
    assert state() != first
    assert state(image_root="moved") == first
    (tmp_path / "own.jsonl").rename(tmp_path / "moved" / "own.jsonl")
    assert state(image_root="", questions="moved/own.jsonl") == first
