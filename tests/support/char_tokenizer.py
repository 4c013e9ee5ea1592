"""A tokenizer of one token per character, and one from a recorded tokenizer.json."""

import re
from pathlib import Path

SPECIAL = {"<s>": 1, "</s>": 2}


class CharTokenizer:
    """Id 0 is padding and what is unknown, 1 and 2 begin and end a text, 3 + i is the character i of the alphabet."""

    bos_id, pad_id, legacy, model_max_length = 1, 0, True, 2048

    def __init__(self, alphabet: list[str], *, add_bos: bool = True) -> None:
        self._ids = {character: 3 + i for i, character in enumerate(alphabet)} | SPECIAL
        self._texts = {i: character for character, i in self._ids.items()}
        self._begin = [self.bos_id] if add_bos else []

    def encode(self, text: str) -> list[int]:
        return self._begin + [self._ids.get(piece, 0) for piece in pieces(text)]

    def decode(self, ids: list[int]) -> str:
        return "".join(self._texts.get(i, "�") for i in ids)


class PieceTokenizer:
    """Pieces of a recorded `tokenizer.json`, BOS first."""

    bos_id, pad_id, model_max_length = 1, 0, 2048

    def __init__(self, file: Path, *, legacy: bool = True) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(file))
        self.legacy = legacy

    def encode(self, text: str) -> list[int]:
        return [self.bos_id, *self._tokenizer.encode(text, add_special_tokens=False).ids]

    def decode(self, ids: list[int]) -> str:
        found = "".join(self._tokenizer.id_to_token(i) for i in ids).replace("▁", " ")
        return re.sub("<0x([0-9A-F]{2})>", lambda match: chr(int(match[1], 16)), found)


def pieces(text: str) -> list[str]:
    """Characters, and the special tokens and image tags between them."""
    return re.findall("</?s>|<image>|.", text, re.DOTALL)


def supervised_spans(labels, decode) -> list[str]:
    """Texts of the stretches of labels that are targets."""
    spans: list[list[int]] = []
    before = -100
    for label in labels:
        if label != -100:
            if before == -100:
                spans.append([])
            spans[-1].append(int(label))
        before = label
    return [decode(span) for span in spans]
