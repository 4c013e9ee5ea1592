import pytest
from report_store import NASTY, contents, publish, sha

from vsel_platform.reports.data import scores_pointer
from vsel_platform.reports.pictures import (
    Caption,
    Excerpt,
    distinct_pictures,
    excerpts,
    extremes,
    tiles,
    typicality_sheet,
)


def test_excerpts_are_the_first_question_and_answer(ctx):
    rows = contents()
    found = excerpts(ctx, "shapes", {rows[4]["sample_id"], rows[-1]["sample_id"], sha("unknown")})
    assert set(found) == {rows[4]["sample_id"], rows[-1]["sample_id"]}
    excerpt = found[rows[4]["sample_id"]]
    assert (excerpt.question, excerpt.answer) == (f"{NASTY} what is number 4?", "It is 4.")
    assert excerpt.image_ids == (sha("image 4"),)
    assert found[rows[-1]["sample_id"]].image_ids == ()


def test_no_ids_or_no_dataset_are_no_excerpts(ctx):
    assert excerpts(ctx, "shapes", []) == {}
    assert excerpts(ctx, "spare", [sha("row 1")]) == {}


@pytest.mark.parametrize(
    ("question", "answer", "text"),
    [
        ("What is it?", "red", "What is it? → red"),
        ("", "a long answer", "a long answ…"),
        ("ab " * 9, "", "ab ab ab ab…"),
    ],
)
def test_text_is_cut_on_each_side(question, answer, text):
    assert Excerpt(question, answer, ()).text(12, 12) == text


def test_a_picture_is_shown_once_and_text_rows_always():
    texts = {"a": Excerpt("", "", ("i",)), "b": Excerpt("", "", ("i",)), "c": Excerpt("", "", ("j",))}
    captions = [Caption(name, "t") for name in ("a", "text one", "b", "text two", "c")]
    kept = [caption.sample_id for caption in distinct_pictures(captions, texts)]
    assert kept == ["a", "text one", "text two", "c"]
    assert len(distinct_pictures(captions, texts, limit=2)) == 2


def test_tiles_say_why_there_is_no_picture(ctx):
    rows = contents()
    captions = [Caption(row["sample_id"], row["task"], "m") for row in (rows[0], rows[1], rows[-1])]
    texts = excerpts(ctx, "shapes", [caption.sample_id for caption in captions])
    broken, fine, text = tiles(ctx, captions, texts)
    assert broken.image is None
    assert broken.missing == "not readable"
    assert fine.image is not None
    assert text.image is None
    assert text.missing == "text only"
    assert fine.text.endswith("It is 1.")


@pytest.mark.parametrize("descending", [True, False])
def test_extremes_give_every_task_its_turn(ctx, descending):
    found = extremes(ctx, scores_pointer(ctx, "shapes", "default"), descending=descending)
    scored = [row for row in contents() if row["typicality"] is not None]
    best = {}
    for row in sorted(scored, key=lambda r: (r["typicality"], r["sample_id"]), reverse=descending):
        best.setdefault(row["task"], row["typicality"])
    assert [caption.task for caption in found[:3]] == sorted(best, key=best.__getitem__, reverse=descending)
    values = [float(caption.measure.split()[1]) for caption in found[:3]]
    assert values == pytest.approx(sorted(best.values(), reverse=descending))


def test_extremes_do_not_depend_on_how_rows_are_cut(ctx, empty, monkeypatch):
    monkeypatch.setattr("vsel_platform.storage.parquet.ROWS_PER_FILE", 7)
    scores = scores_pointer(ctx, "shapes", "default")
    rows = ctx.store.read(scores).to_pylist()
    publish(empty, "presel_scores", {"dataset": "shapes", "mode": "default"}, rows[::-1])
    cut = scores_pointer(empty, "shapes", "default")
    assert len(cut.files) > 5
    for descending in (True, False):
        assert extremes(empty, cut, descending=descending) == extremes(ctx, scores, descending=descending)


def test_rows_without_typicality_are_no_sheet(empty):
    row = {"sample_id": sha("row"), "task": "text", "is_reference": False}
    for rows in ([], [row]):
        publish(empty, "presel_scores", {"dataset": "shapes", "mode": "default"}, rows)
        assert typicality_sheet(empty, scores_pointer(empty, "shapes", "default")) is None


def test_sheet_of_typicality_is_drawn(ctx):
    png = typicality_sheet(ctx, scores_pointer(ctx, "shapes", "default"))
    assert png is not None
    assert png.startswith(b"\x89PNG")
