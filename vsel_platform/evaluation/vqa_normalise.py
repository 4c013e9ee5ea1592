"""Normalisation of free-form answers and the accuracy against several annotators (VQAv2, TextVQA, VizWiz).

The tables of contractions, number words, articles and punctuation stem from the official VQA evaluation
(GT-Vision-Lab/VQA, BSD 2-clause, see NOTICE.md). The normaliser is the one that LLaVA uses for uploads and TextVQA
("EvalAI" processor), its quirks included: see `replace_punctuation`.
"""

import re
from collections.abc import Callable, Sequence

CONTRACTIONS = {
    "aint": "ain't",
    "arent": "aren't",
    "cant": "can't",
    "couldve": "could've",
    "couldnt": "couldn't",
    "couldn'tve": "couldn't've",
    "couldnt've": "couldn't've",
    "didnt": "didn't",
    "doesnt": "doesn't",
    "dont": "don't",
    "hadnt": "hadn't",
    "hadnt've": "hadn't've",
    "hadn'tve": "hadn't've",
    "hasnt": "hasn't",
    "havent": "haven't",
    "hed": "he'd",
    "hed've": "he'd've",
    "he'dve": "he'd've",
    "hes": "he's",
    "howd": "how'd",
    "howll": "how'll",
    "hows": "how's",
    "Id've": "I'd've",
    "I'dve": "I'd've",
    "Im": "I'm",
    "Ive": "I've",
    "isnt": "isn't",
    "itd": "it'd",
    "itd've": "it'd've",
    "it'dve": "it'd've",
    "itll": "it'll",
    "let's": "let's",
    "maam": "ma'am",
    "mightnt": "mightn't",
    "mightnt've": "mightn't've",
    "mightn'tve": "mightn't've",
    "mightve": "might've",
    "mustnt": "mustn't",
    "mustve": "must've",
    "neednt": "needn't",
    "notve": "not've",
    "oclock": "o'clock",
    "oughtnt": "oughtn't",
    "ow's'at": "'ow's'at",
    "'ows'at": "'ow's'at",
    "'ow'sat": "'ow's'at",
    "shant": "shan't",
    "shed've": "she'd've",
    "she'dve": "she'd've",
    "she's": "she's",
    "shouldve": "should've",
    "shouldnt": "shouldn't",
    "shouldnt've": "shouldn't've",
    "shouldn'tve": "shouldn't've",
    "somebody'd": "somebodyd",
    "somebodyd've": "somebody'd've",
    "somebody'dve": "somebody'd've",
    "somebodyll": "somebody'll",
    "somebodys": "somebody's",
    "someoned": "someone'd",
    "someoned've": "someone'd've",
    "someone'dve": "someone'd've",
    "someonell": "someone'll",
    "someones": "someone's",
    "somethingd": "something'd",
    "somethingd've": "something'd've",
    "something'dve": "something'd've",
    "somethingll": "something'll",
    "thats": "that's",
    "thered": "there'd",
    "thered've": "there'd've",
    "there'dve": "there'd've",
    "therere": "there're",
    "theres": "there's",
    "theyd": "they'd",
    "theyd've": "they'd've",
    "they'dve": "they'd've",
    "theyll": "they'll",
    "theyre": "they're",
    "theyve": "they've",
    "twas": "'twas",
    "wasnt": "wasn't",
    "wed've": "we'd've",
    "we'dve": "we'd've",
    "weve": "we've",
    "werent": "weren't",
    "whatll": "what'll",
    "whatre": "what're",
    "whats": "what's",
    "whatve": "what've",
    "whens": "when's",
    "whered": "where'd",
    "wheres": "where's",
    "whereve": "where've",
    "whod": "who'd",
    "whod've": "who'd've",
    "who'dve": "who'd've",
    "wholl": "who'll",
    "whos": "who's",
    "whove": "who've",
    "whyll": "why'll",
    "whyre": "why're",
    "whys": "why's",
    "wont": "won't",
    "wouldve": "would've",
    "wouldnt": "wouldn't",
    "wouldnt've": "wouldn't've",
    "wouldn'tve": "wouldn't've",
    "yall": "y'all",
    "yall'll": "y'all'll",
    "y'allll": "y'all'll",
    "yall'd've": "y'all'd've",
    "y'alld've": "y'all'd've",
    "y'all'dve": "y'all'd've",
    "youd": "you'd",
    "youd've": "you'd've",
    "you'dve": "you'd've",
    "youll": "you'll",
    "youre": "you're",
    "youve": "you've",
}
NUMBER_WORDS = {
    "none": "0",
    "zero": "0",
    "one": "1",
    "two": "2",
    "three": "3",
    "four": "4",
    "five": "5",
    "six": "6",
    "seven": "7",
    "eight": "8",
    "nine": "9",
    "ten": "10",
}
ARTICLES = frozenset({"a", "an", "the"})
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'

_THOUSANDS = re.compile(r"(?<=\d),+(?=\d)")
_PERIOD = re.compile(r"\.(?!\d)")
# The published code passes the regex flag UNICODE (32) where the number of replacements is expected.
_PERIODS_REMOVED = 32
_MATCHES_FOR_FULL_SCORE = 3


def clean_words(text: str) -> str:
    """Lower-case text without commas and question marks, "'s" set apart, no blanks at the ends."""
    return text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()


def one_line(text: str) -> str:
    """Text with line breaks and tabs as blanks, no blanks at the ends."""
    return text.replace("\n", " ").replace("\t", " ").strip()


def replace_punctuation(text: str) -> str:
    """Text without punctuation.

    Quirks of the published code: a mark is deleted everywhere if it touches a blank anywhere in the input or the
    input has digit, comma, digit, else it becomes a blank; of the periods that no digit follows, the first 32 go.
    """
    thousands = _THOUSANDS.search(text) is not None
    found = text
    for mark in PUNCTUATION:
        delete = thousands or f"{mark} " in text or f" {mark}" in text
        found = found.replace(mark, "" if delete else " ")
    return _PERIOD.sub("", found, count=_PERIODS_REMOVED)


def replace_words(text: str) -> str:
    """Lower-case words joined by single blanks: number words as digits, no articles, contractions spelt out."""
    words = [NUMBER_WORDS.get(word, word) for word in text.lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def normalise_answer(text: str) -> str:
    """The whole normaliser: `clean_words`, blanks, `replace_punctuation`, `replace_words`."""
    return replace_words(replace_punctuation(one_line(clean_words(text))))


def soft_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Mean over the annotators of min(1, matches among the others / 3), in [0, 1].

    Source: Antol et al., "VQA: Visual Question Answering", section 3, averaged over all subsets of one less.
    Raises ZeroDivisionError without answers.
    """
    matches = sum(answer == prediction for answer in answers)
    scores = [min(1.0, (matches - (answer == prediction)) / _MATCHES_FOR_FULL_SCORE) for answer in answers]
    return sum(scores) / len(scores)


def official_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Accuracy of the official VQA evaluation, in [0, 1].

    Texts are normalised only if the annotators disagree; case never counts.
    """
    found, cleaned = one_line(prediction), [one_line(answer) for answer in answers]
    if len(set(cleaned)) > 1:
        found = replace_words(replace_punctuation(found))
        cleaned = [replace_words(replace_punctuation(answer)) for answer in cleaned]
    return soft_accuracy(found.lower(), [answer.lower() for answer in cleaned])


def uploaded_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Official accuracy of what LLaVA uploads: the prediction is normalised first, in [0, 1]."""
    return official_accuracy(normalise_answer(prediction), answers)


def normalised_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Accuracy with the prediction and every answer normalised, in [0, 1] (TextVQA; lmms-eval for the others)."""
    return soft_accuracy(normalise_answer(prediction), [normalise_answer(answer) for answer in answers])


ACCURACIES: dict[str, Callable[[str, Sequence[str]], float]] = {
    "llava": uploaded_accuracy,
    "official": official_accuracy,
    "robust": normalised_accuracy,
}
"""Accuracy of an answer against several annotators, by compat."""
