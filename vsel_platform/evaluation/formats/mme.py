"""MME: 14 tasks of yes / no questions, two for every image.

The score of a task is 100 * (accuracy + accuracy_plus), accuracy_plus = images with both answers right; perception and
cognition are sums over tasks. Source: benchmark specification, section 5.3; LLaVA's `convert_answer_to_mme.py` and
`calculation.py` of the official evaluation tool.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from vsel_platform.errors import DataError
from vsel_platform.evaluation.benchmark import (
    BenchmarkFiles,
    BenchmarkFormat,
    Compat,
    Judgement,
    Measure,
    Question,
    ratio_measure,
)
from vsel_platform.evaluation.formats.annotation_files import Entry, check_unique, read_entries, read_text
from vsel_platform.evaluation.formats.choices import SHORT_SENTENCE, read_yes_no, user_turn

PERCEPTION = (
    "existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR",
)  # fmt: skip
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
SUFFIX = "Please answer yes or no."
_READ_CHARACTERS = 4

Truth = Mapping[tuple[str, str, str], tuple[str, str]]


class Mme(BenchmarkFormat):
    """MME. "llava" and "official" are the same parser (`parse_answer`); "robust" looks for the words yes and no."""

    name = "mme"
    compats: tuple[Compat, ...] = ("llava", "official", "robust")
    headline = "perception"
    max_new_tokens = 128
    takes_annotations = True

    def files(self, files: BenchmarkFiles) -> list[str]:
        """The questions, and the text files of the annotations. Raises DataError for a directory without any."""
        truth = [] if files.annotations is None else _truth_files(Path(files.annotations))
        return [files.questions, *(str(path) for path, _, _ in truth)]

    def read(self, files: BenchmarkFiles) -> list[Question]:
        """Questions of LLaVA's `llava_mme.jsonl`; ids are its image names with "#1" and "#2".

        annotations: the directory `Your_Results` of the evaluation tool (a text file per task, lines image, question,
        answer), or the released benchmark (a directory per task). Without it no answer is known. Raises DataError for
        a wrong file, a question that the annotations lack, and an image with other than two questions.
        """
        truth = None if files.annotations is None else read_truth(files.annotations)
        seen: dict[str, int] = {}
        found = []
        for entry in read_entries(files.questions):
            image = entry.text("question_id")
            seen[image] = seen.get(image, 0) + 1
            found.append(_question(entry, f"{image}#{seen[image]}", truth))
        wrong = next((image for image, count in seen.items() if count != 2), None)
        if wrong is not None:
            raise DataError(
                f"{files.questions}, image {wrong}: has {seen[wrong]} questions, not two; use the published file"
            )
        return check_unique(files.questions, found)

    def judge(self, questions: Sequence[Question], texts: Sequence[str | None], compat: Compat) -> list[Judgement]:
        """Yes or no; an answer that is neither is wrong."""
        found = []
        for question, text in zip(questions, texts, strict=True):
            parsed = read_yes_no(text) if compat == "robust" else None if text is None else parse_answer(text)
            parsed = None if parsed == "other" else parsed
            found.append(Judgement(parsed, float(parsed == question.answers[0]) if question.answers else None))
        return found

    def measures(self, questions: Sequence[Question], judgements: Sequence[Judgement], compat: Compat) -> list[Measure]:
        """`perception`, `cognition`, `total` and `score` of every task [points], `accuracy` and `accuracy_plus`.

        The sums run over the tasks that the questions belong to.
        """
        columns = _columns(questions, judgements)
        tasks = [task for task in (*PERCEPTION, *COGNITION) if task in {question.category for question in questions}]
        blocks = {task: columns * np.array([[question.category == task] for question in questions]) for task in tasks}
        sums = {
            "perception": [task for task in tasks if task in PERCEPTION],
            "cognition": [task for task in tasks if task in COGNITION],
            "total": tasks,
        }
        found = [_score(name, "", [blocks[task] for task in members], len(questions)) for name, members in sums.items()]
        found += [_score("score", task, [blocks[task]], len(questions)) for task in tasks]
        for task, block in {"": columns, **blocks}.items():
            found.append(ratio_measure("accuracy", block[:, 0], block[:, 1], group=task))
            found.append(ratio_measure("accuracy_plus", block[:, 2], block[:, 3], group=task))
        return found

    def upload(self, questions: Sequence[Question], texts: Sequence[str | None]) -> dict[str, bytes]:
        """A text file per task for the evaluation tool, lines image, question, right answer, answer.

        Line breaks and tabs of an answer become blanks, because the tool reads lines and columns.
        """
        lines: dict[str, list[str]] = {}
        for question, text in zip(questions, texts, strict=True):
            right = question.answers[0].capitalize() if question.answers else ""
            answer = " ".join((text or "").replace("\t", " ").splitlines())
            row = (question.extra["file"], question.extra["official_question"], right, answer)
            lines.setdefault(question.category, []).append("\t".join(row) + "\n")
        return {f"{task}.txt": "".join(found).encode() for task, found in lines.items()}


def parse_answer(text: str) -> str:
    """yes, no or other: the lower-cased text, else what its first four characters contain, yes before no."""
    lower = text.lower()
    if lower in ("yes", "no"):
        return lower
    start = lower[:_READ_CHARACTERS]
    return "yes" if "yes" in start else "no" if "no" in start else "other"


def official_question(prompt: str) -> str:
    """Question as the annotations have it, from LLaVA's prompt: its closing sentence replaced by the official one."""
    question = prompt.replace(SHORT_SENTENCE, "").strip() if SHORT_SENTENCE in prompt else prompt
    return question if SUFFIX in question else f"{question} {SUFFIX}"


def read_truth(directory: str) -> dict[tuple[str, str, str], tuple[str, str]]:
    """(task, file stem, question with single blanks) to (question as written, yes or no).

    Raises DataError for a directory without text files or a line without its columns.
    """
    found: dict[tuple[str, str, str], tuple[str, str]] = {}
    for path, task, stem in _truth_files(Path(directory)):
        for number, line in enumerate(read_text(path).split("\n"), start=1):
            if not line.strip():
                continue
            cells = line.strip("\r\n").split("\t") if stem is None else [stem, *line.strip().split("\t")]
            if len(cells) < 3 or cells[2].strip().lower() not in ("yes", "no"):
                raise DataError(
                    f"{path}, line {number}: no image, question and answer Yes or No separated by tabs; "
                    "use the published annotations unchanged"
                )
            found[task, _stem(cells[0]), " ".join(cells[1].split())] = (cells[1], cells[2].strip().lower())
    if not found:
        raise DataError(f"{directory}: holds no annotations of MME; give the directory with a text file per task")
    return found


def _truth_files(root: Path) -> list[tuple[Path, str, str | None]]:
    """(file, its task, its image if it is about one) of the annotations. Raises DataError if there are none."""
    found: list[tuple[Path, str, str | None]] = [(path, path.stem, None) for path in sorted(root.glob("*.txt"))]
    for path in sorted(root.glob("*/**/*.txt")) if not found else ():
        found.append((path, path.relative_to(root).parts[0], path.stem))
    if not found:
        raise DataError(f"{root}: holds no annotations of MME; give the directory with a text file per task")
    return found


def _stem(image: str) -> str:
    return PurePosixPath(image).name.split(".")[0]


def _question(entry: Entry, question_id: str, truth: Truth | None) -> Question:
    image = entry.text("question_id")
    task, text = image.split("/")[0], entry.text("text")
    if task not in PERCEPTION and task not in COGNITION:
        raise entry.error(f"{task!r} is no task of MME; 'question_id' must be task/image as in llava_mme.jsonl")
    asked = official_question(text)
    answers: tuple[str, ...] = ()
    if truth is not None:
        known = truth.get((task, _stem(image), " ".join(asked.split())))
        if known is None:
            raise entry.error(f"the annotations have no question {asked!r} for {image}; give matching files")
        asked, answers = known[0], (known[1],)
    return Question(
        question_id=question_id,
        turns=user_turn(text),
        images=(str(entry.values.get("image", image)),),
        answers=answers,
        cluster=image,
        choices=("yes", "no"),
        category=task,
        extra={"file": f"{_stem(image)}.txt", "official_question": asked},
    )


def _columns(questions: Sequence[Question], judgements: Sequence[Judgement]) -> NDArray[np.float64]:
    """Right, known, image right, image known: float64 [questions, 4]; the latter two in an image's first question."""
    columns = np.zeros((len(questions), 4))
    images: dict[str, list[int]] = {}
    for row, (question, judgement) in enumerate(zip(questions, judgements, strict=True)):
        if judgement.score is not None:
            columns[row, :2] = judgement.score, 1.0
            images.setdefault(question.cluster, []).append(row)
    for rows in images.values():
        columns[rows[0], 2:] = float(columns[rows, 0].all()), 1.0
    return columns


def _score(name: str, group: str, blocks: Sequence[NDArray[np.float64]], n_questions: int) -> Measure:
    statistics = np.concatenate(blocks, axis=1) if blocks else np.zeros((n_questions, 4))
    return Measure(name, group, "points", statistics, _points)


def _points(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum over tasks of 100 * (accuracy + accuracy_plus); NaN if a task has no question."""
    pairs = sums.reshape(*sums.shape[:-1], -1, 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(pairs[..., 1] > 0, pairs[..., 0] / pairs[..., 1], np.nan)
    points: NDArray[np.float64] = 100.0 * ratios.sum(axis=-1)
    return points


FORMAT = Mme()
