import json

import numpy as np
import pytest

from vsel_platform.errors import ConfigError, DataError, MissingPackageError
from vsel_platform.evaluation.benchmark import BenchmarkFiles
from vsel_platform.evaluation.caption_scores import cider_d
from vsel_platform.evaluation.formats import captioning
from vsel_platform.evaluation.formats.captioning import FORMAT

COCO = {
    "images": [
        {"id": 1, "file_name": "COCO_val2014_000000000001.jpg", "domain": "in-domain"},
        {"id": 2, "file_name": "COCO_val2014_000000000002.jpg", "domain": "out-domain"},
        {"id": 3, "file_name": "COCO_val2014_000000000003.jpg", "domain": "out-domain"},
    ],
    "annotations": [
        {"image_id": 2, "id": 10, "caption": "A cat sleeps on a red mat."},
        {"image_id": 1, "id": 11, "caption": "A brown dog runs in the park."},
        {"image_id": 1, "id": 12, "caption": "The dog is running on grass"},
        {"image_id": 3, "id": 13, "caption": "Two people (a man, a woman) eat pizza."},
    ],
}
TEXTS = ["A brown dog runs in the park.", "a dog", None]


@pytest.fixture
def load(tmp_path):
    def read(content=COCO, **options):
        (tmp_path / "captions.json").write_text(json.dumps(content), "utf-8")
        return FORMAT.read(BenchmarkFiles(str(tmp_path / "captions.json"), options=options))

    return read


def scores(questions, texts, compat="official"):
    found = FORMAT.measures(questions, FORMAT.judge(questions, texts, compat), compat)
    return {(measure.name, measure.group): measure for measure in found}


def test_captions_are_gathered_by_image(load):
    first = load()[0]
    assert first.turns == (("user", "<image>\nProvide a one-sentence caption for the provided image."),)
    assert first.answers == ("A brown dog runs in the park.", "The dog is running on grass")
    assert (first.question_id, first.images, first.category) == ("1", ("COCO_val2014_000000000001.jpg",), "in-domain")


def test_a_list_of_images_with_one_or_more_captions(load):
    questions = load([{"image": "a.jpg", "caption": ["x", "y"]}, {"image": "b.jpg", "caption": "z"}], prompt="Say.")
    assert [question.answers for question in questions] == [("x", "y"), ("z",)]
    assert questions[0].turns == (("user", "<image>\nSay."),)


def test_headline_is_first_and_the_mean_of_cider(load):
    found = scores(load(), TEXTS)
    assert next(iter(found)) == (FORMAT.headline, "")
    references = [
        [["a", "brown", "dog", "runs", "in", "the", "park"], ["the", "dog", "is", "running", "on", "grass"]],
        [["a", "cat", "sleeps", "on", "a", "red", "mat"]],
        [["two", "people", "-lrb-", "a", "man", "a", "woman", "-rrb-", "eat", "pizza"]],
    ]
    expected = cider_d([references[0][0], ["a", "dog"], []], references)
    assert found["CIDEr", ""].estimate == pytest.approx(100 * expected.mean())
    assert found["CIDEr", "in-domain"].estimate == pytest.approx(100 * expected[0])
    assert found["CIDEr", "out-domain"].n_questions == 2


def test_a_missing_caption_is_an_empty_one(load):
    questions = load()
    judgements = FORMAT.judge(questions, TEXTS, "official")
    assert judgements[2].parsed is None and judgements[2].score == 0
    assert all(0 <= judgement.score <= 1 for judgement in judgements)
    assert scores(questions, TEXTS)["BLEU-1", ""].estimate == scores(questions, [*TEXTS[:2], ""])["BLEU-1", ""].estimate


def test_every_metric_is_a_function_of_sums_over_images(load):
    questions = load()
    halves = [scores(questions[:2], TEXTS[:2]), scores(questions[2:], TEXTS[2:])]
    for name in ("BLEU-1", "BLEU-4", "ROUGE-L"):
        whole = scores(questions, TEXTS)[name, ""]
        sums = sum(half[name, ""].statistics.sum(axis=0) for half in halves)
        assert whole.estimate == pytest.approx(float(whole.value(sums)))


def test_an_image_without_references_counts_in_nothing(load):
    content = {**COCO, "images": [*COCO["images"], {"id": 4, "file_name": "4.jpg"}]}
    with_fourth, without = load(content), load()
    assert FORMAT.judge(with_fourth, [*TEXTS, "a cow"], "llava")[3].score is None
    left, right = scores(with_fourth, [*TEXTS, "a cow"]), scores(without, TEXTS)
    for key, measure in right.items():
        assert left[key].estimate == pytest.approx(measure.estimate)
        assert left[key].n_questions == measure.n_questions


def test_llava_cuts_long_answers_and_official_does_not(load):
    long = "the dog " * 15
    llava, official = (FORMAT.judge(load(), [long, None, None], compat)[0].parsed for compat in FORMAT.compats)
    assert len(llava.split()) == 20 and len(official.split()) == 30


def test_meteor_is_computed_on_demand_only(load, monkeypatch):
    assert ("METEOR", "") not in scores(load(), TEXTS)
    row = np.array([7, 7, 3, 3, 4, 4, 3, 3, *[0] * 12, 0, 7, 7], dtype=float)
    asked = []

    def aligned(captions, references):
        asked.append((captions, references))
        return np.stack([row] * len(captions))

    monkeypatch.setattr(captioning, "meteor_command", list)
    monkeypatch.setattr(captioning, "meteor_statistics", aligned)
    found = scores(load(meteor=True), TEXTS)["METEOR", ""]
    assert found.estimate == pytest.approx(100) and found.n_questions == 3
    assert asked[0][0] == ["a brown dog runs in the park", "a dog", ""]
    assert asked[0][1][1] == ["a cat sleeps on a red mat"]


def test_meteor_that_cannot_run_is_refused_before_any_answer_is_made(load, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match="captioning"):
        load(meteor=True)


@pytest.mark.parametrize("options", [{"prompt": 3}, {"meteor": "yes"}])
def test_wrong_options_are_refused(load, options):
    with pytest.raises(ConfigError, match="option"):
        load(**options)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": []}, "annotations"),
        ({"images": [], "annotations": []}, "no question"),
        ({**COCO, "images": [{"id": 1}]}, "images entry 1.*file_name"),
        ([{"image": "a.jpg", "caption": 3}], "entry 1.*caption"),
        ([{"image": "a.jpg", "caption": "x"}] * 2, "stands twice"),
    ],
)
def test_wrong_files_are_refused(load, content, message):
    with pytest.raises(DataError, match=message):
        load(content)


def test_robust_is_not_offered(load):
    with pytest.raises(ConfigError, match="robust"):
        FORMAT.judge(load(), TEXTS, "robust")
    assert FORMAT.upload(load(), TEXTS) == {}
