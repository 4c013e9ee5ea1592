"""Prompts with lettered options and short answers, and reading an option or yes / no out of a free answer."""

import re
from collections.abc import Sequence

LETTERS = "ABCDEFGH"
LETTER_SENTENCE = "Answer with the option's letter from the given choices directly."
SHORT_SENTENCE = "Answer the question using a single word or phrase."
REFUSED = "Z"

_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_PUNCTUATION = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_STATED = re.compile(r"(?:correct\s+)?answer\s+is\s+\**([ABCD])\**", re.IGNORECASE)
# As above, but of a letter alone: in brackets, a capital, or a small one that is not the article.
_STATED_ALONE = re.compile(
    r"""
    \b [Aa]nswer (?: \s+ is \b | \s* : ) (?: \s+ option \b )? [\s*"']*
    (?: [(\[] \s* ([A-Ha-h]) \s* [)\]] | ([A-Hb-h]) (?! [\w'’-] | \.\w ) | ([a]) [\s.*"']* $ )
    """,
    re.VERBOSE,
)
_LAST_WORDS = 4
_WORD = re.compile(r"[a-z]+")


def lettered(choices: Sequence[str]) -> str:
    """One line per option: `A. text`."""
    return "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False))


def letter_of(index: int) -> str:
    """Letter of the option at `index`."""
    return LETTERS[index]


def options_line(choices: Sequence[str]) -> str:
    """`(A) first (B) second ...`"""
    return " ".join(f"({letter_of(place)}) {choice}" for place, choice in enumerate(choices))


def user_turn(text: str, *, image: bool = True) -> tuple[tuple[str, str], ...]:
    """A conversation of one question, the image before it as in LLaVA's evaluation."""
    return (("user", f"<image>\n{text}" if image else text),)


def match_option(text: str, choices: Sequence[str]) -> str | None:
    """Letter of the option that `text` means; "Z" for a refusal, None if that cannot be told.

    In this order: exactly one distinct option letter stands alone (some punctuation counts as a blank) and first does
    so among the last four words; "(correct) answer is X"; `text` contains the text of exactly one option and is not
    longer than twice all options together. Source: the matcher that VLMEvalKit uses without a judge model
    (benchmark specification, section 5.2).
    """
    return _match(text, choices, _STATED)


def _match(text: str, choices: Sequence[str], pattern: re.Pattern[str]) -> str | None:
    if "Failed to obtain answer via API" in text:
        return _match_text(text, choices)
    if any(refusal in text for refusal in _REFUSALS):
        return REFUSED
    letters = LETTERS[: len(choices)]
    words = text.translate(_PUNCTUATION).split()
    found = [letter for letter in letters if letter in words]
    if len(found) == 1 and words.index(found[0]) >= len(words) - _LAST_WORDS:
        return found[0]
    if not found and REFUSED in words:
        return REFUSED
    stated = pattern.search(text)
    if stated and str(stated[stated.lastindex or 0]).upper() in letters:
        return str(stated[stated.lastindex or 0]).upper()
    return _match_text(text, choices)


def _match_text(text: str, choices: Sequence[str]) -> str | None:
    lower = text.lower()
    if len(lower) > 2 * sum(len(choice) for choice in choices):
        return None
    found = [letter for letter, choice in zip(LETTERS, choices, strict=False) if choice.lower() in lower]
    return found[0] if len(found) == 1 else None


def read_option(text: str | None, choices: Sequence[str]) -> str | None:
    """Letter of the option that `text` means; None for no answer, a refusal or an unclear one.

    As `match_option`, but a lower-case letter alone counts too, and what follows "answer is" or "answer:" has to be a
    letter alone: "The answer is blue." names no option B. An "a" is the article there, unless it stands in brackets
    or at the end: "The answer is a dog." names the dog, "answer is a" and "The answer is (a)" option A.
    """
    if text is None:
        return None
    alone = text.strip().strip(".()").upper()
    if len(alone) == 1 and alone in LETTERS[: len(choices)]:
        return alone
    found = _match(text, choices, _STATED_ALONE)
    return None if found == REFUSED else found


def read_yes_no(text: str | None) -> str | None:
    """Which of the words "yes" and "no" stands in `text`, in any case ("not" is no "no"); None for both or neither."""
    words = set(_WORD.findall((text or "").lower()))
    yes, no = "yes" in words, "no" in words
    return None if yes == no else "yes" if yes else "no"
