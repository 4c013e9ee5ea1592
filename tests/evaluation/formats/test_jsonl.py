import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsel_platform.errors import ConfigError, DataError
from vsel_platform.evaluation.benchmark import BenchmarkFiles, Question
from vsel_platform.evaluation.formats.jsonl import FORMAT, METRICS

LINE = {"question_id": 1, "image": "a.jpg", "text": "What is it?", "answers": "dog"}
CHOICE = {"question_id": "c", "text": "Which?", "choices": ["a dog", "a cat"], "answers": "B"}


@pytest.fixture
def load(tmp_path):
    def read(*lines, **options):
        path = tmp_path / "mine.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
        return FORMAT.read(BenchmarkFiles(str(path), options=options))

    return read


def judged(questions, text):
    return tuple(FORMAT.judge(questions, [text], compat)[0].score for compat in FORMAT.compats)


@pytest.mark.parametrize(
    ("changes", "prompt", "images"),
    [
        ({}, "<image>\nWhat is it?", ("a.jpg",)),
        ({"text": "Look: <image> What?"}, "Look: <image> What?", ("a.jpg",)),
        ({"image": "data:image/png;base64,AA=="}, "<image>\nWhat is it?", ("data:image/png;base64,AA==",)),
    ],
)
def test_images_stand_first_unless_the_text_places_them(load, changes, prompt, images):
    question = load({**LINE, **changes})[0]
    assert question.turns == (("user", prompt),) and question.images == images


def test_several_images_and_none(load):
    several = {"question_id": 2, "images": ["a.jpg", "b.jpg"], "text": "Compare."}
    two, none = load(several, {"question_id": 3, "text": "Two plus two?"})
    assert two.turns[0][1] == "<image>\n<image>\nCompare." and two.cluster == "a.jpg\nb.jpg"
    assert none.turns[0][1] == "Two plus two?" and (none.images, none.cluster) == ((), "3")


def test_choices_are_added_to_the_prompt_and_judged_by_letter(load):
    question = load(CHOICE)[0]
    assert question.turns[0][1] == (
        "Which?\nA. a dog\nB. a cat\nAnswer with the option's letter from the given choices directly."
    )
    assert question.extra["metric"] == "choice" and question.answers == ("B",)
    assert load({**CHOICE, "answers": "a cat"})[0].answers == ("B",)


@pytest.mark.parametrize(
    ("text", "scores"),
    [
        ("B", (1, 1, 1)),
        (" B\n", (1, 1, 1)),
        ("B. a cat", (1, 0, 1)),
        ("b", (0, 0, 1)),
        ("The answer is B", (0, 0, 1)),
        ("a cat", (0, 0, 1)),
        ("A", (0, 0, 0)),
        ("C", (0, 0, 0)),
        (None, (0, 0, 0)),
    ],
)
def test_choice(load, text, scores):
    assert judged(load(CHOICE), text) == scores


@pytest.mark.parametrize(
    ("text", "scores"),
    [("dog", (1, 1, 1)), ("Dog.", (1, 0, 1)), ("the dog", (0, 0, 1)), ("cat", (0, 0, 0)), (None, (0, 0, 0))],
)
def test_exact_match(load, text, scores):
    assert judged(load(LINE), text) == scores


@pytest.mark.parametrize(
    ("text", "scores"),
    [("I see a dog here", (1, 1, 1)), ("A Dog", (1, 0, 1)), ("hotdogs", (0, 0, 0)), ("", (0, 0, 0))],
)
def test_contains_wants_whole_words(load, text, scores):
    assert judged(load({**LINE, "metric": "contains"}), text) == scores


def test_vqa_soft_counts_annotators(load):
    questions = load({**LINE, "answers": ["The dog"] * 2 + ["cat"] * 8, "metric": "vqa_soft"})
    assert judged(questions, "dog") == pytest.approx((0.6, 0.6, 0.6))


def test_any_of_several_answers_is_right(load):
    assert judged(load({**LINE, "answers": ["puppy", "dog"]}), "dog") == (1, 1, 1)


def test_questions_without_answers_are_not_scored(load):
    line = {key: value for key, value in LINE.items() if key != "answers"}
    open_questions = load(line, {**CHOICE, "answers": None})
    judgements = FORMAT.judge(open_questions, ["dog", "B"], "robust")
    assert [(j.parsed, j.score) for j in judgements] == [("dog", None), ("B", None)]


def test_means_per_category(load):
    questions = load({**LINE, "category": "easy"}, {**CHOICE, "category": "hard"})
    judgements = FORMAT.judge(questions, ["dog", None], "llava")
    found = {(m.name, m.group): m.estimate for m in FORMAT.measures(questions, judgements, "llava")}
    assert found == {("accuracy", ""): 50, ("accuracy", "easy"): 100, ("accuracy", "hard"): 0}


def test_upload_for_a_judge_elsewhere(load):
    assert FORMAT.upload(load(LINE), ["x"]) == {}
    files = FORMAT.upload(load(LINE, CHOICE, upload="mmvet"), ["Yes.", None])
    assert json.loads(files["mm-vet.json"]) == {"v1_1": "Yes.", "v1_c": ""}
    with pytest.raises(ConfigError, match="upload"):
        load(LINE, upload="elsewhere")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"question_id": None}, "question_id"),
        ({"text": None}, "text"),
        ({"metric": "bleu"}, "metric.*exact_match"),
        ({"metric": "choice"}, "choices"),
        ({"choices": list("abcdefghi")}, "9 'choices'"),
        ({"choices": ["a", "b"], "answers": "c"}, "neither a letter"),
        ({"images": ["b.jpg"]}, "both"),
        ({"text": "<image> <image>"}, "2 times <image> for 1 images"),
        ({"answers": [1]}, "answers"),
    ],
)
def test_wrong_lines_are_refused_with_their_number(load, changes, message):
    with pytest.raises(DataError, match=f"line 2.*{message}"):
        load(CHOICE, {**LINE, **changes})


@pytest.mark.parametrize(
    ("field", "name"),
    [("answer", "answers"), ("Answers", "answers"), ("anwsers ", "answers"), ("catagory", "category")],
)
def test_a_mistyped_field_is_refused_with_its_line_and_the_right_name(load, field, name):
    line = {key: value for key, value in LINE.items() if key != name}
    with pytest.raises(DataError, match=rf"mine\.jsonl, line 2: '{field}' is no field; did you mean '{name}'\?"):
        load(CHOICE, {**line, field: "dog"})


def test_other_fields_are_allowed(load):
    line = {**LINE, "answer": "what a model said", "image_ids": [1], "question": "?", "source": "web", "difficulty": 3}
    assert load(line) == load(LINE)


@given(text=st.none() | st.text(), metric=st.sampled_from(METRICS), compat=st.sampled_from(FORMAT.compats))
def test_no_answer_raises_and_scores_are_shares(text, metric, compat):
    question = Question("1", (), (), ("B",), "1", choices=("x", "y"), extra={"metric": metric, "upload": None})
    judgement = FORMAT.judge([question], [text], compat)[0]
    assert judgement.score is not None and 0 <= judgement.score <= 1
