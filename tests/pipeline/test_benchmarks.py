import base64
import json
import shutil

import pytest
from small_project import draw

from vsel_platform.errors import ConfigError, DataError
from vsel_platform.pipeline import benchmarks
from vsel_platform.pipeline.benchmarks import benchmark_fingerprint, evaluation_key, read_benchmark, split_key

OWN = "own"


@pytest.fixture
def place(tmp_path):
    """A directory with a picture, and one outside of it."""
    draw(tmp_path / "benchmark" / "images" / "a.png", 1)
    draw(tmp_path / "secret.png", 2)
    return tmp_path / "benchmark"


def context(project, place, entries, **settings):
    """The project with the benchmark `own`, whose questions are `entries`."""
    file = place / "questions.jsonl"
    file.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    own = {"format": "jsonl", "questions": str(file), "image_root": str(place / "images")} | settings
    return project.context({"benchmarks": {OWN: own}})


def question(number, **values):
    return {"question_id": number, "text": "What?", "answers": "yes"} | values


def test_a_benchmark_knows_its_questions_clusters_and_longest_answer(finished, place):
    entries = [question(1, image="a.png"), question(2, image="a.png"), question(3)]
    benchmark = read_benchmark(context(finished, place, entries), OWN)
    assert [q.question_id for q in benchmark.questions] == ["1", "2", "3"]
    assert benchmark.clusters == ["a.png", "a.png", "3"]
    assert benchmark.max_new_tokens == benchmark.format.max_new_tokens
    assert read_benchmark(context(finished, place, entries, max_new_tokens=3), OWN).max_new_tokens == 3


def test_a_question_id_that_stands_there_twice_is_named(finished, place):
    with pytest.raises(DataError, match=r"questions\.jsonl, question 1: stands twice"):
        read_benchmark(context(finished, place, [question(1), question(1)]), OWN)


def test_whatever_a_format_gives_its_ids_are_distinct(finished, place, monkeypatch):
    ctx = context(finished, place, [question(1), question(2)])
    found = benchmarks.benchmark_format("jsonl")
    twice = type("Twice", (type(found),), {"read": lambda self, files: [*found.read(files)] * 2})()
    monkeypatch.setattr(benchmarks, "benchmark_format", lambda name: twice)
    with pytest.raises(DataError, match="benchmark own: question_id '1' stands there twice"):
        read_benchmark(ctx, OWN)


def test_a_file_without_questions_or_a_way_of_reading_that_a_format_lacks_is_refused(finished, place):
    with pytest.raises(DataError, match=r"questions\.jsonl"):
        read_benchmark(context(finished, place, []), OWN)
    (place / "captions.json").write_text("{}")
    lacking = context(finished, place, [question(1)], format="captioning", compat="robust")
    with pytest.raises(ConfigError, match=r"own\.compat: captioning has no robust; it has llava, official"):
        read_benchmark(lacking, OWN)


@pytest.mark.parametrize("image", ["../../secret.png", "/etc/hostname", "b.png"])
def test_images_outside_of_the_root_and_missing_ones_are_refused(finished, place, image):
    benchmark = read_benchmark(context(finished, place, [question(1, image=image)]), OWN)
    with pytest.raises(DataError, match=r"benchmark own: image .*(outside of|No such file)"):
        benchmark.image_bytes(image)


def test_a_link_that_leads_out_of_the_root_is_refused(finished, place):
    (place / "images" / "link.png").symlink_to(place.parent / "secret.png")
    benchmark = read_benchmark(context(finished, place, [question(1, image="link.png")]), OWN)
    with pytest.raises(DataError, match="outside of"):
        benchmark.image("link.png")


def test_an_embedded_image_is_the_file_that_it_was_made_of(finished, place):
    data = (place / "images" / "a.png").read_bytes()
    uri = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    benchmark = read_benchmark(context(finished, place, [question(1, image=uri)]), OWN)
    assert benchmark.image_bytes(uri) == data
    assert benchmark.image(uri).tobytes() == benchmark.image("a.png").tobytes()
    with pytest.raises(DataError, match="benchmark own: an embedded image is no base64"):
        benchmark.image("data:image/png;base64,&&&")


def test_what_is_no_picture_or_too_large_is_refused(finished, place, monkeypatch):
    (place / "images" / "text.png").write_text("no picture")
    benchmark = read_benchmark(context(finished, place, [question(1)]), OWN)
    with pytest.raises(DataError, match=r"text\.png cannot be decoded"):
        benchmark.image("text.png")
    monkeypatch.setattr(benchmarks, "MAX_PIXELS", 32 * 32 - 1)
    with pytest.raises(DataError, match=r"a\.png: 32 x 32 pixels"):
        benchmark.image("a.png")


def test_a_limit_keeps_whole_images_and_does_not_depend_on_the_others(finished, place):
    entries = [question(3 * image + k, image=f"{image}.png") for image in range(30) for k in range(3)]

    def kept(rows, own=entries):
        found = read_benchmark(context(finished, place, own, rows=rows), OWN).questions
        return [q.question_id for q in found]

    assert len(kept(10)) == 12
    assert len(kept(0)) == len(kept(90)) == len(kept(1000)) == 90
    assert {*kept(10)} < {*kept(30)}
    assert sorted(kept(10, entries[::-1])) == sorted(kept(10))
    without = [entry for entry in entries if str(entry["question_id"]) not in kept(10)[:3]]
    assert {*kept(10)[3:]} <= {*kept(10, without)}
    assert kept(10) == [q for q in kept(0) if q in kept(10)], "in the order of the file"


def test_a_fingerprint_names_content_and_settings_and_no_place(finished, place, tmp_path):
    entries = [question(1, image="a.png")]
    first = benchmark_fingerprint(context(finished, place, entries), OWN)
    shutil.copytree(place, tmp_path / "moved")
    assert benchmark_fingerprint(context(finished, tmp_path / "moved", entries), OWN) == first
    assert benchmark_fingerprint(context(finished, place, entries, compat="robust"), OWN) == first
    others = [{"rows": 1}, {"max_new_tokens": 3}, {"losses": False}, {"options": {"upload": "mmvet"}}]
    found = {benchmark_fingerprint(context(finished, place, entries, **other), OWN) for other in others}
    assert len(found | {first}) == 5
    assert benchmark_fingerprint(context(finished, place, [question(1)]), OWN) != first


def test_annotations_and_all_files_of_a_directory_count(finished, place):
    (place / "parts").mkdir()
    for name in ("a.json", "b.json"):
        (place / "parts" / name).write_text("[]")
    ctx = context(finished, place, [], questions=str(place / "parts"), annotations=str(place / "right.json"))
    with pytest.raises(DataError, match=r"right\.json.*check `benchmarks`"):
        benchmark_fingerprint(ctx, OWN)
    (place / "right.json").write_text("{}")
    seen = {benchmark_fingerprint(ctx, OWN)}
    for change in ("right.json", "parts/b.json", "parts/c.json"):
        (place / change).write_text("[1]")
        seen.add(benchmark_fingerprint(ctx, OWN))
    (place / "parts" / "c.json").rename(place / "parts" / "d.json")
    assert len(seen | {benchmark_fingerprint(ctx, OWN)}) == 5


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
