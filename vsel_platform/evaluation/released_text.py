"""Free-text evaluation as released: LLaVA's scripts, the VQA evaluators around it, GQA's and MiniGPT's.

Kept for comparison; the quirk of each is described at its function. LLaVA is commit c121f04, MiniGPT that of
MLLM-DataEngine commit 7d5abb6, GQA's script the variant that does without scene graphs and choices.
"""

import json
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from vsel_platform.errors import DataError
from vsel_platform.evaluation.formats.gqa import reasoning_steps, submitted
from vsel_platform.evaluation.formats.textvqa import question_of_prompt
from vsel_platform.evaluation.vqa_normalise import (
    normalise_answer,
    normalised_accuracy,
    one_line,
    replace_punctuation,
    replace_words,
)

VqaEvaluator = Literal["official", "lavis", "lmms_eval"]
Answer = Mapping[str, Any]
Pair = tuple[float, float]

FAILED_JUDGE: Pair = (-1, -1)
_MATCHES_FOR_FULL_SCORE = 3
_DECIMALS = 2


def released_vqa_accuracy(answers: Sequence[Answer], prediction: str, evaluator: VqaEvaluator) -> float:
    """Accuracy of one answer in [0, 1]; `answers` are entries `{answer, answer_id, ...}` of the annotators.

    The others are those whose entries differ, so that without `answer_id` equal answers drop out together. official:
    normalised only if the annotators disagree, case does not count. lavis: the prediction is always normalised, the
    annotations only lose their punctuation, and only if they differ. lmms_eval: both always, but the prediction once
    more than the annotations.
    """
    entries = [dict(answer) for answer in answers]
    if evaluator != "lavis":
        for entry in entries:
            entry["answer"] = one_line(entry["answer"])
    differ = len({entry["answer"] for entry in entries}) > 1
    found = normalise_answer(prediction) if evaluator == "lmms_eval" else one_line(prediction)
    if differ or evaluator != "official":
        found = replace_words(replace_punctuation(found))
    if differ or evaluator == "lmms_eval":
        for entry in entries:
            text = replace_punctuation(entry["answer"])
            entry["answer"] = text if evaluator == "lavis" else replace_words(text)
    case: Callable[[str], str] = str.lower if evaluator == "official" else str
    scores = []
    for entry in entries:
        others = [other for other in entries if other != entry]
        matches = sum(case(other["answer"]) == case(found) for other in others)
        scores.append(min(1.0, matches / _MATCHES_FOR_FULL_SCORE))
    return statistics.mean(scores) if evaluator == "lmms_eval" else sum(scores) / len(scores)


def released_vqa_evaluation(
    annotations: Sequence[Mapping[str, Any]], results: Sequence[Mapping[str, Any]], evaluator: VqaEvaluator
) -> dict[str, Any]:
    """`{accuracy: {overall, perQuestionType, perAnswerType}, evalQA}` in percent, rounded to two decimals.

    Raises KeyError if an annotated question has no result.
    """
    predictions = {result["question_id"]: result["answer"] for result in results}
    scores = [released_vqa_accuracy(a["answers"], predictions[a["question_id"]], evaluator) for a in annotations]
    by_type: dict[str, dict[str, list[float]]] = {"question_type": defaultdict(list), "answer_type": defaultdict(list)}
    for annotation, score in zip(annotations, scores, strict=True):
        for key, groups in by_type.items():
            groups[annotation[key]].append(score)
    split = {key: {name: _percent(found) for name, found in groups.items()} for key, groups in by_type.items()}
    return {
        "accuracy": {
            "overall": _percent(scores),
            "perQuestionType": split["question_type"],
            "perAnswerType": split["answer_type"],
        },
        "evalQA": {
            str(annotation["question_id"]): round(100 * score, _DECIMALS)
            for annotation, score in zip(annotations, scores, strict=True)
        },
    }


def _percent(scores: Sequence[float]) -> float:
    return round(100 * float(sum(scores)) / len(scores), _DECIMALS)


def released_gqa_report(questions: Mapping[str, Mapping[str, Any]], predictions: Sequence[Mapping[str, Any]]) -> str:
    """Score lines that GQA's evaluation prints without scene graphs and choices.

    Predictions are compared as they are; validity and plausibility are 0 without the choices, and the distribution
    (chi-square of the answers within groups of questions, weighted by group size) is divided by 100. Raises DataError
    if a balanced question has no prediction, ZeroDivisionError if no balanced question has a group.
    """
    answers = {prediction["questionId"]: prediction["prediction"] for prediction in predictions}
    balanced = {key: question for key, question in questions.items() if question["isBalanced"]}
    for key in balanced:
        if key not in answers:
            raise DataError(f"no prediction for question {key}; give a prediction for all balanced questions")
    correct = {key: float(answers[key] == question["answer"]) for key, question in balanced.items()}
    is_open = {key: question["types"]["structural"] == "query" for key, question in balanced.items()}
    lines = [
        f"Binary: {_mean(correct[key] for key in balanced if not is_open[key]):.2f}%",
        f"Open: {_mean(correct[key] for key in balanced if is_open[key]):.2f}%",
        f"Accuracy: {_mean(correct.values()):.2f}%",
        "Validity: 0.00%",
        "Plausibility: 0.00%",
        f"Distribution: {_distribution(balanced, answers):.2f} (lower is better)",
    ]
    splits: dict[str, Callable[[Mapping[str, Any]], Any]] = {
        "structural type": lambda question: question["types"]["structural"],
        "semantic type": lambda question: question["types"]["semantic"],
        "steps number": lambda question: reasoning_steps(question["semantic"]),
        "words number": lambda question: len(question["question"].split()),
    }
    for title, group_of in splits.items():
        groups = defaultdict(list)
        for key, question in balanced.items():
            groups[group_of(question)].append(correct[key])
        lines += ["", f"Accuracy / {title}:"]
        lines += [f"  {name}: {_mean(groups[name]):.2f}% ({len(groups[name])} questions)" for name in sorted(groups)]
    return "\n".join(lines) + "\n"


def _mean(scores: Iterable[float]) -> float:
    found = list(scores)
    return 100 * float(sum(found)) / len(found) if found else 0.0


def _distribution(questions: Mapping[str, Mapping[str, Any]], answers: Mapping[str, str]) -> float:
    gold: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    found: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for key, question in questions.items():
        group = question["groups"]["global"]
        if group is not None:
            gold[group][question["answer"]] += 1
            found[group][answers[key]] += 1
    total, weight = 0.0, 0
    for group, expected in gold.items():
        size = sum(expected.values())
        total += size * sum((found[group].get(answer, 0) - n) ** 2 / n for answer, n in expected.items())
        weight += size
    return total / weight / 100


def released_textvqa_pairs(
    annotations: Sequence[Mapping[str, Any]], results: Sequence[Mapping[str, Any]]
) -> list[tuple[str, list[str]]]:
    """(answer, right answers) of every result, joined by image and lower-case question of the prompt.

    Raises KeyError for an unknown question, DataError for a prompt of another form.
    """
    known = {(annotation["image_id"], annotation["question"].lower()): annotation for annotation in annotations}
    return [
        (result["text"], known[(result["question_id"], question_of_prompt(result["prompt"]))]["answers"])
        for result in results
    ]


def released_textvqa_report(name: str, pairs: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Lines that LLaVA prints. Unanswered questions are no results and do not count."""
    accuracy = _average([normalised_accuracy(text, answers) for text, answers in pairs])
    return f"{name}\nSamples: {len(pairs)}\nAccuracy: {100.0 * accuracy:.2f}%\n\n"


def _average(scores: Sequence[float]) -> float:
    """Sum in order over the number, as the released code rounds it. Raises ZeroDivisionError for none."""
    return sum(scores) / len(scores)


def released_stvqa_accuracy(pairs: Sequence[tuple[str, Sequence[str]]]) -> float:
    """Share of answers that equal any right answer after normalisation."""
    return _average(
        [float(normalise_answer(text) in {normalise_answer(answer) for answer in answers}) for text, answers in pairs]
    )


def released_vizwiz_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """MiniGPT's VizWiz accuracy in [0, 1]: annotators with the same text in any case / 3, at most 1.

    Nothing is stripped or normalised, and answers are joined by "_" and split again: one with "_" becomes two.
    """
    split = "_".join(answers).split("_")
    return min(sum(answer.lower() == prediction.lower() for answer in split) / _MATCHES_FOR_FULL_SCORE, 1.0)


def released_vqav2_upload(lines: Sequence[str], test_ids: Sequence[Any]) -> tuple[list[dict[str, Any]], str]:
    """Upload for VQAv2 and what is printed: every test id in its order, "" if unanswered; broken lines are counted."""
    results, errors = [], 0
    for line in lines:
        try:
            results.append(json.loads(line))
        except ValueError:
            errors += 1
    texts = {result["question_id"]: result["text"] for result in results}
    upload = [
        {"question_id": test_id, "answer": normalise_answer(texts[test_id]) if test_id in texts else ""}
        for test_id in test_ids
    ]
    return upload, f"total results: {len(texts)}, total split: {len(test_ids)}, error_line: {errors}\n"


def released_vizwiz_upload(
    results: Sequence[Mapping[str, Any]], test: Sequence[tuple[Any, str]]
) -> list[dict[str, str]]:
    """Upload for VizWiz; `test` are (question id, image). Raises DataError if a question has no answer."""
    texts = {result["question_id"]: result["text"] for result in results}
    missing = [question_id for question_id, _ in test if question_id not in texts]
    if missing:
        raise DataError(f"question {missing[0]} has no answer; every question of the test file needs one")
    return [{"image": image, "answer": normalise_answer(texts[question_id])} for question_id, image in test]


def released_gqa_predictions(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Input of GQA's evaluation: answers without trailing dots, in lower case."""
    return [{"questionId": r["question_id"], "prediction": submitted(r["text"])} for r in results]


def released_mmvet_upload(results: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Input of MM-Vet's judge."""
    return {f"v1_{result['question_id']}": result["text"] for result in results}


def released_judge_scores(review: str) -> Pair:
    """Two scores from the first line of a judge's reply, (-1, -1) if it is not two numbers.

    Commas become blanks and the line is split at single blanks, so that "8, 9" fails.
    """
    parts = review.split("\n", maxsplit=1)[0].replace(",", " ").split(" ")
    try:
        return (float(parts[0]), float(parts[1])) if len(parts) == 2 else FAILED_JUDGE
    except ValueError:
        return FAILED_JUDGE


def released_llava_bench_report(name: str, reviews: Sequence[Mapping[str, Any]]) -> str:
    """Lines of LLaVA-Bench: category, 100 * mean second / mean first score, ten times the mean first and second.

    Replies that could not be read enter the means as -1.
    """
    groups: dict[str, list[Sequence[float]]] = defaultdict(list)
    for review in reviews:
        pair = review["tuple"] if "tuple" in review else review["score"]
        groups["all"].append(pair)
        if "category" in review:
            groups[review["category"]].append(pair)
    lines = [name]
    for group, pairs in sorted(groups.items()):
        first, second = (round(_average([pair[i] for pair in pairs]), 3) for i in (0, 1))
        lines.append(f"{group} {round(second / first * 100, 1)} {round(first * 10, 1)} {round(second * 10, 1)}")
    return "\n".join([*lines, "=" * 33]) + "\n"


def judge_scores(review: str) -> Pair | None:
    """Corrected `released_judge_scores`: any blanks and commas between the two numbers; None if there are none."""
    parts = review.split("\n", maxsplit=1)[0].replace(",", " ").split()
    try:
        return (float(parts[0]), float(parts[1])) if len(parts) == 2 else None
    except ValueError:
        return None


def relative_score(pairs: Sequence[Pair | None]) -> float | None:
    """Corrected score of LLaVA-Bench: 100 * mean second / mean first over the replies that could be read."""
    known = [pair for pair in pairs if pair is not None]
    first = sum(pair[0] for pair in known)
    return 100 * sum(pair[1] for pair in known) / first if first else None
