import base64
import errno
import json
import os
import shutil
from pathlib import Path

import pytest
from small_project import draw

from vsel_platform.config import parse_project
from vsel_platform.errors import ConfigError, DataError
from vsel_platform.models.images import attempt_image
from vsel_platform.pipeline import benchmarks
from vsel_platform.pipeline.benchmarks import benchmark_fingerprint, evaluation_key, read_benchmark, split_key
from vsel_platform.pipeline.context import Context

OWN = "own"


@pytest.fixture
def place(tmp_path):
    """A directory with a picture, and one outside of it."""
    draw(tmp_path / "benchmark" / "images" / "a.png", 1)
    draw(tmp_path / "secret.png", 2)
    return tmp_path / "benchmark"


def context(place, entries, **settings):
    """A project with the benchmark `own`, whose questions are `entries`."""
    file = place / "questions.jsonl"
    file.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    own = {"format": "jsonl", "questions": str(file), "image_root": str(place / "images")} | settings
    return bare(place, **own)


def bare(directory, **settings):
    """A project in `directory` that has the benchmark `own` and else only what a project has to have."""
    values = {"name": "bare", "datasets": {"d": {"source": "rows.json"}}, "benchmarks": {OWN: settings}}
    return Context(parse_project(json.dumps(values), base_dir=str(directory)))


def question(number, **values):
    return {"question_id": number, "text": "What?", "answers": "yes"} | values


def test_a_benchmark_knows_its_questions_clusters_and_longest_answer(place):
    entries = [question(1, image="a.png"), question(2, image="a.png"), question(3)]
    benchmark = read_benchmark(context(place, entries), OWN)
    assert [q.question_id for q in benchmark.questions] == ["1", "2", "3"]
    assert benchmark.clusters == ["a.png", "a.png", "3"]
    assert benchmark.max_new_tokens == benchmark.format.max_new_tokens
    assert read_benchmark(context(place, entries, max_new_tokens=3), OWN).max_new_tokens == 3


def test_a_question_id_that_stands_there_twice_is_named(place):
    with pytest.raises(DataError, match=r"questions\.jsonl, question 1: stands twice"):
        read_benchmark(context(place, [question(1), question(1)]), OWN)


def test_whatever_a_format_gives_its_ids_are_distinct(place, monkeypatch):
    ctx = context(place, [question(1), question(2)])
    found = benchmarks.benchmark_format("jsonl")
    twice = type("Twice", (type(found),), {"read": lambda self, files: [*found.read(files)] * 2})()
    monkeypatch.setattr(benchmarks, "benchmark_format", lambda name: twice)
    with pytest.raises(DataError, match="benchmark own: question_id '1' stands there twice"):
        read_benchmark(ctx, OWN)


def test_a_file_without_questions_or_a_way_of_reading_that_a_format_lacks_is_refused(place):
    with pytest.raises(DataError, match=r"questions\.jsonl"):
        read_benchmark(context(place, []), OWN)
    (place / "captions.json").write_text("{}")
    lacking = context(place, [question(1)], format="captioning", compat="robust")
    with pytest.raises(ConfigError, match=r"own\.compat: captioning has no robust; it has llava, official"):
        read_benchmark(lacking, OWN)


@pytest.mark.parametrize("image", ["../../secret.png", "/etc/hostname", "b.png"])
def test_images_outside_of_the_root_and_missing_ones_are_refused(place, image):
    benchmark = read_benchmark(context(place, [question(1, image=image)]), OWN)
    with pytest.raises(DataError, match=r"benchmark own: image .*(outside of|No such file)"):
        benchmark.image_bytes(image)


def test_images_may_be_links_to_wherever_they_are_kept(place):
    kept = place.parent / "kept"
    draw(kept / "blob.png", 2)
    (place / "images" / "link.png").symlink_to(kept / "blob.png")
    (place / "images" / "linked").symlink_to(kept)
    benchmark = read_benchmark(context(place, [question(1)]), OWN)
    data = (kept / "blob.png").read_bytes()
    assert benchmark.image_bytes("link.png") == benchmark.image_bytes("linked/blob.png") == data
    with pytest.raises(DataError, match="outside of"):
        benchmark.image_bytes("linked/../../secret.png")


def test_an_absolute_path_below_the_root_is_one_of_its_images(place):
    (place.parent / "elsewhere").symlink_to(place)
    linked = place.parent / "elsewhere" / "images"
    benchmark = read_benchmark(context(place, [question(1)], image_root=str(linked)), OWN)
    data = (place / "images" / "a.png").read_bytes()
    for path in (linked / "a.png", place / "images" / "a.png"):
        assert benchmark.image_bytes(str(path)) == data
        assert benchmark.image_state([str(path)]) == benchmark.image_state(["a.png"])


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ECONNRESET, errno.ENOENT])
def test_a_passing_fault_is_no_fault_of_the_image(place, monkeypatch, code):
    benchmark = read_benchmark(context(place, [question(1)]), OWN)

    def fail(path):
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(Path, "read_bytes", fail)
    if code == errno.ENOENT:
        assert attempt_image("a.png", lambda: benchmark.image("a.png")).reason == "image_missing"
        return
    with pytest.raises((ConnectionError, TimeoutError), match=os.strerror(code)):
        attempt_image("a.png", lambda: benchmark.image("a.png"))


def test_the_state_of_images_is_their_names_and_sizes_wherever_they_lie(place, tmp_path):
    uri = "data:image/png;base64,AAAA"

    def state(images, root):
        return read_benchmark(context(place, [question(1)], image_root=str(root)), OWN).image_state(images)

    first = state(["a.png"], place / "images")
    shutil.copytree(place / "images", tmp_path / "moved")
    assert state(["./a.png"], tmp_path / "moved") == first
    with (tmp_path / "moved" / "a.png").open("ab") as file:
        file.write(b" ")
    (tmp_path / "moved" / "b.png").write_bytes((place / "images" / "a.png").read_bytes())
    others = [["a.png"], ["b.png"], ["c.png"], ["../out.png"], ["\0"], [], [uri], [f"{uri}B"], ["a.png", uri]]
    found = {first} | {state(images, tmp_path / "moved") for images in others}
    assert len(found) == len(others) + 1
    assert state(["a.png", uri], tmp_path) != state([uri, "a.png"], tmp_path)
    assert state([uri], tmp_path) == state([uri], place)


def test_an_embedded_image_is_the_file_that_it_was_made_of(place):
    data = (place / "images" / "a.png").read_bytes()
    uri = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    benchmark = read_benchmark(context(place, [question(1, image=uri)]), OWN)
    assert benchmark.image_bytes(uri) == data
    assert benchmark.image(uri).tobytes() == benchmark.image("a.png").tobytes()
    with pytest.raises(DataError, match="benchmark own: an embedded image is no base64"):
        benchmark.image("data:image/png;base64,&&&")


def test_what_is_no_picture_or_too_large_is_refused(place, monkeypatch):
    (place / "images" / "text.png").write_text("no picture")
    benchmark = read_benchmark(context(place, [question(1)]), OWN)
    with pytest.raises(DataError, match=r"text\.png cannot be decoded"):
        benchmark.image("text.png")
    monkeypatch.setattr(benchmarks, "MAX_PIXELS", 32 * 32 - 1)
    with pytest.raises(DataError, match=r"a\.png: 32 x 32 pixels"):
        benchmark.image("a.png")


def test_a_limit_keeps_whole_images_and_does_not_depend_on_the_others(place):
    entries = [question(3 * image + k, image=f"{image}.png") for image in range(30) for k in range(3)]

    def kept(rows, own=entries):
        found = read_benchmark(context(place, own, rows=rows), OWN).questions
        return [q.question_id for q in found]

    assert len(kept(10)) == 12
    assert len(kept(0)) == len(kept(90)) == len(kept(1000)) == 90
    assert {*kept(10)} < {*kept(30)}
    assert sorted(kept(10, entries[::-1])) == sorted(kept(10))
    without = [entry for entry in entries if str(entry["question_id"]) not in kept(10)[:3]]
    assert {*kept(10)[3:]} <= {*kept(10, without)}
    assert kept(10) == [q for q in kept(0) if q in kept(10)], "in the order of the file"


def test_a_fingerprint_names_content_and_settings_and_no_place(place, tmp_path):
    entries = [question(1, image="a.png")]
    first = benchmark_fingerprint(context(place, entries), OWN)
    shutil.copytree(place, tmp_path / "moved")
    assert benchmark_fingerprint(context(tmp_path / "moved", entries), OWN) == first
    assert benchmark_fingerprint(context(place, entries, compat="robust"), OWN) == first
    others = [{"rows": 1}, {"max_new_tokens": 3}, {"losses": False}, {"options": {"upload": "mmvet"}}]
    found = {benchmark_fingerprint(context(place, entries, **other), OWN) for other in others}
    assert len(found | {first}) == 5
    assert benchmark_fingerprint(context(place, [question(1)]), OWN) != first


FILES = {
    "vqav2": ({"questions": "q.json", "annotations": "a.json"}, ["q.json", "a.json"]),
    "pope": ({"questions": "."}, ["coco_pope_random.json", "coco_pope_popular.json"]),
    "pope with questions": (
        {"questions": "q.jsonl", "annotations": "labels"},
        ["q.jsonl", "labels/coco_pope_random.json"],
    ),
    "mme": ({"questions": "q.jsonl", "annotations": "truth"}, ["q.jsonl", "truth/OCR.txt", "truth/count.txt"]),
    "mme as released": ({"questions": "q.jsonl", "annotations": "truth"}, ["q.jsonl", "truth/OCR/0001.txt"]),
    "scienceqa": ({"questions": "problems.json"}, ["problems.json", "pid_splits.json"]),
    "scienceqa with questions": (
        {"questions": "q.json", "annotations": "truth"},
        ["q.json", "truth/problems.json"],
    ),
    "textvqa": ({"questions": "v.json", "options": {"ocr_tokens": "ocr.json"}}, ["v.json", "ocr.json"]),
    "seed_bench": ({"questions": "q.jsonl", "annotations": "SEED-Bench.json"}, ["q.jsonl", "SEED-Bench.json"]),
}


@pytest.mark.parametrize("case", FILES)
def test_a_fingerprint_is_of_the_files_that_are_read_and_of_no_other(tmp_path, case):
    settings, names = FILES[case]

    def filled(directory):
        for name in names:
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_text("[]" if name == "q.json" else '{"text": 1}')
        return bare(directory, format=case.partition(" ")[0], **settings)

    ctx = filled(tmp_path / "first")
    first = benchmark_fingerprint(ctx, OWN)
    assert benchmark_fingerprint(filled(tmp_path / "moved"), OWN) == first
    for name in names:
        file = tmp_path / "first" / name
        file.with_name("0001.png").write_bytes(b"an image")
        file.with_name("notes.md").write_text("not read")
        assert benchmark_fingerprint(ctx, OWN) == first
        before = file.read_text()
        file.write_text(f"{before} ")
        assert benchmark_fingerprint(ctx, OWN) != first
        file.write_text(before)
        assert benchmark_fingerprint(ctx, OWN) == first
    file.rename(file.with_suffix(".missing"))
    if "mme" in case or case == "pope":
        return
    with pytest.raises(DataError, match=names[-1].rpartition("/")[2].partition("_")[0]):
        benchmark_fingerprint(ctx, OWN)


def test_the_name_of_a_file_counts_where_it_means_something(tmp_path):
    ctx = bare(tmp_path, format="pope", questions=".")
    with pytest.raises(DataError, match=r"holds no coco_pope_\*\.json"):
        benchmark_fingerprint(ctx, OWN)
    (tmp_path / "coco_pope_random.json").write_text("{}")
    first = benchmark_fingerprint(ctx, OWN)
    (tmp_path / "coco_pope_random.json").rename(tmp_path / "coco_pope_popular.json")
    assert benchmark_fingerprint(ctx, OWN) != first


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"format": "captioning", "options": {"metoer": True}}, r"options\.metoer: .*did you mean meteor\? \(known: m"),
        (
            {"format": "gqa", "options": {"x": 1}},
            r"benchmarks\.own\.options\.x: gqa has no such option \(known: none\)",
        ),
        ({"format": "captioning", "options": {"meteor": "yes"}}, r"options\.meteor: 'yes' is not true or false"),
        ({"format": "textvqa", "options": {"ocr_tokens": 5}}, r"options\.ocr_tokens: 5 is not the path of a file"),
        ({"format": "jsonl", "annotations": "a.json"}, r"benchmarks\.own\.annotations: jsonl does not read it"),
        ({"format": "textvqa", "annotations": "a.json"}, r"benchmarks\.own\.annotations: textvqa does not read it"),
        (
            {"format": "textvqa", "questions": "q.jsonl", "annotations": "a.json", "options": {"ocr_tokens": "o.json"}},
            r"benchmarks\.own\.options\.ocr_tokens: textvqa does not read it with .*q\.jsonl",
        ),
    ],
)
def test_what_a_format_would_ignore_is_refused(tmp_path, settings, problem):
    ctx = bare(tmp_path, **{"questions": "q.json"} | settings)
    for read in (read_benchmark, benchmark_fingerprint):
        with pytest.raises(ConfigError, match=problem):
            read(ctx, OWN)


def test_an_option_without_a_value_is_as_if_it_were_not_there(tmp_path):
    (tmp_path / "q.json").write_text('{"questions": []}')
    found = {
        benchmark_fingerprint(bare(tmp_path, format="textvqa", questions="q.json", **settings), OWN)
        for settings in ({}, {"options": {"ocr_tokens": None}})
    }
    assert len(found) == 1


def test_a_path_in_an_option_starts_at_the_project_file(tmp_path):
    line = {"question_id": 7, "image_id": "i", "question": "what?", "answers": ["a"]}
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "v.json").write_text(json.dumps({"data": [line]}))
    (tmp_path / "data" / "ocr.json").write_text(json.dumps({"data": [{"image_id": "i", "ocr_tokens": ["STOP"]}]}))
    ctx = bare(tmp_path, format="textvqa", questions="data/v.json", options={"ocr_tokens": "data/ocr.json"})
    (asked,) = read_benchmark(ctx, OWN).questions
    assert "Reference OCR token: STOP" in asked.turns[0][1]


def test_images_lie_beside_the_questions_where_no_root_is_named(tmp_path):
    draw(tmp_path / "a.png", 1)
    (tmp_path / "q.jsonl").write_text(json.dumps(question(1, image="a.png")))
    assert read_benchmark(bare(tmp_path, format="jsonl", questions="q.jsonl"), OWN).image("a.png").size == (32, 32)
    label = {"question_id": 1, "image": "a.png", "text": "Is it?", "label": "yes"}
    (tmp_path / "coco_pope_random.json").write_text(json.dumps([label]))
    assert read_benchmark(bare(tmp_path, format="pope", questions="."), OWN).image("a.png").size == (32, 32)


def test_keys_are_of_recipes_and_benchmarks_that_there_are(ctx):
    assert split_key(ctx, evaluation_key("presel", "held_out")) == ("presel", "held_out")
    assert split_key(ctx, "base:held_out") == ("base", "held_out")
    for key, what in (
        ("nobody:held_out", "recipe 'nobody'"),
        ("presel:other", "benchmark 'other'"),
        ("presel", "benchmark ''"),
    ):
        with pytest.raises(ConfigError, match=f"unknown {what}"):
            split_key(ctx, key)
