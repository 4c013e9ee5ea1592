"""Free-text evaluation against recorded runs of the released code; beside its quirks what happens here instead."""

import json

import numpy as np
import pytest
from parity_cases import step_dir

from vsel_platform.errors import DataError, MissingPackageError
from vsel_platform.evaluation import released_text as released
from vsel_platform.evaluation.benchmark import BenchmarkFiles
from vsel_platform.evaluation.caption_scores import bleu, bleu_statistics, cider_d, rouge_l
from vsel_platform.evaluation.caption_tokens import PREDICTION_WORDS, REFERENCE_WORDS, pre_caption, ptb_tokens
from vsel_platform.evaluation.formats import captioning, gqa, textvqa, vizwiz, vqav2
from vsel_platform.evaluation.meteor import meteor, meteor_command, meteor_statistics
from vsel_platform.evaluation.vqa_normalise import (
    ARTICLES,
    CONTRACTIONS,
    NUMBER_WORDS,
    PUNCTUATION,
    clean_words,
    normalise_answer,
    normalised_accuracy,
    official_accuracy,
    replace_punctuation,
    replace_words,
)


def read(system, step, name="fixture.json"):
    return json.loads((step_dir(system, step) / name).read_text("utf-8"))


def step(system, name):
    """The recorded step, if the set of cases holds it."""
    present = (step_dir(system, name) / "fixture.json").is_file()
    return pytest.mark.parametrize("case", [pytest.param(read(system, name), id=f"{system}/{name}")] if present else [])


def cases(system, name, key=None):
    """Numbered cases of a recorded step."""
    if not (step_dir(system, name) / "fixture.json").is_file():
        return pytest.mark.parametrize("case", [])
    found = read(system, name)
    found = found if key is None else found[key]
    return pytest.mark.parametrize(
        "case", [pytest.param(case, id=f"{system}/{name}-{number}") for number, case in enumerate(found)]
    )


def in_file(folder, content, name):
    path = folder / name
    path.write_text(json.dumps(content), "utf-8")
    return str(path)


# --- answers


@step("llava_base", "vqa_answer_processor")
def test_normaliser(case):
    for row in case:
        assert clean_words(row["input"]) == row["word_tokenize"]
        assert replace_punctuation(row["input"]) == row["process_punctuation"]
        assert replace_words(row["input"]) == row["process_digit_article"]
        assert normalise_answer(row["input"]) == row["output"]


@step("llava_base", "vqa_answer_processor")
def test_normaliser_tables(case):
    tables = read("llava_base", "vqa_answer_processor", "tables.json")
    assert (tables["contractions"], tables["numbers"]) == (CONTRACTIONS, NUMBER_WORDS)
    assert set(tables["articles"]) == ARTICLES and list(PUNCTUATION) == tables["punctuation"]


@step("llava_base", "vqav2_accuracy")
def test_vqa_evaluators(case):
    annotations, results = case["annotations"], case["results"]
    assert released.released_vqa_evaluation(annotations, results, "official") == case["official"]
    assert released.released_vqa_evaluation(annotations, results, "lavis") == case["salesforce_variant"]
    per_item = [
        released.released_vqa_accuracy(annotation["answers"], result["answer"], "lmms_eval")
        for annotation, result in zip(annotations, results, strict=True)
    ]
    np.testing.assert_allclose(per_item, case["lmms_eval_per_item"], rtol=0, atol=1e-9)


@step("llava_base", "vqav2_accuracy")
def test_answers_without_ids_drop_out_together_as_released_but_not_here(case):
    annotations = [
        {**a, "answers": [{k: v for k, v in answer.items() if k != "answer_id"} for answer in a["answers"]]}
        for a in case["annotations"]
    ]
    found = released.released_vqa_evaluation(annotations, case["results"], "official")
    assert found == case["official_without_answer_id"]
    for annotation, result in zip(annotations, case["results"], strict=True):
        accuracy = official_accuracy(result["answer"], [answer["answer"] for answer in annotation["answers"]])
        assert round(100 * accuracy, 2) == case["official"]["evalQA"][str(annotation["question_id"])]


@step("llava_base", "vqav2_accuracy")
def test_vqav2_format_reaches_the_official_accuracies(case, tmp_path):
    questions = [
        {"question_id": a["question_id"], "image_id": 1, "question": "What is it?"} for a in case["annotations"]
    ]
    files = BenchmarkFiles(
        in_file(tmp_path, {"data_subtype": "val2014", "questions": questions}, "questions.json"),
        in_file(tmp_path, {"annotations": case["annotations"]}, "annotations.json"),
    )
    found = vqav2.FORMAT.read(files)
    texts = {str(result["question_id"]): result["answer"] for result in case["results"]}
    judgements = vqav2.FORMAT.judge(found, [texts[q.question_id] for q in found], "official")
    measures = {(m.name, m.group): m.estimate for m in vqav2.FORMAT.measures(found, judgements, "official")}
    expected = case["official"]["accuracy"]
    rounded = (
        {("accuracy", ""): expected["overall"]}
        | {("accuracy", name): value for name, value in expected["perAnswerType"].items()}
        | {("accuracy_by_question_type", name): value for name, value in expected["perQuestionType"].items()}
    )
    assert measures == pytest.approx(rounded, abs=0.00501)


@step("llava_base", "textvqa_accuracy")
def test_textvqa(case):
    pairs = [(p["pred_answer"], p["gt_answers"]) for p in case["pred_list"]]
    scores = [normalised_accuracy(text, answers) for text, answers in pairs]
    np.testing.assert_allclose(scores, case["per_item"], rtol=0, atol=1e-9)
    assert np.mean(scores) == pytest.approx(case["mean"], abs=1e-9)
    assert released.released_stvqa_accuracy(pairs) == pytest.approx(case["stvqa_acc"], abs=1e-9)
    joined = released.released_textvqa_pairs(case["annotations"]["data"], case["results"])
    name = case["stdout"].partition("\n")[0]
    assert released.released_textvqa_report(name, joined) == case["stdout"]


@step("llava_base", "textvqa_accuracy")
def test_textvqa_format(case, tmp_path):
    data = [{**a, "question_id": number} for number, a in enumerate(case["annotations"]["data"])]
    annotations = in_file(tmp_path, {"data": data}, "TextVQA_0.5.1_val.json")
    prompts = tmp_path / "ocr.jsonl"
    lines = [
        {"question_id": r["question_id"], "image": f"{r['question_id']}.jpg", "text": r["prompt"]}
        for r in case["results"]
    ]
    prompts.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    questions = textvqa.FORMAT.read(BenchmarkFiles(str(prompts), annotations))
    judgements = textvqa.FORMAT.judge(questions, [r["text"] for r in case["results"]], "llava")
    printed = float(case["stdout"].split("Accuracy: ")[1].split("%")[0])
    assert textvqa.FORMAT.measures(questions, judgements, "llava")[0].estimate == pytest.approx(printed, abs=0.00501)


@cases("mllm_dataengine", "vizwiz_minigpt")
def test_minigpt_vizwiz(case):
    found = released.released_vizwiz_accuracy(case["prediction"], case["answers"])
    assert found == pytest.approx(case["acc"], abs=1e-12)


@cases("mllm_dataengine", "vizwiz_minigpt")
def test_vizwiz_here_normalises_and_splits_no_answer(case, tmp_path):
    entry = {"image": "VizWiz_val_00000000.jpg", "question": "?", "answer_type": "other"}
    answers = [{"answer": answer, "answer_confidence": "yes"} for answer in case["answers"]]
    questions = vizwiz.FORMAT.read(BenchmarkFiles(in_file(tmp_path, [entry | {"answers": answers}], "val.json")))
    assert questions[0].answers == tuple(case["answers"])
    judged = vizwiz.FORMAT.judge(questions, [case["prediction"]], "robust")[0]
    matches = [normalise_answer(answer) for answer in case["answers"]].count(normalise_answer(case["prediction"]))
    assert (judged.score == 0) == (matches == 0)
    assert judged.score <= min(1, matches / 3)


# --- GQA


@step("llava_base", "gqa")
def test_gqa_report(case):
    assert released.released_gqa_report(case["questions"], case["predictions"]) == case["stdout"]


@step("llava_base", "gqa")
def test_gqa_missing_prediction_ends_the_released_evaluation_and_is_wrong_here(case, tmp_path):
    balanced = next(key for key, question in case["questions"].items() if question["isBalanced"])
    left = [p for p in case["predictions"] if p["questionId"] != balanced]
    with pytest.raises(DataError, match=balanced):
        released.released_gqa_report(case["questions"], left)
    questions, texts = gqa_questions(case, tmp_path)
    texts[balanced] = None
    judgements = gqa.FORMAT.judge(questions, [texts[q.question_id] for q in questions], "official")
    assert next(j.score for q, j in zip(questions, judgements, strict=True) if q.question_id == balanced) == 0.0


@step("llava_base", "gqa")
def test_gqa_format_reaches_the_printed_lines(case, tmp_path):
    questions, texts = gqa_questions(case, tmp_path)
    judgements = gqa.FORMAT.judge(questions, [texts[q.question_id] for q in questions], "official")
    lines = case["stdout"].splitlines()
    titles = {"structural": "structural type", "semantic": "semantic type", "steps": "steps number"}
    for measure in gqa.FORMAT.measures(questions, judgements, "official"):
        if not measure.group:
            assert f"{measure.name.capitalize()}: {np.nan_to_num(measure.estimate):.2f}%" in lines
            continue
        start = lines.index(f"Accuracy / {titles.get(measure.name[12:], 'words number')}:")
        block = lines[start + 1 : [*lines, ""].index("", start)]
        assert f"  {measure.group}: {measure.estimate:.2f}% ({measure.n_questions} questions)" in block


def gqa_questions(case, folder):
    """Questions read from the published form, which also names images, and recorded answers by id."""
    content = {key: {**question, "imageId": "n1"} for key, question in case["questions"].items()}
    questions = gqa.FORMAT.read(BenchmarkFiles(in_file(folder, content, "testdev_balanced_questions.json")))
    return questions, {p["questionId"]: p["prediction"] for p in case["predictions"]}


# --- uploads


@step("llava_base", "convert_for_submission")
def test_uploads(case):
    merged = case["merge"]
    lines = [json.dumps(line) for line in merged] + ['{"question_id": '] * bool(case["extra_broken_line"])
    upload, printed = released.released_vqav2_upload(lines, case["test_ids"])
    assert (upload, printed) == (case["vqav2_upload"], case["vqav2_stdout"])
    by_image = {f"{line['question_id']}.jpg": line["question_id"] for line in merged}
    test = [(by_image[row["image"]], row["image"]) for row in case["vizwiz_upload"]]
    assert released.released_vizwiz_upload(merged, test) == case["vizwiz_upload"]
    assert released.released_gqa_predictions(merged) == case["gqa"]
    assert released.released_mmvet_upload(merged) == case["mmvet"]


@step("llava_base", "convert_for_submission")
def test_an_image_without_answer_ends_the_vizwiz_upload_and_is_empty_here(case, tmp_path):
    ids = case["test_ids"]
    answered = {line["question_id"]: line["text"] for line in case["merge"]}
    if missing := set(ids) - answered.keys():
        with pytest.raises(DataError, match=str(min(missing))):
            released.released_vizwiz_upload(case["merge"], [(test_id, f"{test_id}.jpg") for test_id in sorted(missing)])
    content = [{"image": f"{test_id}.jpg", "question": "What?"} for test_id in ids]
    questions = vizwiz.FORMAT.read(BenchmarkFiles(in_file(tmp_path, content, "test.json")))
    upload = json.loads(vizwiz.FORMAT.upload(questions, [answered.get(i) for i in ids])["vizwiz_results.json"])
    by_image = {row["image"]: row["answer"] for row in case["vizwiz_upload"]}
    assert upload == [{"image": f"{i}.jpg", "answer": by_image.get(f"{i}.jpg", "")} for i in ids]


@step("llava_base", "convert_for_submission")
def test_vqav2_format_writes_the_recorded_upload(case, tmp_path):
    questions = [{"question_id": i, "image_id": 1, "question": "What?"} for i in case["test_ids"]]
    files = BenchmarkFiles(in_file(tmp_path, {"data_subtype": "test2015", "questions": questions}, "questions.json"))
    answered = {line["question_id"]: line["text"] for line in case["merge"]}
    upload = vqav2.FORMAT.upload(vqav2.FORMAT.read(files), [answered.get(i) for i in case["test_ids"]])
    assert json.loads(upload["vqav2_results.json"]) == case["vqav2_upload"]


# --- LLaVA-Bench


@step("llava_base", "llava_bench_summary")
def test_judge_replies_and_summary(case):
    for row in case["parse_score"]:
        assert list(released.released_judge_scores(row["review"])) == row["out"]
    name = case["stdout"].partition("\n")[0]
    assert released.released_llava_bench_report(name, case["reviews"]) == case["stdout"]


@step("llava_base", "llava_bench_summary")
def test_unreadable_replies_lower_the_released_score_but_not_the_corrected_one(case):
    for row in case["parse_score"]:
        if row["out"] != list(released.FAILED_JUDGE):
            assert list(released.judge_scores(row["review"])) == row["out"]
    pairs = [tuple(review["tuple"]) for review in case["reviews"]]
    readable = [pair for pair in pairs if pair != released.FAILED_JUDGE]
    corrected = released.relative_score([None if pair == released.FAILED_JUDGE else pair for pair in pairs])
    assert corrected == pytest.approx(100 * np.mean([p[1] for p in readable]) / np.mean([p[0] for p in readable]))
    printed = float(released.released_llava_bench_report("x", case["reviews"]).splitlines()[1].split()[1])
    assert (printed == pytest.approx(corrected, abs=0.1)) or len(readable) < len(pairs)


# --- captions


@step("sq_llava", "captioning")
def test_caption_texts(case):
    assert [pre_caption(text, PREDICTION_WORDS) for text in case["predictions"]] == case["pre_caption_predictions"]
    assert [[pre_caption(text, REFERENCE_WORDS) for text in group] for group in case["references"]] == case[
        "pre_caption_references"
    ]
    for row in case["pre_caption_cases"]:
        assert pre_caption(row["input"], row["max_words"]) == row["out"]
    assert [" ".join(ptb_tokens(text)) for text in case["pre_caption_predictions"]] == case["ptb_predictions"]
    assert [[" ".join(ptb_tokens(text)) for text in group] for group in case["pre_caption_references"]] == case[
        "ptb_references"
    ]


@step("sq_llava", "captioning")
def test_bleu_cider_and_rouge(case):
    captions = [text.split() for text in case["ptb_predictions"]]
    references = [[text.split() for text in group] for group in case["ptb_references"]]
    scores = case["scores"]
    sums = bleu_statistics(captions, references).sum(axis=0)
    np.testing.assert_allclose([bleu(sums, n) for n in (1, 2, 3, 4)], scores["coco_bleu"], rtol=0, atol=1e-6)
    assert bleu(sums, 4) == pytest.approx(scores["aac_bleu"]["bleu_4"], abs=1e-6)
    assert rouge_l(captions, references).mean() == pytest.approx(scores["coco_rouge_l"], abs=1e-6)
    per_image = cider_d(captions, references)
    np.testing.assert_allclose(per_image, scores["coco_cider_per"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(per_image, scores["aac_cider_d_per"], rtol=0, atol=1e-6)
    assert per_image.mean() == pytest.approx(scores["coco_cider"], abs=1e-6)
    assert per_image.mean() == pytest.approx(scores["aac_cider_d"]["cider_d"], abs=1e-6)


@step("sq_llava", "captioning")
def test_captioning_format_from_raw_texts(case, tmp_path):
    content = [{"image": f"{number}.jpg", "caption": captions} for number, captions in enumerate(case["references"])]
    questions = captioning.FORMAT.read(BenchmarkFiles(in_file(tmp_path, content, "flickr.json")))
    judgements = captioning.FORMAT.judge(questions, case["predictions"], "llava")
    found = {measure.name: measure.estimate for measure in captioning.FORMAT.measures(questions, judgements, "llava")}
    assert found["CIDEr"] == pytest.approx(100 * case["scores"]["coco_cider"], abs=1e-4)
    for n, value in enumerate(case["scores"]["coco_bleu"], start=1):
        assert found[f"BLEU-{n}"] == pytest.approx(100 * value, abs=1e-4)


@step("sq_llava", "captioning")
def test_meteor(case):
    try:
        meteor_command()
    except MissingPackageError as error:
        assert "pip install" in str(error) or "Java" in str(error)
        return
    sums = meteor_statistics(case["ptb_predictions"], case["ptb_references"])
    np.testing.assert_allclose(meteor(sums), case["scores"]["coco_meteor_per"], rtol=0, atol=1e-6)
    assert meteor(sums.sum(axis=0)) == pytest.approx(case["scores"]["coco_meteor"], abs=1e-6)
