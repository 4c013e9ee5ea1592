import json
from types import MappingProxyType

import pytest

from vsel_platform.evaluation.benchmark import BenchmarkFiles, BenchmarkFormat, image_cluster
from vsel_platform.evaluation.formats import jsonl, rows

EMBEDDED = "data:image/png;base64," + "A" * 10_000


def test_clusters_are_named_by_paths_and_by_hashes_of_embedded_images():
    assert (image_cluster(()), image_cluster(("a.png",)), image_cluster(("a", "b"))) == ("", "a.png", "a\nb")
    name = image_cluster((EMBEDDED, "b"))
    assert name.endswith("\nb") and len(name) == 18
    assert len({name, image_cluster((f"{EMBEDDED}A", "b")), image_cluster(("b", EMBEDDED))}) == 3


def test_questions_about_one_embedded_image_have_a_short_cluster_in_common(tmp_path):
    path = tmp_path / "questions"
    path.write_text("".join(json.dumps({"question_id": i, "text": "?", "image": EMBEDDED}) + "\n" for i in range(2)))
    clusters = [question.cluster for question in jsonl.FORMAT.read(BenchmarkFiles(str(path)))]
    turns = [{"from": "human", "value": "<image>?"}, {"from": "gpt", "value": "yes"}]
    path.write_text(
        json.dumps([{"image": EMBEDDED, "conversations": turns}, {"conversations": [*turns[1:], *turns[1:]]}])
    )
    clusters += [question.cluster for question in rows.FORMAT.read(BenchmarkFiles(str(path)))]
    assert clusters == [image_cluster((EMBEDDED,))] * 3 + ["1"]


class Format(BenchmarkFormat):
    options = MappingProxyType({"prompt": "text", "second": "path", "first": "path"})


@pytest.mark.parametrize(
    ("options", "takes", "paths"),
    [
        ({}, False, ["q"]),
        ({}, True, ["q", "a"]),
        ({"second": "s", "prompt": "p", "first": "f"}, True, ["q", "a", "f", "s"]),
    ],
)
def test_a_format_reads_the_files_that_the_settings_name_unless_it_says_otherwise(options, takes, paths):
    kind = Format()
    kind.takes_annotations = takes
    assert kind.files(BenchmarkFiles("q", "a", options)) == paths
    assert kind.files(BenchmarkFiles("q", None, options)) == [path for path in paths if path != "a"]
