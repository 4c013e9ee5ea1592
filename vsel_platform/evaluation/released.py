"""What the evaluation scripts of the released systems print and write, their quirks included.

Kept for comparison with published logs; the benchmark formats hold the corrected metrics. Sources: LLaVA c121f04,
MLLM-DataEngine 7d5abb6 and e4fb0f6, SQ-LLaVA e4baa2f, the official MME evaluation tool, lmms-eval 75571cf;
benchmark specification, section 5.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from vsel_platform.evaluation.formats.choices import LETTERS
from vsel_platform.evaluation.formats.mme import COGNITION, PERCEPTION, parse_answer
from vsel_platform.evaluation.formats.pope import parse_answer as parse_pope
from vsel_platform.evaluation.formats.qbench import is_right
from vsel_platform.evaluation.formats.scienceqa import N_OPTIONS
from vsel_platform.evaluation.formats.scienceqa import parse_answer as parse_scienceqa

SeedRule = Literal["letter", "first_character"]
MMBENCH_ABBREVIATIONS = {
    "coarse_perception": "CP",
    "finegrained_perception (instance-level)": "FP-S",
    "finegrained_perception (cross-instance)": "FP-C",
    "logic_reasoning": "LR",
    "relation_reasoning": "RR",
    "attribute_reasoning": "AR",
}
"""Names of the l2-categories in VLMEvalKit's report."""
SPLIT_LINE = "===================================="
_LMMS_EVAL_LETTERS = "ABCDE"
_LMMS_EVAL_FORMS = (
    "{}.", "{},", "{}:", "{})", "{}).", "({})", "({}).", ":{}", ":{},", ":{}.", ":{})", ":{}).",
)  # fmt: skip

Entry = Mapping[str, Any]


def seed_bench_lines(
    annotation: Entry, answers: Sequence[Entry], *, rule: SeedRule = "letter", kinds: Sequence[str] = ("image", "video")
) -> list[str]:
    """Printed accuracies of `convert_seed_for_submission.py`: every type, total, then each of `kinds`.

    LLaVA: rule letter, images and videos. MLLM-DataEngine: images only. MiniGPT4-v2: rule first_character, images
    only. Of several answers to a question the last counts. Raises KeyError with the id of a type whose questions all
    have answers and none a right one, ZeroDivisionError for a kind without questions.
    """
    names = {number: name for name, number in annotation["question_type"].items()}
    shares, total = _seed_accuracies(annotation["questions"], answers, rule)
    lines = [f"{names[number]}: {share:.2f}%" for number, share in shares.items()]
    lines.append(f"Total accuracy: {total:.2f}%")
    for kind in kinds:
        inside = [question for question in annotation["questions"] if question["data_type"] == kind]
        lines.append(f"{kind} accuracy: {_seed_accuracies(inside, answers, rule)[1]:.2f}%")
    return lines


def seed_bench_metrics(annotation: Entry, answers: Sequence[Entry]) -> dict[str, float]:
    """`metrics.json` of MLLM-DataEngine [percent]: the image-only call overwrites that of all types."""
    images = [question for question in annotation["questions"] if question["data_type"] == "image"]
    return {"image": round(_seed_accuracies(images, answers, "letter")[1], 3)}


def seed_bench_upload(annotation: Entry, answers: Sequence[Entry]) -> list[dict[str, Any]]:
    """Lines of the upload file. An unanswered question raises KeyError, or ValueError if its id is no number."""
    results = {row["question_id"]: row for row in answers}
    found = []
    for question in annotation["questions"]:
        question_id = question["question_id"]
        row = results[question_id] if question_id in results else results[int(question_id)]
        found.append({"question_id": question_id, "prediction": row["text"]})
    return found


def _seed_accuracies(
    questions: Sequence[Entry], answers: Sequence[Entry], rule: SeedRule
) -> tuple[dict[Any, float], float]:
    results = {row["question_id"]: row["text"] for row in answers}
    counts: dict[Any, int] = {}
    right: dict[Any, int] = {}
    for question in questions:
        number = question["question_type_id"]
        counts[number] = counts.get(number, 0) + 1
        question_id = question["question_id"]
        key = int(question_id) if str(question_id).isdecimal() else question_id
        if key not in results:
            right.setdefault(number, 0)
        elif _seed_right(results[key], question["answer"], rule):
            right[number] = right.get(number, 0) + 1
    shares = {number: right[number] / counts[number] * 100 for number in sorted(counts)}
    return shares, sum(right[number] for number in counts) / sum(counts.values()) * 100


def _seed_right(text: str, answer: str, rule: SeedRule) -> bool:
    return text == answer if rule == "letter" else text[:1].lower() == answer.lower()


def mme_metric(truths: Sequence[str], predictions: Sequence[str]) -> dict[str, float]:
    """Counts, precision, recall and accuracy of one task; labels yes, no and (predictions only) other.

    "other" counts in the accuracy as wrong and in nothing else. Raises ValueError if all predictions are "other".
    """
    pairs = list(zip(truths, predictions, strict=True))
    tp, fn, tn, fp = (pairs.count(pair) for pair in (("yes", "yes"), ("yes", "no"), ("no", "no"), ("no", "yes")))
    if tp + fn + tn + fp == 0:
        raise ValueError(
            "Found empty input array (e.g., `y_true` or `y_pred`) while a minimum of 1 sample is required."
        )
    return {
        "TP": tp,
        "FN": fn,
        "TN": tn,
        "FP": fp,
        "precision": tp / (tp + fp) if tp + fp else 0.0,
        "recall": tp / (tp + fn) if tp + fn else 0.0,
        "other_num": list(predictions).count("other"),
        "acc": (tp + tn) / len(pairs),
    }


def mme_lines(results: Mapping[str, str]) -> list[str]:
    """Printed scores of `calculation.py` for the text of every task's file (image, question, answer, prediction).

    Consecutive lines belong to one image. Raises KeyError for a missing task and the errors of `mme_metric`.
    """
    lines = []
    for title, tasks in (("Perception", PERCEPTION), ("Cognition", COGNITION)):
        scores = {task: _mme_score(results[task].splitlines()) for task in tasks}
        total: float = 0
        for score in scores.values():
            total += score
        lines += [f"=========== {title} ===========", f"total score: {total} ", ""]
        lines += [*(f"\t {task}  score: {score}" for task, score in scores.items()), "", ""]
    return lines


def _mme_score(lines: Sequence[str]) -> float:
    rows = [line.split("\t") for line in lines]
    truths = [row[2].lower() for row in rows]
    predictions = [parse_answer(row[3]) for row in rows]
    right = [truth == prediction for truth, prediction in zip(truths, predictions, strict=True)]
    pairs = [all(right[place : place + 2]) for place in range(0, len(right), 2)]
    return mme_metric(truths, predictions)["acc"] * 100 + sum(pairs) / len(pairs) * 100


def mmbench_rounds(options: Sequence[str]) -> list[tuple[list[str], list[str]]]:
    """(options shown, their original letters) of every round of `--all-rounds`: rotated left once more each time.

    The table of 2023-07-12 holds the rotations as rows already, so all rounds rotate them again.
    """
    letters = list(LETTERS[: len(options)])
    return [([*options[turn:], *options[:turn]], [*letters[turn:], *letters[:turn]]) for turn in range(len(options))]


def lmms_eval_option(text: str, options: Mapping[str, str]) -> str | None:
    """Letter that lmms-eval's older matcher reads: the only letter A to E alone, else in one of some forms, else the
    only option whose text is contained. An "A" among more than three words is taken for an article.
    """
    words = text.split()
    alone = [letter for letter in _LMMS_EVAL_LETTERS if letter in words]
    if len(alone) == 1 and not ("A" in words and len(words) > 3):
        return alone[0]
    for form in _LMMS_EVAL_FORMS:
        found = [letter for letter in _LMMS_EVAL_LETTERS if form.format(letter) in words]
        if len(found) == 1:
            return found[0]
    contained = [letter for letter, option in options.items() if option.lower() in text.lower()]
    return contained[0] if len(contained) == 1 else None


def scienceqa_evaluation(
    problems: Mapping[str, Entry], ids: Sequence[str], predictions: Sequence[Entry]
) -> tuple[str, dict[str, list[dict[str, Any]]], dict[str, Any]]:
    """Printed line, output file and result file of `eval_science_qa.py`.

    A question without prediction counts as text-only. Raises ZeroDivisionError if no prompt has an image.
    """
    given = {row["question_id"]: row for row in predictions}
    output: dict[str, list[dict[str, Any]]] = {"correct": [], "incorrect": []}
    indices, texts = {}, {}
    for problem_id in ids:
        row = given.get(problem_id, {"text": "FAILED", "prompt": "Unknown"})
        problem = problems[problem_id]
        parsed = parse_scienceqa(row["text"]) or "FAILED"
        letters = LETTERS[: min(N_OPTIONS, len(problem["choices"]))]
        indices[problem_id] = letters.index(parsed) if len(parsed) == 1 and parsed in letters else -1
        texts[problem_id] = row["text"]
        analysis = {
            "question_id": problem_id,
            "parsed_ans": parsed,
            "ground_truth": LETTERS[problem["answer"]],
            "question": row["prompt"],
            "pred": row["text"],
            "is_multimodal": "<image>" in row["prompt"],
        }
        output["correct" if indices[problem_id] == problem["answer"] else "incorrect"].append(analysis)
    right, total = len(output["correct"]), len(ids)
    shown = {name: sum(row["is_multimodal"] for row in rows) for name, rows in output.items()}
    image_accuracy = shown["correct"] / sum(shown.values()) * 100
    accuracy = right / total * 100
    line = f"Total: {total}, Correct: {right}, Accuracy: {accuracy:.2f}%, IMG-Accuracy: {image_accuracy:.2f}%"
    return line, output, {"acc": accuracy, "correct": right, "count": total, "results": indices, "outputs": texts}


def pope_lines(category: str, texts: Sequence[str], labels: Sequence[str]) -> list[str]:
    """Printed lines of `eval_pope.py` for one category; answers and labels belong together by their order.

    Raises ZeroDivisionError if no answer means yes, or none rightly.
    """
    predictions = [parse_pope(text) for text in texts]
    pairs = [(label == "no", prediction == "no") for label, prediction in zip(labels, predictions, strict=False)]
    tp, fp, tn, fn = (pairs.count(pair) for pair in ((False, False), (True, False), (True, True), (False, True)))
    precision, recall = tp / (tp + fp), tp / (tp + fn)
    f1 = 2 * precision * recall / (precision + recall)
    accuracy, yes_ratio = (tp + tn) / (tp + tn + fp + fn), predictions.count("yes") / len(predictions)
    return [
        f"Category: {category}, # samples: {len(texts)}",
        "TP\tFP\tTN\tFN\t",
        f"{tp}\t{fp}\t{tn}\t{fn}",
        f"Accuracy: {accuracy}",
        f"Precision: {precision}",
        f"Recall: {recall}",
        f"F1 score: {f1}",
        f"Yes ratio: {yes_ratio}",
        f"{f1:.3f}, {accuracy:.3f}, {precision:.3f}, {recall:.3f}, {yes_ratio:.3f}",
        SPLIT_LINE,
    ]


def aokvqa_answer(text: str) -> str:
    """Answer as MLLM-DataEngine scores it: up to the first period, in lower case; options are not changed alike."""
    return text.split(".", maxsplit=1)[0].lower()


def qbench_rows(content: str) -> list[dict[str, Any]]:
    """Objects of the answer file, which the released writer puts one after another without line breaks."""
    return [json.loads(line) for line in content.replace("}{", "}\n{").splitlines()]


def qbench_lines(rows: Sequence[Entry]) -> list[str]:
    """Printed lines of `qbench_eval.py`: decoration, right answers and rows, their ratio."""
    right = float(sum(is_right(row["response"], row["candidates"], row["correct_ans"]) for row in rows))
    return ["#" * 50, f"{right} {float(len(rows))}", f"{right / len(rows)}"]
