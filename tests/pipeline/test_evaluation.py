"""Evaluations of the base model need no data set: a project with an empty store is enough."""

import base64
import json
import os
import shutil

import pytest
from small_project import draw, row

from vsel_platform.errors import ConfigError, NotMaterializedError
from vsel_platform.evaluation.answering import Answer
from vsel_platform.pipeline import evaluation, leakage
from vsel_platform.pipeline.asked import ASKED, asked_under
from vsel_platform.pipeline.context import Context
from vsel_platform.pipeline.evaluation import CODE, base_is_current, is_answered, is_current, run, run_base

BASE = {"recipe": "base", "benchmark": "held_out"}


class KilledError(BaseException):
    """Ends a process in the middle of its work."""


@pytest.fixture
def asked(monkeypatch):
    """Questions that models were asked, in order; after `limit` windows of two the process is killed."""
    real = evaluation.answer_questions

    class Asked(list):
        limit: int | None = None

    found = Asked()

    def answers(*arguments, **options):
        for number, window in enumerate(real(*arguments, **options)):
            if number == found.limit:
                raise KilledError
            found.extend(answer.question_id for answer in window)
            yield window

    monkeypatch.setattr(evaluation, "WINDOW_ROWS", 2)
    monkeypatch.setattr(evaluation, "answer_questions", answers)
    return found


@pytest.fixture
def place(finished, tmp_path):
    """Benchmark files that may be changed: six questions about pictures."""
    place = tmp_path / "benchmark"
    shutil.copytree(finished.pictures / "images", place / "images")
    shutil.copy(finished.directory / "held_out.json", place)
    return place


def own(project, place, **settings) -> Context:
    """The project with its benchmark's files in `place`."""
    values = {"format": "rows", "questions": str(place / "held_out.json"), "image_root": str(place / "images")}
    return project.context({"benchmarks.held_out": values | {"max_new_tokens": 4} | settings})


def answers(ctx):
    return ctx.store.read_partition("answers", BASE).to_pylist()


def metrics(ctx):
    rows = ctx.store.read_partition("evaluation", BASE).to_pylist()
    return {row["measure"]: row for row in rows if not row["category"]}


def same_answer(monkeypatch, text):
    """Every question is answered by `text`, without the model."""
    monkeypatch.setattr(
        evaluation,
        "answer_questions",
        lambda model, rows, *_, **__: iter([[Answer(row.sample_id, text, 3) for row in rows]]),
    )


def test_a_killed_evaluation_goes_on_after_its_finished_windows(fresh, place, asked, tmp_path):
    ctx = own(fresh, place)
    asked.limit = 2
    with pytest.raises(KilledError):
        run_base(ctx, "held_out")
    assert len(asked) == 4
    assert list(ctx.store.pointers("answers")) == list(ctx.store.pointers("evaluation")) == []
    asked.limit = None
    result = run_base(ctx, "held_out")
    assert (result.computed, result.reused, result.failed) == (2, 4, 0)
    assert len(asked) == len({*asked}) == 6, "nothing is asked twice"
    assert list(ctx.store.files.list("work")) == []
    undisturbed = own(fresh, place)
    shutil.move(tmp_path / "store", tmp_path / "first")
    assert run_base(undisturbed, "held_out").data_version == result.data_version
    first = Context(ctx.project.model_copy(update={"store": str(tmp_path / "first")}))
    assert answers(first) == answers(undisturbed)


def test_answers_stand_in_the_order_of_the_questions_and_images_are_shared(fresh, place, asked):
    rows = [row(200), row(201) | {"image": row(200)["image"]}, row(202)]
    (place / "held_out.json").write_text(json.dumps(rows[::-1]))
    ctx = own(fresh, place)
    run_base(ctx, "held_out")
    assert [answer["question_id"] for answer in answers(ctx)] == ["row-202#1", "row-201#1", "row-200#1"]
    assert [answer["cluster"] for answer in answers(ctx)][1:] == [row(200)["image"]] * 2
    together = [asked.index(name) for name in ("row-200#1", "row-201#1")]
    assert abs(together[0] - together[1]) == 1


def test_another_reading_of_answers_asks_no_model(fresh, place, monkeypatch):
    same_answer(monkeypatch, "it is NAME 4")
    (place / "held_out.json").write_text(json.dumps([row(200 + i, task="name") for i in range(7)]))
    strict, robust = own(fresh, place), own(fresh, place, compat="robust")
    run_base(strict, "held_out")
    assert metrics(strict)["exact_match"]["value"] == 0
    assert not base_is_current(robust, "held_out")
    assert is_answered(robust, None, "held_out")

    def nobody(*_, **__):
        raise AssertionError("a model was asked")

    monkeypatch.setattr(evaluation, "answer_questions", nobody)
    result = run_base(robust, "held_out")
    assert (result.computed, result.reused) == (0, 7)
    assert metrics(robust)["exact_match"]["value"] == pytest.approx(100 / 7)
    assert base_is_current(robust, "held_out")


def test_other_files_are_another_benchmark_and_touched_ones_are_not(fresh, place, asked):
    ctx = own(fresh, place)
    file = place / "held_out.json"
    before = file.read_bytes()
    run_base(ctx, "held_out")
    os.utime(file, (1, 1))
    assert base_is_current(ctx, "held_out")
    rows = json.loads(before)
    file.write_text(json.dumps([*rows, row(207)]))
    assert not base_is_current(ctx, "held_out")
    assert not is_answered(ctx, None, "held_out")
    draw(place / "images" / row(207)["image"], 207)
    assert run_base(ctx, "held_out").computed == 7
    assert base_is_current(ctx, "held_out")


def test_other_intervals_are_drawn_from_the_answers_that_there_are(fresh, place, asked):
    run_base(own(fresh, place), "held_out")
    other = fresh.context({"evaluation.seed": 5}).project.evaluation
    ctx = Context(own(fresh, place).project.model_copy(update={"evaluation": other}))
    assert not base_is_current(ctx, "held_out")
    assert run_base(ctx, "held_out").computed == 0


def test_questions_about_broken_images_are_counted_as_wrong_and_say_why(fresh, place):
    rows = [row(200 + i) for i in range(6)]
    (place / "images" / rows[0]["image"]).unlink()
    (place / "images" / rows[1]["image"]).write_text("no picture")
    rows[2]["image"] = "../held_out.json"
    (place / "held_out.json").write_text(json.dumps(rows))
    ctx = own(fresh, place)
    result = run_base(ctx, "held_out")
    assert (result.computed, result.failed, result.metadata["n_not_answered"]) == (6, 3, 3)
    found = answers(ctx)
    assert [answer["answer"] is None for answer in found] == [True] * 3 + [False] * 3
    for answer, why in zip(found, ("No such file", "cannot be decoded", "outside of"), strict=False):
        assert why in answer["failure"]
        assert (answer["parsed"], answer["score"], answer["n_tokens"], answer["loss_sum"]) == (None, 0, 0, None)
    assert metrics(ctx)["exact_match"]["n_questions"] == 6
    assert metrics(ctx)["exact_match"]["n_unparsed"] >= 3
    assert metrics(ctx)["loss"]["n_questions"] == 3


def test_a_question_is_asked_again_when_its_image_is_there_or_is_another_one(fresh, place, asked):
    rows = [row(200 + i) for i in range(6)]
    late, other = (place / "images" / rows[i]["image"] for i in range(2))
    picture = late.read_bytes()
    late.unlink()
    ctx = own(fresh, place)
    assert run_base(ctx, "held_out").failed == 1
    assert base_is_current(ctx, "held_out")
    assert is_answered(ctx, None, "held_out")
    late.write_bytes(picture)
    draw(other, 999)
    assert other.stat().st_size != draw_size(place, 201), "sizes tell pictures apart"
    assert not base_is_current(ctx, "held_out")
    assert not is_answered(ctx, None, "held_out")
    asked.clear()
    result = run_base(ctx, "held_out")
    assert (result.computed, result.reused, result.failed) == (2, 4, 0)
    assert sorted(asked) == ["row-200#1", "row-201#1"]
    assert base_is_current(ctx, "held_out")
    assert [answer["failure"] for answer in answers(ctx)] == [None] * 6


def draw_size(place, seed):
    draw(place / "first.png", seed)
    return (place / "first.png").stat().st_size


def test_a_failure_in_the_log_of_a_killed_run_is_no_answer(fresh, place, asked):
    image = place / "images" / row(200)["image"]
    picture = image.read_bytes()
    image.unlink()
    ctx = own(fresh, place)
    asked.limit = 2
    with pytest.raises(KilledError):
        run_base(ctx, "held_out")
    image.write_bytes(picture)
    asked.limit = None
    asked.clear()
    assert run_base(ctx, "held_out").failed == 0
    assert "row-200#1" in asked


def test_a_wrong_image_root_is_mended_by_the_right_one(fresh, place, asked):
    wrong = own(fresh, place, image_root=str(place / "typo"))
    assert run_base(wrong, "held_out").failed == 6
    ctx = own(fresh, place)
    assert not base_is_current(ctx, "held_out")
    assert (run_base(ctx, "held_out").failed, base_is_current(ctx, "held_out")) == (0, True)
    shutil.copytree(place / "images", place / "moved")
    moved = own(fresh, place, image_root=str(place / "moved"))
    assert base_is_current(moved, "held_out")
    assert is_answered(moved, None, "held_out")


def test_another_reading_asks_no_model_though_an_image_is_broken(fresh, place, monkeypatch):
    (place / "images" / row(200)["image"]).unlink()
    run_base(own(fresh, place), "held_out")
    monkeypatch.setattr(evaluation, "_given", lambda *_: pytest.fail("a model was asked"))
    result = run_base(own(fresh, place, compat="robust"), "held_out")
    assert (result.computed, result.reused, result.failed) == (0, 6, 1)


def test_embedded_images_are_answered_like_files_and_stay_out_of_the_table(fresh, place):
    data = base64.b64encode((place / "images" / row(200)["image"]).read_bytes()).decode()
    rows = [row(200), row(200) | {"id": "embedded", "image": f"data:image/png;base64,{data}"}]
    (place / "held_out.json").write_text(json.dumps(rows))
    ctx = own(fresh, place)
    run_base(ctx, "held_out")
    file, embedded = answers(ctx)
    assert embedded["answer"] == file["answer"]
    assert embedded["loss_sum"] == pytest.approx(file["loss_sum"])
    assert len(embedded["cluster"]) == 16, "a hash stands for the picture"


def test_losses_are_left_out_on_request(fresh, place):
    ctx = own(fresh, place, losses=False)
    run_base(ctx, "held_out")
    assert set(metrics(ctx)) == {"exact_match"}
    assert {answer["loss_sum"] for answer in answers(ctx)} == {None}


def test_a_checkpoint_is_evaluated_and_not_its_base(ctx):
    found = {
        recipe: ctx.store.read_partition("answers", {"recipe": recipe, "benchmark": "held_out"})["loss_sum"].to_pylist()
        for recipe in ("base", "presel", "random")
    }
    assert found["base"] != found["presel"] != found["random"]
    assert is_current(ctx, "presel:held_out")
    pointer = ctx.store.require("evaluation", {"recipe": "presel", "benchmark": "held_out"})
    assert pointer.inputs == [ctx.store.require("finetuned_checkpoint", {"recipe": "presel"}).reference]


def test_evaluations_of_all_models_name_what_was_asked_and_another_reading_is_another(ctx, finished):
    stored = [ctx.store.require("evaluation", {"recipe": n, "benchmark": "held_out"}) for n in ("base", "presel")]
    assert [pointer.metadata[ASKED] for pointer in stored] == [asked_under(ctx, "held_out", CODE)] * 2
    others = ({"benchmarks.held_out.compat": "robust"}, {"benchmarks.held_out.rows": 3}, {"vlm.max_tokens": 99})
    found = {asked_under(finished.context(own), "held_out", CODE) for own in others}
    assert len(found | {stored[0].metadata[ASKED]}) == 4


def test_an_evaluation_is_of_a_recipe_that_was_trained_on_a_benchmark_that_there_is(fresh):
    fresh.drive(["random"])
    ctx = fresh.context()
    with pytest.raises(NotMaterializedError, match="leakage of recipe random"):
        run(ctx, "random:held_out")
    leakage.run(ctx, "random")
    with pytest.raises(NotMaterializedError, match="finetuned_checkpoint of recipe random"):
        run(ctx, "random:held_out")
    for key in ("nobody:held_out", "presel:nothing"):
        with pytest.raises(ConfigError, match="unknown"):
            run(ctx, key)


def test_progress_counts_questions(fresh, place, asked):
    seen = []
    project = own(fresh, place).project
    run_base(Context(project, progress=lambda message, done, total: seen.append((message, done, total))), "held_out")
    assert [one for one in seen if one[0] == "questions"] == [("questions", n, 6) for n in (2, 4, 6)]
