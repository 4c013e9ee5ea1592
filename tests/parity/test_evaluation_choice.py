"""Choice and yes / no benchmarks against recorded runs of released scripts; beside it what the formats do instead."""

import csv
import json
import math

import numpy as np
import pytest
from parity_cases import step_dir
from workbooks import read_workbook

from vsel_platform.evaluation import released
from vsel_platform.evaluation.bad_cases import (
    answer_of_least_loss,
    bad_cases,
    evaluated_rows,
    loss_prompt,
    option_texts,
    type_weights,
)
from vsel_platform.evaluation.benchmark import BenchmarkFiles
from vsel_platform.evaluation.formats import aokvqa, mmbench, mme, pope, qbench, scienceqa, seed_bench
from vsel_platform.evaluation.formats.choices import LETTERS, match_option
from vsel_platform.evaluation.formats.mmbench import ROTATION
from vsel_platform.evaluation.formats.scienceqa_prompts import llava_record

ASSISTANT = " ASSISTANT:"
USER = "USER: "


def step(system, name):
    """The recorded step as the only parameter of a test; no test if this set of cases leaves it out."""
    path = step_dir(system, name) / "fixture.json"
    found = [json.loads(path.read_text("utf-8"))] if path.is_file() else []
    return pytest.mark.parametrize("case", [pytest.param(case, id=f"{system}/{name}") for case in found])


def write_json(path, content):
    path.write_text(json.dumps(content), encoding="utf-8")
    return str(path)


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def measured(benchmark, questions, texts, compat="llava"):
    judgements = benchmark.judge(questions, texts, compat)
    return {(m.name, m.group): m for m in benchmark.measures(questions, judgements, compat)}


def value(measures, name, group=""):
    return measures[name, group].estimate


def error_of(call, *arguments):
    with pytest.raises((KeyError, ValueError)) as caught:
        call(*arguments)
    return f"{caught.type.__name__}: {caught.value}"


# --- SEED-Bench


def read_seed(case, tmp_path):
    annotation = {**case["annotation"], "questions": [{**q, "data_id": "i"} for q in case["annotation"]["questions"]]}
    files = BenchmarkFiles(write_json(tmp_path / "seed.json", annotation), options={"video_images": "{question_id}"})
    return seed_bench.FORMAT.read(files)


def texts_of(questions, answers):
    given = {str(row["question_id"]): row["text"] for row in answers}
    return [given.get(question.question_id) for question in questions]


@step("mllm_dataengine", "seed_bench")
def test_seed_bench_prints_what_was_recorded(case):
    lines = released.seed_bench_lines
    image = {"kinds": ["image"]}
    annotation = case["annotation"]
    assert lines(annotation, case["answers_partial"], **image) == case["stdout_dataengine_partial"].splitlines()
    assert lines(annotation, case["answers_full"]) == case["stdout_llava_full"].splitlines()
    first = lines(annotation, case["answers_minigpt"], rule="first_character", **image)
    assert first == case["stdout_minigpt"].splitlines()
    assert released.seed_bench_metrics(annotation, case["answers_partial"]) == case["metrics_json_dataengine"]


@step("mllm_dataengine", "seed_bench")
def test_seed_bench_upload_and_errors(case, tmp_path):
    annotation = case["annotation"]
    assert released.seed_bench_upload(annotation, case["answers_full"]) == case["upload_llava_full"]
    error = error_of(released.seed_bench_upload, annotation, case["answers_partial"])
    assert error == case["exit_error_dataengine_partial"]

    number = int(case["error_when_a_type_has_no_correct_answer"].removeprefix("KeyError: "))
    of_type = {q["question_id"] for q in annotation["questions"] if q["question_type_id"] == number}
    none_right = [{**row, "text": "Z"} if str(row["question_id"]) in of_type else row for row in case["answers_full"]]
    error = error_of(released.seed_bench_lines, annotation, none_right)
    assert error == case["error_when_a_type_has_no_correct_answer"]

    # The format writes an empty prediction, and a type without a right answer has accuracy 0.
    questions = read_seed(case, tmp_path)
    upload = seed_bench.FORMAT.upload(questions, texts_of(questions, case["answers_full"]))["seed_bench.jsonl"]
    assert [json.loads(line) for line in upload.splitlines()] == case["upload_llava_full"]
    partial = seed_bench.FORMAT.upload(questions, texts_of(questions, case["answers_partial"]))["seed_bench.jsonl"]
    assert sum(json.loads(line)["prediction"] == "" for line in partial.splitlines()) > 0
    name = next(name for name, found in annotation["question_type"].items() if found == number)
    assert value(measured(seed_bench.FORMAT, questions, texts_of(questions, none_right)), "accuracy", name) == 0.0


@pytest.mark.parametrize("given", ["partial", "full"])
@step("mllm_dataengine", "seed_bench")
def test_seed_bench_measures_are_the_printed_numbers(case, given, tmp_path):
    questions = read_seed(case, tmp_path)
    measures = measured(seed_bench.FORMAT, questions, texts_of(questions, case[f"answers_{given}"]))
    printed = case["stdout_llava_full" if given == "full" else "stdout_dataengine_partial"].splitlines()
    names = {"Total accuracy": ("accuracy", ""), "image accuracy": ("accuracy_image", "")}
    names |= {"video accuracy": ("accuracy_video", "")}
    for line in printed:
        name, number = line.removesuffix("%").rsplit(": ", 1)
        assert f"{value(measures, *names.get(name, ('accuracy', name))):.2f}" == number, line


# --- MMBench


@pytest.fixture
def mmbench_questions(case, tmp_path):
    path = tmp_path / "mmbench.tsv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(case["rows"][0]), delimiter="\t")
        writer.writeheader()
        writer.writerows(case["rows"])
    return mmbench.FORMAT.read(BenchmarkFiles(str(path)))


@step("llava_base", "mmbench_circular")
def test_mmbench_prompts(case, mmbench_questions):
    recorded = case["llava_inference"]["False"]
    for question, answer, prompt in zip(mmbench_questions, recorded["answers"], recorded["prompts"], strict=True):
        asked = question.turns[0][1]
        assert asked == prompt.split(USER, 1)[1].removesuffix(ASSISTANT)
        assert asked.removeprefix("<image>\n").rsplit("\n", 1)[0] == answer["prompt"]
        assert (int(question.question_id), list(question.choices)) == (answer["question_id"], answer["options"])
        assert answer["option_char"] == list(LETTERS[: len(question.choices)])


@step("llava_base", "mmbench_circular")
def test_mmbench_all_rounds_rotate_once_more(case):
    recorded = iter(case["llava_inference"]["True"]["answers"])
    for row in case["rows"]:
        options = [row[letter] for letter in "ABCD" if row[letter] is not None]
        for number, (shown, letters) in enumerate(released.mmbench_rounds(options)):
            answer = next(recorded)
            assert answer["prompt"] == mmbench.prompt(row["question"], row["hint"], shown)
            found = (answer["question_id"], answer["round_id"], answer["options"], answer["option_char"])
            assert found == (row["index"], number, shown, letters)
    assert next(recorded, None) is None
    for answer, prompt in zip(*(case["llava_inference"]["True"][key] for key in ("answers", "prompts")), strict=True):
        assert prompt.split(USER, 1)[1].startswith(f"<image>\n{answer['prompt']}\n")


@step("llava_base", "mmbench_circular")
def test_mmbench_upload(case, mmbench_questions):
    texts = [answer["text"] for answer in case["llava_inference"]["False"]["answers"]]
    rows = read_workbook(mmbench.FORMAT.upload(mmbench_questions, texts)["mmbench.xlsx"])
    assert list(rows[0]) == case["upload_columns"]
    assert [row["prediction"] for row in rows] == case["upload_predictions"]
    for row, original in zip(rows, case["rows"], strict=True):
        kept = {column: original.get(column) for column in row}
        assert row == {**kept, "prediction": row["prediction"]}


@pytest.mark.parametrize("compat", ["llava", "official", "robust"])
@step("llava_base", "mmbench_circular")
def test_mmbench_circular_scores(case, mmbench_questions, compat):
    measures = measured(mmbench.FORMAT, mmbench_questions, case["predictions"], compat)
    statistics = measures["circular_accuracy", ""].statistics
    hits = [
        {"index": int(question.question_id), "hit": int(row[0])}
        for question, row in zip(mmbench_questions, statistics, strict=True)
        if row[1]
    ]
    assert sorted(hits, key=lambda hit: hit["index"]) == sorted(
        case["vlmevalkit_circular"], key=lambda hit: hit["index"]
    )
    for name, numbers in case["vlmevalkit_report"].items():
        if name == "split":
            continue
        full = {short: long for long, short in released.MMBENCH_ABBREVIATIONS.items()}.get(name, name)
        group = "" if name == "Overall" else full
        assert value(measures, "circular_accuracy", group) / 100 == pytest.approx(numbers[0], abs=1e-9)


@step("llava_base", "mmbench_circular")
def test_mmbench_matcher(case):
    for found in case["can_infer"]:
        assert (match_option(found["answer"], list(found["choices"].values())) or False) == found["out"], found


@step("llava_base", "mmbench_circular")
def test_mmbench_older_matcher_of_lmms_eval(case):
    right = {}
    for row, text in zip(case["rows"], case["predictions"], strict=True):
        options = {letter: row[letter] for letter in "ABCD" if row[letter] is not None}
        base = row["index"] % ROTATION
        right[base] = right.get(base, True) and released.lmms_eval_option(text, options) == row["answer"]
    base_rows = [row for row in case["rows"] if row["index"] < ROTATION]
    expected = case["lmms_eval_static"]
    assert np.mean([right[row["index"]] for row in base_rows]) == pytest.approx(expected["overall"], abs=1e-9)
    for key, name in (("category", "category"), ("l2", "l2-category")):
        for group, number in expected[key].items():
            hits = [right[row["index"]] for row in base_rows if row[name] == group]
            assert np.mean(hits) == pytest.approx(number, abs=1e-9)


# --- MME


def write_mme(case, tmp_path):
    """Question file, and annotations in the layout of the benchmark's release."""
    for key, answer in case["gt"].items():
        task, file, question = key.split("|", 2)
        directory = tmp_path / "release" / task
        directory.mkdir(parents=True, exist_ok=True)
        with (directory / file).open("a", encoding="utf-8") as lines:
            lines.write(f"{question}\t{answer}\n")
    rows = [{"question_id": a["question_id"], "text": a["prompt"]} for a in case["answers_jsonl"]]
    return BenchmarkFiles(write_lines(tmp_path / "llava_mme.jsonl", rows), str(tmp_path / "release"))


@step("llava_base", "mme")
def test_mme_files_and_printed_scores(case, tmp_path):
    questions = mme.FORMAT.read(write_mme(case, tmp_path))
    texts = [answer["text"] for answer in case["answers_jsonl"]]
    upload = mme.FORMAT.upload(questions, texts)
    assert {name: content.decode() for name, content in upload.items()} == case["converted_txt"]
    results = {name.removesuffix(".txt"): content for name, content in case["converted_txt"].items()}
    assert "\n".join(released.mme_lines(results)) + "\n" == case["stdout"]


@step("llava_base", "mme")
def test_mme_measures_are_the_printed_scores(case, tmp_path):
    files = write_mme(case, tmp_path)
    questions = mme.FORMAT.read(files)
    measures = measured(mme.FORMAT, questions, [answer["text"] for answer in case["answers_jsonl"]])
    perception, cognition = (
        float(line.split(":")[1]) for line in case["stdout"].splitlines() if line.startswith("total score")
    )
    assert value(measures, "perception") == pytest.approx(perception, abs=1e-9)
    assert value(measures, "cognition") == pytest.approx(cognition, abs=1e-9)
    assert value(measures, "total") == pytest.approx(perception + cognition, abs=1e-9)
    for line in case["stdout"].splitlines():
        if line.startswith("\t"):
            task, score = line.split(" score:")
            assert value(measures, "score", task.strip()) == pytest.approx(float(score), abs=1e-9)


@step("llava_base", "mme")
def test_mme_annotations_in_the_layout_of_the_evaluation_tool(case, tmp_path):
    directory = tmp_path / "Your_Results"
    directory.mkdir()
    for name, content in case["converted_txt"].items():
        (directory / name).write_text(content, encoding="utf-8")
    released_layout = mme.FORMAT.read(files := write_mme(case, tmp_path))
    assert mme.FORMAT.read(BenchmarkFiles(files.questions, str(directory))) == released_layout


@step("llava_base", "mme")
def test_mme_parser_and_metric(case):
    for found in case["parse_pred_ans"]:
        assert mme.parse_answer(found["pred"]) == found["label"], found
    for found in case["compute_metric"]:
        if "error" in found:
            with pytest.raises(ValueError) as caught:
                released.mme_metric(found["gts"], found["preds"])
            assert repr(caught.value) == found["error"]
        else:
            assert released.mme_metric(found["gts"], found["preds"]) == pytest.approx(found["out"], abs=1e-9)


@step("llava_base", "mme")
def test_a_task_of_mme_with_unclear_answers_only_scores_zero(case, tmp_path):
    questions = mme.FORMAT.read(write_mme(case, tmp_path))
    measures = measured(mme.FORMAT, questions, ["Maybe" for _ in questions])
    assert value(measures, "total") == 0.0


# --- ScienceQA


def read_scienceqa(case, tmp_path):
    problems = write_json(tmp_path / "problems.json", case["problems"])
    write_json(tmp_path / "pid_splits.json", case["pid_splits"])
    return scienceqa.FORMAT.read(BenchmarkFiles(problems))


@step("llava_base", "scienceqa")
def test_scienceqa_prints_and_writes_what_was_recorded(case):
    line, output, result = released.scienceqa_evaluation(
        case["problems"], case["pid_splits"]["test"], case["predictions"]
    )
    assert f"{line}\n" == case["stdout"]
    assert output == case["output"]
    assert result == case["result"]


@step("llava_base", "scienceqa")
def test_scienceqa_measures(case, tmp_path):
    questions = read_scienceqa(case, tmp_path)
    given = {row["question_id"]: row["text"] for row in case["predictions"]}
    texts = [given.get(question.question_id) for question in questions]
    judgements = scienceqa.FORMAT.judge(questions, texts, "llava")
    indices = {
        question.question_id: -1 if judgement.parsed is None else LETTERS.index(judgement.parsed)
        for question, judgement in zip(questions, judgements, strict=True)
    }
    assert indices == case["result"]["results"]
    measures = measured(scienceqa.FORMAT, questions, texts)
    assert value(measures, "accuracy") == pytest.approx(case["result"]["acc"], abs=1e-9)
    # The script leaves an unanswered question out of the accuracy of images; the format counts it as wrong.
    shown = [row for rows in case["output"].values() for row in rows if row["is_multimodal"]]
    unanswered = sum(bool(question.images) and question.question_id not in given for question in questions)
    right = sum(row["is_multimodal"] for row in case["output"]["correct"])
    corrected = 100 * right / (len(shown) + unanswered)
    assert value(measures, "accuracy_image") == pytest.approx(corrected, abs=1e-9)


@step("llava_base", "scienceqa_convert")
def test_scienceqa_question_files(case):
    for prompt_format, expected in case["out"].items():
        problems = case["problems"]
        assert [llava_record(i, problems[i], prompt_format) for i in case["pid_splits"]["test"]] == expected


@step("llava_base", "scienceqa_convert")
def test_scienceqa_reads_the_same_questions_from_both_files(case, tmp_path):
    direct = read_scienceqa(case, tmp_path)
    records = write_json(tmp_path / "llava_test_CQM-A.json", case["out"]["CQM-A"])
    assert scienceqa.FORMAT.read(BenchmarkFiles(records, str(tmp_path))) == direct
    for question, record in zip(direct, case["out"]["CQM-A"], strict=True):
        assert question.images == ((record["image"],) if "image" in record else ())
        assert question.turns[0][1].startswith("<image>\nContext: " if question.images else "Context: ")


# --- POPE


def read_pope(case, tmp_path):
    directory = tmp_path / "coco"
    directory.mkdir()
    for category, labels in case["labels"].items():
        write_lines(directory / f"coco_pope_{category}.json", [{"label": label} for label in labels])
    return pope.FORMAT.read(BenchmarkFiles(write_lines(tmp_path / "q.jsonl", case["questions"]), str(directory)))


def pope_blocks(stdout):
    blocks = [block.splitlines() for block in stdout.split(released.SPLIT_LINE + "\n") if block]
    return {block[0].split(",")[0].removeprefix("Category: "): block for block in blocks}


def pope_texts(case, category):
    of_category = {q["question_id"] for q in case["questions"] if q["category"] == category}
    return [answer["text"] for answer in case["answers"] if answer["question_id"] in of_category]


@step("llava_base", "pope")
def test_pope_prints_what_was_recorded(case):
    blocks = pope_blocks(case["stdout"])
    assert set(blocks) == set(case["labels"])
    for category, labels in case["labels"].items():
        lines = released.pope_lines(category, pope_texts(case, category), labels)
        assert lines == [*blocks[category], released.SPLIT_LINE]


@step("llava_base", "pope")
def test_pope_measures_are_the_printed_numbers(case, tmp_path):
    questions = read_pope(case, tmp_path)
    texts = {category: iter(pope_texts(case, category)) for category in case["labels"]}
    measures = measured(pope.FORMAT, questions, [next(texts[question.category]) for question in questions])
    printed = {"f1": "F1 score", "accuracy": "Accuracy", "precision": "Precision", "recall": "Recall"}
    printed |= {"yes_ratio": "Yes ratio"}
    for name, title in printed.items():
        numbers = []
        for category, block in pope_blocks(case["stdout"]).items():
            numbers.append(next(float(line.split(": ")[1]) for line in block if line.startswith(title)))
            assert value(measures, name, category) / 100 == pytest.approx(numbers[-1], abs=1e-12)
        assert value(measures, name) / 100 == pytest.approx(np.mean(numbers), abs=1e-12)


@step("llava_base", "pope")
def test_pope_without_a_yes_is_an_error_there_and_zero_here(case, tmp_path):
    with pytest.raises(ZeroDivisionError):
        released.pope_lines("random", ["No"] * len(case["labels"]["random"]), case["labels"]["random"])
    questions = read_pope(case, tmp_path)
    assert value(measured(pope.FORMAT, questions, ["No" for _ in questions]), "f1") == 0.0


# --- A-OKVQA


def read_aokvqa(rows, tmp_path):
    return aokvqa.FORMAT.read(BenchmarkFiles(write_json(tmp_path / "aokvqa.json", rows)))


def aokvqa_measures(rows, predictions, tmp_path):
    questions = read_aokvqa(rows, tmp_path)
    return measured(aokvqa.FORMAT, questions, [predictions.get(q.extra["question_id"]) for q in questions])


@step("mllm_dataengine", "aokvqa_metric")
def test_aokvqa_metric(case, tmp_path):
    for found in case["cases"]:
        measures = aokvqa_measures(case["dataset"], found["predictions"], tmp_path)
        assert value(measures, "multiple_choice") == pytest.approx(found["MC"], abs=1e-9)
        assert value(measures, "direct_answer") == pytest.approx(found["DA"], abs=1e-9)


def scripted_answers(case):
    """Answers of a model whose loss is least for the scripted option."""
    answers = {}
    for row in case["val"]:
        scripted = case["scripted_choice_index"][row["question"]]
        losses = [float(place != scripted) for place in range(len(row["choices"]))]
        answers[str(row["question_id"])] = answer_of_least_loss(row, losses)
    return answers


@step("mllm_dataengine", "aokvqa_eval_badcases_weights_v1")
def test_bad_cases_and_weights_as_released(case, tmp_path):
    answers = scripted_answers(case)
    rows = evaluated_rows(case["val"], answers, released=True)
    assert rows == case["aokvqa_eval"]
    assert bad_cases(case["val"], answers, released=True) == case["bad_case_classified"]
    assert type_weights(case["val"], answers, released=True) == case["weight"]
    predictions = {str(row["idx"]): released.aokvqa_answer(row["model_answer"]) for row in rows}
    measures = aokvqa_measures(case["val"], predictions, tmp_path)
    assert value(measures, "multiple_choice") == pytest.approx(case["metrics"]["MC"], abs=1e-9)
    assert value(measures, "direct_answer") == pytest.approx(case["metrics"]["DA"], abs=1e-9)


@step("mllm_dataengine", "aokvqa_eval_badcases_weights_v1")
def test_scored_texts(case):
    seen = case["prompt_suffix_seen"]
    prompts = [loss_prompt(row) for row in case["val"]]
    assert any(prompt.endswith(seen) for prompt in prompts)
    row = case["val"][0]
    assert option_texts(row)[1] == f"(B) {row['choices'][1]}"


@step("mllm_dataengine", "aokvqa_eval_badcases_weights_v1")
def test_all_rows_are_evaluated_by_default(case):
    answers = scripted_answers(case)
    rows = evaluated_rows(case["val"], answers)
    assert {row["idx"] for row in rows} == {row["question_id"] for row in case["val"]}
    assert len(rows) == len(case["aokvqa_eval"]) + 1
    weights, pools = type_weights(case["val"], answers), bad_cases(case["val"], answers)
    counts = {name: sum(row["question_type"] == name for row in rows) for name in weights}
    for name, weight in weights.items():
        assert math.isclose(weight * counts[name], len(pools[name]))


# --- Q-Bench


@step("sq_llava", "qbench")
def test_qbench_prints_what_was_recorded(case):
    content = "".join(json.dumps(row) for row in case["rows"])
    assert released.qbench_rows(content) == case["rows"]
    assert "\n".join(released.qbench_lines(case["rows"])) + "\n" == case["stdout"]


@step("sq_llava", "qbench")
def test_qbench_accuracy_is_the_printed_fraction(case, tmp_path):
    rows = [{**row, "img_path": "a.jpg", "question": "q"} for row in case["rows"]]
    questions = qbench.FORMAT.read(BenchmarkFiles(write_json(tmp_path / "q.json", rows)))
    measures = measured(qbench.FORMAT, questions, [row["response"] for row in case["rows"]])
    assert value(measures, "accuracy") / 100 == pytest.approx(float(case["stdout"].split()[-1]), abs=1e-12)
