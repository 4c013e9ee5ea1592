"""Image captions: COCO (`captions_val2014.json`, NoCaps' file of the same form) or a list of images with captions.

COCO form: `{images: [{id, file_name}], annotations: [{image_id, caption}]}`; list form, as Flickr30k test sets have it:
`[{image, caption: text or texts}]`. An image's `domain` (NoCaps) is its category. All captions of an image are its
references; an image without captions is answered but not scored.

Options: `prompt`, the instruction; `meteor`, true to compute METEOR as well, which needs
`pip install 'vsel-platform[captioning]'` and Java.

llava: SQ-LLaVA's clean-up before tokenisation, which cuts answers to 20 words and references to 50. official: tokens
of the whole text, as the COCO caption evaluation takes them. All scores are multiplied by 100. The
weights of CIDEr-D come from the references of all images of the file.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from vsel_platform.errors import ConfigError
from vsel_platform.evaluation.benchmark import (
    BenchmarkFiles,
    BenchmarkFormat,
    Compat,
    Judgement,
    Measure,
    OptionKind,
    Question,
    ratio_measure,
)
from vsel_platform.evaluation.caption_scores import CIDER_SCALE, MAX_N, bleu, bleu_statistics, cider_d, rouge_l
from vsel_platform.evaluation.caption_tokens import PREDICTION_WORDS, REFERENCE_WORDS, pre_caption, ptb_tokens
from vsel_platform.evaluation.formats.annotation_files import Entry, read_entries, read_json
from vsel_platform.evaluation.formats.choices import user_turn
from vsel_platform.evaluation.meteor import meteor, meteor_command, meteor_statistics
from vsel_platform.evaluation.text_benchmarks import all_questions, read_object, require_compat, section

PROMPT = "Provide a one-sentence caption for the provided image."


class CaptioningFormat(BenchmarkFormat):
    """Captions compared with several references per image."""

    name = "captioning"
    compats: tuple[Compat, ...] = ("llava", "official")
    headline = "CIDEr"
    max_new_tokens = 128
    options: Mapping[str, OptionKind] = {"prompt": "text", "meteor": "flag"}

    def read(self, files: BenchmarkFiles) -> list[Question]:
        """One question per image in the order of the file.

        Raises DataError that names file, entry and problem, ConfigError for a wrong option, MissingPackageError if
        METEOR is asked for and cannot run.
        """
        prompt, with_meteor = files.options.get("prompt", PROMPT), files.options.get("meteor", False)
        if not isinstance(prompt, str) or not isinstance(with_meteor, bool):
            raise ConfigError("captioning: option prompt must be a text and option meteor true or false")
        if with_meteor:
            meteor_command()
        is_list = isinstance(read_json(files.questions), list)
        images = _listed(files.questions) if is_list else _annotated(files.questions)
        questions = [
            Question(
                question_id=key,
                turns=user_turn(prompt),
                images=(image,),
                answers=captions,
                cluster=key,
                category=domain,
                extra={"meteor": with_meteor},
            )
            for key, image, captions, domain in images
        ]
        return all_questions(files.questions, questions)

    def judge(self, questions: Sequence[Question], texts: Sequence[str | None], compat: Compat) -> list[Judgement]:
        """Tokens of the caption, joined by blanks, and a tenth of its CIDEr-D; a missing caption is an empty one."""
        require_compat(self.name, compat, self.compats)
        parsed = [None if text is None else " ".join(_tokens(text, compat, PREDICTION_WORDS)) for text in texts]
        known = [i for i, question in enumerate(questions) if question.answers]
        captions = [(parsed[i] or "").split() for i in known]
        scores = cider_d(captions, [_references(questions[i], compat) for i in known]) / CIDER_SCALE
        by_index = dict(zip(known, scores.tolist(), strict=True))
        return [Judgement(text, by_index.get(i)) for i, text in enumerate(parsed)]

    def measures(self, questions: Sequence[Question], judgements: Sequence[Judgement], compat: Compat) -> list[Measure]:
        """CIDEr of all images, BLEU-1 to 4, ROUGE-L, METEOR if it was asked for, then CIDEr by category."""
        known = [i for i, question in enumerate(questions) if question.answers]
        captions = [(judgements[i].parsed or "").split() for i in known]
        references = [_references(questions[i], compat) for i in known]
        found = [_cider(questions, judgements, "")]
        statistics = _spread(bleu_statistics(captions, references), known, len(questions))
        for n in range(1, MAX_N + 1):
            found.append(Measure(f"BLEU-{n}", "", "percent", statistics, _Percent(n)))
        rouge = np.stack([rouge_l(captions, references), np.ones(len(known))], axis=1)
        spread = _spread(rouge, known, len(questions))
        found.append(ratio_measure("ROUGE-L", spread[:, 0], spread[:, 1]))
        if known and questions[known[0]].extra["meteor"]:
            texts = [[" ".join(tokens) for tokens in group] for group in references]
            sums = meteor_statistics([" ".join(tokens) for tokens in captions], texts)
            found.append(Measure("METEOR", "", "percent", _spread(sums, known, len(questions)), _Percent(0)))
        categories = sorted({question.category for question in questions} - {""})
        return found + [_cider(questions, judgements, category) for category in categories]

    def upload(self, questions: Sequence[Question], texts: Sequence[str | None]) -> dict[str, bytes]:
        """Nothing: the references are public."""
        return {}


class _Percent:
    """BLEU-n, or METEOR for n = 0, of sums, times 100."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __call__(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        return 100.0 * (bleu(sums, self.n) if self.n else meteor(sums))


def _cider(questions: Sequence[Question], judgements: Sequence[Judgement], category: str) -> Measure:
    members = np.array(
        [j.score is not None and category in ("", q.category) for q, j in zip(questions, judgements, strict=True)],
        dtype=np.float64,
    )
    scores = np.array([CIDER_SCALE * (judgement.score or 0.0) for judgement in judgements], dtype=np.float64)
    return ratio_measure("CIDEr", scores * members, members, group=category, unit="points")


def _spread(rows: NDArray[np.float64], places: Sequence[int], n: int) -> NDArray[np.float64]:
    found = np.zeros((n, rows.shape[1]))
    found[list(places)] = rows
    return found


def _tokens(text: str, compat: Compat, max_words: int) -> list[str]:
    return ptb_tokens(pre_caption(text, max_words) if compat == "llava" else text)


def _references(question: Question, compat: Compat) -> list[list[str]]:
    return [_tokens(answer, compat, REFERENCE_WORDS) for answer in question.answers]


Image = tuple[str, str, tuple[str, ...], str]
"""Id, file, captions and category of an image."""


def _annotated(path: str) -> list[Image]:
    content = read_object(path)
    captions: Mapping[str, list[str]] = defaultdict(list)
    for entry in section(path, content, "annotations"):
        captions[entry.identifier("image_id")].append(entry.text("caption"))
    found = []
    for entry in section(path, content, "images"):
        key = entry.identifier("id")
        found.append((key, entry.text("file_name"), tuple(captions.get(key, ())), _domain(entry)))
    return found


def _listed(path: str) -> list[Image]:
    found = []
    for entry in read_entries(path):
        image, caption = entry.text("image"), entry.values.get("caption", [])
        captions = (caption,) if isinstance(caption, str) else entry.texts("caption") if caption else ()
        found.append((image, image, captions, _domain(entry)))
    return found


def _domain(entry: Entry) -> str:
    return entry.text("domain") if "domain" in entry.values else ""


FORMAT = CaptioningFormat()
