import csv

import pytest
from workbooks import read_workbook

from vsel_platform.errors import DataError
from vsel_platform.evaluation.benchmark import BenchmarkFiles
from vsel_platform.evaluation.formats.mmbench import FORMAT, is_missing

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGBgAAAABQABpfZFQAAAAABJRU5ErkJggg=="
COLUMNS = [
    "index",
    "question",
    "hint",
    "A",
    "B",
    "C",
    "D",
    "answer",
    "category",
    "image",
    "source",
    "l2-category",
    "comment",
    "split",
]


def row(index, answer, options=("w", "x", "y"), **changes):
    fixed = dict.fromkeys(COLUMNS, "") | {"index": index, "question": "What?", "answer": answer, "image": PNG}
    letters = dict(zip("ABCD", options, strict=False))
    return {**fixed, **letters, "category": "ocr", "l2-category": "perception", "split": "dev", **changes}


def read(tmp_path, *rows, columns=COLUMNS):
    path = tmp_path / "mmbench.tsv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, delimiter="\t", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return FORMAT.read(BenchmarkFiles(str(path)))


def rotations(base, category="ocr"):
    options = ("w", "x")
    rotated = row(base + 1_000_000, "A", options[::-1], category=category)
    return [row(base, "B", options, category=category), rotated]


def test_question_with_hint(tmp_path):
    (question,) = read(tmp_path, row(3, "C", hint="Look\tcloser."))
    sentence = "Answer with the option's letter from the given choices directly."
    assert question.turns == (("user", f"<image>\nLook\tcloser.\nWhat?\nA. w\nB. x\nC. y\n{sentence}"),)
    assert question.images == (f"data:image/png;base64,{PNG}",)
    assert (question.question_id, question.answers, question.choices) == ("3", ("C",), ("w", "x", "y"))


def test_rotations_share_cluster_and_base_and_may_refer_to_the_image(tmp_path):
    first, second = read(tmp_path, row(3, "A"), row(1_000_003, "B", image="3"))
    assert second.images == first.images
    assert first.cluster == second.cluster
    assert first.extra["base"] == second.extra["base"] == "3"


@pytest.mark.parametrize("value", [None, "", "nan", "None", "NA", "null", "none", "NaN"])
def test_cells_that_count_as_missing(value):
    assert is_missing(value)


def test_options_end_at_the_first_missing_one(tmp_path):
    (question,) = read(tmp_path, row(3, "B", ("w", "x", "nan", "z")))
    assert question.choices == ("w", "x")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"index": "x"}, "row 1: 'index' is 'x'"),
        ({"answer": "D"}, "row 1: 'answer' 'D'"),
        ({"B": ""}, "row 1: has fewer than two options"),
        ({"image": "17"}, "row 1: 'image' is neither"),
        ({"image": "%" * 80}, "row 1: 'image' begins with '%%%%%%%%'"),
    ],
)
def test_wrong_rows(tmp_path, changes, problem):
    with pytest.raises(DataError, match=rf"mmbench\.tsv, {problem}"):
        read(tmp_path, row(1, "A") | changes)


def test_wrong_tables(tmp_path):
    with pytest.raises(DataError, match="has no column image"):
        read(tmp_path, row(1, "A"), columns=[column for column in COLUMNS if column != "image"])
    with pytest.raises(DataError, match="has no rows"):
        read(tmp_path)
    with pytest.raises(DataError, match="stands twice"):
        read(tmp_path, row(1, "A"), row(1, "A"))


def test_images_longer_than_the_usual_limit_of_a_table_are_read(tmp_path):
    limit = csv.field_size_limit()
    (question,) = read(tmp_path, row(1, "A", image=PNG + "A" * (limit + 1)))
    assert len(question.images[0]) > limit
    assert csv.field_size_limit() == limit


def test_a_question_is_right_if_all_its_rotations_are(tmp_path):
    questions = read(tmp_path, *rotations(1), *rotations(2), *rotations(3, "logic"))
    judgements = FORMAT.judge(questions, ["B", "A", "B", "B", "B.", None], "official")
    found = {(m.name, m.group): m.estimate for m in FORMAT.measures(questions, judgements, "official")}
    assert found == {
        ("circular_accuracy", ""): pytest.approx(100 / 3),
        ("circular_accuracy", "perception"): pytest.approx(100 / 3),
        ("circular_accuracy", "ocr"): 50.0,
        ("circular_accuracy", "logic"): 0.0,
        ("row_accuracy", ""): pytest.approx(400 / 6),
    }
    headline = FORMAT.measures(questions, judgements, "official")[0]
    assert headline.n_questions == 3
    assert headline.statistics.tolist() == [[1, 1], [0, 0], [0, 1], [0, 0], [0, 1], [0, 0]]


def test_the_row_without_rotation_stands_for_its_question(tmp_path):
    questions = read(tmp_path, *reversed(rotations(1)))
    judgements = FORMAT.judge(questions, ["A", "B"], "llava")
    assert FORMAT.measures(questions, judgements, "llava")[0].statistics.tolist() == [[0, 0], [1, 1]]


def test_rows_without_answer_count_in_nothing(tmp_path):
    questions = read(tmp_path, row(1, "", category="", **{"l2-category": ""}), row(2, "A"))
    judgements = FORMAT.judge(questions, ["A", "A"], "llava")
    assert judgements[0].score is None
    assert FORMAT.measures(questions, judgements, "llava")[0].n_questions == 1


def test_refusals(tmp_path):
    questions = read(tmp_path, row(1, "A"))
    assert FORMAT.judge(questions, ["Z"], "official")[0].parsed == "Z"
    assert FORMAT.judge(questions, ["Z"], "robust")[0].parsed is None


def test_upload_has_the_columns_of_the_server(tmp_path):
    questions = read(tmp_path, row(1, "A", question='He said "a,b"'), row(2, "", ("w", "x", "None")))
    (content,) = FORMAT.upload(questions, ["A", None]).values()
    first, second = read_workbook(content)
    assert list(first) == ["index", "question", "A", "B", "C", "D", "prediction", "answer", "split"]
    assert (first["index"], first["question"], first["prediction"]) == (1, 'He said "a,b"', "A")
    assert [second[column] for column in ("index", "A", "B", "C", "prediction", "answer")] == [2, "w", "x", *[None] * 3]
