"""Words of a caption: the clean-up of SQ-LLaVA's evaluation and Penn Treebank tokens without punctuation.

`ptb_tokens` follows Stanford's PTBTokenizer (version 3.4.1, lower case) and the list of punctuation that the COCO
caption evaluation drops afterwards, written anew for running text in English.
"""

import re

PREDICTION_WORDS = 20
REFERENCE_WORDS = 50
"""SQ-LLaVA's longest captions [words]."""

_CLEAN = re.compile(r"[.!\"()*#:;~]")
_BLANKS = re.compile(r"\s{2,}")
_DROPPED = frozenset({"''", "'", "``", "`", '"', ".", "?", "!", ",", ":", "-", "--", "---", "...", ";"})
# The evaluation's list names brackets in capitals, the tokenizer writes them small: brackets stay, as -lrb- and so on.
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_FOLDED = str.maketrans(
    {"\u2018": "`", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2013": "--", "\u2014": "--", "\u2026": "..."}
    | {"\u00a3": "#", "\u20ac": "$", "\u00a0": " "}
)
_ABBREVIATIONS = (
    "mr|mrs|ms|dr|prof|st|jr|sr|gov|gen|sen|rep|lt|col|capt|sgt|rev|hon|inc|co|corp|ltd|vs|etc|dept|ave|blvd|rd|"
    "mt|ft|jan|feb|mar|apr|jun|jul|aug|sep|sept|oct|nov|dec"
)
_SPLIT_WORDS = {
    "cannot": "can not",
    "gonna": "gon na",
    "gotta": "got ta",
    "wanna": "wan na",
    "gimme": "gim me",
    "lemme": "lem me",
    "'tis": "'t is",
    "'twas": "'t was",
}
_PART = r"(?:[^\W_]|[\u0300-\u036f])+"
_CLITIC = r"'(?:s|m|d|ll|re|ve)(?!\w)"
_TOKEN = re.compile(
    rf"""
    https?://[^\s<>"]*[^\s<>".,;:!?)'\]] | www\.[^\s<>"]*[^\s<>".,;:!?)'\]]  # addresses
    | [\w.+-]+@[\w-]+(?:\.[\w-]+)+
    | [@\#][^\W\d_]\w*
    | (?:[^\W\d_]\.)+[^\W\d_]\.?(?!\w)                                      # u.s., a.m., i.e
    | (?<![\w'-])no\.(?=\s*\d)
    | (?<![\w'-])(?:[^\W\d_]|{_ABBREVIATIONS})\.(?=[\s,]|$)
    | 'tis\b | 'twas\b | '\d\ds?\b | 'n' | 'n\b | 'em\b | 'til\b | 'cause\b
    | [^\W\d_]+?(?=n't(?!\w)) | n't(?!\w) | {_CLITIC}
    | (?:o|d|l)'(?=[^\W\d_]{{2}})[^\W\d_]+(?:-\w+)*
    | (?:[-+](?=[\d.]))?(?:\d+(?:[.,:/-]\d+)*|\.\d+)(?:[^\W\d_]\w*)?(?:-\w+)*
    | {_PART}(?:[-_/]{_PART})*
    | <[^\W\d_/][^<>\s]*> | \.\.\. | -{{2,}} | [?!]{{2,}} | \*+ | _+ | `` | [:;]-?[()]
    | \S
    """,
    re.VERBOSE,
)


def pre_caption(text: str, max_words: int) -> str:
    """SQ-LLaVA's clean-up: lower case, no . ! " ( ) * # : ; ~, single blanks, at most `max_words` words."""
    cleaned = _BLANKS.sub(" ", _CLEAN.sub(" ", text.lower())).rstrip("\n").strip(" ")
    return " ".join(cleaned.split(" ")[:max_words])


def ptb_tokens(text: str) -> list[str]:
    """Lower-case Penn Treebank tokens of one caption, without punctuation marks.

    Contractions are split ("it 's", "do n't"), hyphenated words, numbers and abbreviations stay whole. Runs of
    question and exclamation marks and brackets ("-lrb-") stay, as they do in the COCO caption evaluation.
    """
    found = []
    for token in _TOKEN.findall(text.lower().translate(_FOLDED)):
        if token not in _DROPPED:
            written = "".join(_BRACKETS.get(mark, mark) for mark in token)
            found += _SPLIT_WORDS.get(token, written).split(" ")
    return found
