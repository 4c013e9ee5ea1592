"""Logs of lmms-eval: answers written as its `*_samples_<task>.jsonl`, and read from such a file to be judged here.

One object per line: `doc_id` (position of the question), `doc` (id and texts of the question), `target` (the right
answer), `resps` (`[[answer]]`), `filtered_resps` (`[answer]`) and the metrics by name. lmms-eval leaves `resps` out if
nothing was filtered and, in newer versions, `doc`; the id of a question may then stand in a metric that is an object.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from vsel_platform.errors import ConfigError, DataError
from vsel_platform.evaluation.benchmark import Judgement, Question
from vsel_platform.evaluation.formats.annotation_files import Entry, read_entries
from vsel_platform.evaluation.formats.choices import SHORT_SENTENCE
from vsel_platform.evaluation.formats.mme import SUFFIX as MME_SENTENCE


@dataclass(frozen=True, slots=True)
class LmmsTask:
    """A task of lmms-eval. fields: of its documents, joined by "/" they are the question's id.

    numbered: several questions share those fields (one image) and have "#1", "#2" ... added in their order; a line
    belongs to the one whose text it carries.
    """

    name: str
    fields: tuple[str, ...] = ("question_id",)
    numbered: bool = False


TASKS: Mapping[str, tuple[LmmsTask, ...]] = {
    "seed_bench": (LmmsTask("seedbench"),),
    "mmbench": (LmmsTask("mmbench_en_dev", ("index",)),),
    "mme": (LmmsTask("mme", numbered=True),),
    "gqa": (LmmsTask("gqa", ("id",)),),
    "vqav2": (LmmsTask("vqav2_val"), LmmsTask("vqav2_test"), LmmsTask("ok_vqa_val2014")),
    "scienceqa": (LmmsTask("scienceqa"), LmmsTask("scienceqa_img")),
    "pope": (LmmsTask("pope", ("category", "question_id")),),
    "textvqa": (LmmsTask("textvqa_val"),),
    "vizwiz": (LmmsTask("vizwiz_vqa_val"), LmmsTask("vizwiz_vqa_test")),
    "captioning": (LmmsTask("coco2014_cap_val"), LmmsTask("nocaps_val", ("image_id",)), LmmsTask("flickr30k_test")),
}
"""Tasks by the name of the benchmark format that reads the same questions; the first is the default."""


def find_task(format_name: str, task_name: str | None = None) -> LmmsTask:
    """Task of a benchmark format. Raises ConfigError if lmms-eval has none or it is called otherwise."""
    tasks = TASKS.get(format_name, ())
    for task in tasks:
        if task_name in (None, task.name):
            return task
    known = ", ".join(task.name for task in tasks) or "none"
    raise ConfigError(f"{format_name}: lmms-eval has no task {task_name or 'for it'}; known: {known}")


def samples_name(task: LmmsTask, date: str) -> str:
    """File name that lmms-eval gives the samples of a task; `date` as in 20250131_235959."""
    return f"{date}_samples_{task.name}.jsonl"


def export_samples(
    task: LmmsTask,
    questions: Sequence[Question],
    texts: Sequence[str | None],
    judgements: Sequence[Judgement],
    *,
    metric: str = "exact_match",
) -> bytes:
    """Content of the samples file; unanswered questions have no line, a score that is not known is null."""
    lines = []
    rows = zip(questions, texts, judgements, strict=True)
    for position, (question, text, judgement) in enumerate(rows):
        if text is not None:
            sample = {
                "doc_id": position,
                "doc": _document(task, question),
                "target": question.answers[0] if question.answers else "",
                "resps": [[text]],
                "filtered_resps": [text],
                metric: judgement.score,
            }
            lines.append(json.dumps(sample, ensure_ascii=False) + "\n")
    return "".join(lines).encode()


def _document(task: LmmsTask, question: Question) -> dict[str, Any]:
    key = question.question_id.rpartition("#")[0] if task.numbered else question.question_id
    values = key.split("/", len(task.fields) - 1)
    # Both programs read the question back by these fields.
    fields = dict(zip(task.fields, values, strict=True)) if len(values) == len(task.fields) else {"question_id": key}
    return {**fields, "question": question.turns[-1][1], "answers": list(question.answers)}


def import_answers(path: str, questions: Sequence[Question], task: LmmsTask) -> list[str | None]:
    """Answers of a samples file in the order of `questions`, None where it has none.

    Lines are matched by the id (or the image's name, if every question has an image of its own); a log without ids
    must have as many lines as there are questions, which are then matched by `doc_id`. Raises DataError that names the
    line: no answer, a question that is not in the benchmark, two answers to one, or another right answer than
    that of the question in its place.
    """
    entries = read_entries(path, own=True)
    keys = _keys(entries, task)
    if keys and task.numbered:
        keys = _numbered(entries, keys, questions)
    places = _places(questions) if keys else {str(position): position for position in range(len(questions))}
    if not keys:
        if len(entries) != len(questions):
            raise DataError(
                f"{path}: {len(entries)} lines without question ids for {len(questions)} questions; log the documents "
                "too, or use the questions of the same split"
            )
        keys = [entry.identifier("doc_id") for entry in entries]
    answers: list[str | None] = [None] * len(questions)
    taken: set[int] = set()
    for entry, key in zip(entries, keys, strict=True):
        place = places.get(key)
        if place is None:
            raise entry.error(f"question {key} is not in the benchmark; use the questions of the same split")
        if place in taken:
            raise entry.error(f"question {key} is answered twice; keep one line")
        taken.add(place)
        if task.numbered:
            _require_target(entry, questions[place])
        answers[place] = _answer(entry)
    return answers


def _keys(entries: Sequence[Entry], task: LmmsTask) -> list[str]:
    """Ids of all lines (of their images where those are numbered), none if any line lacks its id."""
    keys = [_key(entry, task) for entry in entries]
    return [] if any(key is None for key in keys) else list(map(str, keys))


def _numbered(entries: Sequence[Entry], keys: Sequence[str], questions: Sequence[Question]) -> list[str]:
    """Ids of lines whose keys are those of images: by the text of the question if a line carries it, else by order.

    Raises DataError for a line that asks what the benchmark does not ask about its image.
    """
    own: dict[tuple[str, str], list[str]] = {}
    for question in questions:
        image = question.question_id.rpartition("#")[0]
        for text in {_bare(question.turns[-1][1]), _bare(str(question.extra.get("official_question", "")))} - {""}:
            own.setdefault((image, text), []).append(question.question_id)
    images = {image for image, _ in own}
    seen: Counter[tuple[str, str]] = Counter()
    found = []
    for entry, key in zip(entries, keys, strict=True):
        asked = _asked(entry) if key in images else ""
        ids = own.get((key, asked), [])
        if asked and not ids:
            raise entry.error(f"asks {asked!r}, which the benchmark does not ask about {key}; use the same questions")
        seen[key, asked] += 1
        number = seen[key, asked]
        found.append(ids[min(number, len(ids)) - 1] if ids else f"{key}#{number}")
    return found


def _asked(entry: Entry) -> str:
    document = entry.values.get("doc")
    asked = document.get("question") if isinstance(document, Mapping) else None
    return _bare(asked) if isinstance(asked, str) else ""


def _bare(text: str) -> str:
    """A question without its image tag and its closing sentence, which differ between prompts, in lower case."""
    for part in ("<image>", SHORT_SENTENCE, MME_SENTENCE):
        text = text.replace(part, " ")
    return " ".join(text.lower().split())


def _require_target(entry: Entry, question: Question) -> None:
    """Raises DataError if a line that does not carry its question has another right answer than it."""
    target = entry.values.get("target")
    if _asked(entry) or not isinstance(target, str) or not target.strip() or not question.answers:
        return
    if _bare(target) not in map(_bare, question.answers):
        raise entry.error(
            f"has the target {target!r}, but the answer to question {question.question_id} in its place is "
            f"{question.answers[0]!r}; keep the order of an image's questions, or log the documents too"
        )


def _key(entry: Entry, task: LmmsTask) -> str | None:
    sources = [entry.values.get("doc"), *entry.values.values()]
    for source in sources:
        if isinstance(source, Mapping) and all(source.get(field) is not None for field in task.fields):
            return "/".join(str(source[field]) for field in task.fields)
    return None


def _places(questions: Sequence[Question]) -> dict[str, int]:
    images = [question.images[0] if question.images else "" for question in questions]
    places: dict[str, int] = {}
    if len(set(images)) == len(images):
        for position, image in enumerate(images):
            name = PurePosixPath(image)
            places |= {name.stem: position, name.name: position}
    return places | {question.question_id: position for position, question in enumerate(questions)}


def _answer(entry: Entry) -> str:
    found = entry.values.get("filtered_resps") or entry.values.get("resps")
    while isinstance(found, list) and found:
        found = found[0]
    if not isinstance(found, str):
        raise entry.error("neither 'filtered_resps' nor 'resps' holds a text; log the samples of a generation task")
    return found
