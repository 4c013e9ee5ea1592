"""LLaMA's sentencepiece tokenizer with the rules that LLaVA was released with (transformers 4.37).

`legacy=True`: sentencepiece puts its word mark before every piece of text between special tokens.
`legacy=False`: only before the whole text. Hence "USER" after "</s>" is tokenised differently, which LLaVA's label
code corrects for.
"""

import re
from pathlib import Path
from typing import Any

import orjson

from vsel_platform.errors import MissingPackageError, ModelError

WORD_MARK = "▁"
# Appended to a serialised model: normalizer_spec { add_dummy_prefix: false }. A message field that stands twice is
# merged, so this overrides the one option and leaves the others.
_NO_DUMMY_PREFIX = b"\x1a\x02\x18\x00"


class ReleasedTokenizer:
    """Tokens of `tokenizer.model` as `LlamaTokenizer` of transformers 4.37 makes them, beginning with BOS."""

    def __init__(self, directory: Path, *, legacy: bool | None = None) -> None:
        """Read `tokenizer.model` and `tokenizer_config.json`; `legacy` overrides the latter.

        Raises ModelError if a file is missing, MissingPackageError without sentencepiece.
        """
        try:
            import sentencepiece
        except ImportError as error:
            raise MissingPackageError(
                "the released tokenizer needs sentencepiece: pip install sentencepiece"
            ) from error
        model_file, config_file = directory / "tokenizer.model", directory / "tokenizer_config.json"
        for file in (model_file, config_file):
            if not file.is_file():
                raise ModelError(f"{file}: missing; a checkpoint of the original LLaVA has it")
        config = orjson.loads(config_file.read_bytes())
        # transformers 4.37 takes an absent `legacy` for True.
        self.legacy = bool(config.get("legacy", True)) if legacy is None else legacy
        self.model_max_length = int(config.get("model_max_length", 2048))
        self._special = _special_tokens(config)
        self._strip = _stripping_tokens(config)
        self._split = re.compile("|".join(re.escape(t) for t in sorted(self._special, key=len, reverse=True)))
        proto = model_file.read_bytes() + (b"" if self.legacy else _NO_DUMMY_PREFIX)
        self._pieces: Any = sentencepiece.SentencePieceProcessor(model_proto=proto)
        self._unknown = _content(config.get("unk_token") or "<unk>")
        self._unknown_length = len(self._pieces.encode(self._unknown, out_type=str))
        self.bos_id = self._id(_content(config.get("bos_token") or "<s>"))
        self.end_id = self._id(_content(config.get("eos_token") or "</s>"))
        pad = config.get("pad_token")
        self.pad_id = self._id(_content(pad) if pad else self._unknown)

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, BOS first."""
        return [self.bos_id, *(self._id(piece) for piece in self._tokenize(text))]

    def _id(self, piece: str) -> int:
        found = self._special.get(piece)
        return int(self._pieces.piece_to_id(piece)) if found is None else found

    def _tokenize(self, text: str) -> list[str]:
        if self.legacy or not text:
            return self._split_special(text)
        pieces = self._split_special(WORD_MARK + text.replace(WORD_MARK, " "))
        if len(pieces) > 1 and pieces[0] == WORD_MARK and pieces[1] in self._special:
            return pieces[1:]
        return pieces

    def _split_special(self, text: str) -> list[str]:
        """Special tokens stand for themselves; what lies between them goes through sentencepiece."""
        pieces: list[str] = []
        position = 0
        for match in self._split.finditer(text):
            pieces += self._encode_plain(self._stripped(text[position : match.start()], pieces, match.group()))
            pieces.append(match.group())
            position = match.end()
        return pieces + self._encode_plain(self._stripped(text[position:], pieces, None))

    def _stripped(self, text: str, before: list[str], following: str | None) -> str:
        if before and before[-1] in self._strip["rstrip"]:
            text = text.lstrip()
        return text.rstrip() if following in self._strip["lstrip"] else text

    def _encode_plain(self, text: str) -> list[str]:
        if not text:
            return []
        if self.legacy or not text.startswith((WORD_MARK, " ")):
            return list(self._pieces.encode(text, out_type=str))
        # Without the dummy prefix sentencepiece drops leading blanks; a known prefix protects them.
        return list(self._pieces.encode(self._unknown + text, out_type=str)[self._unknown_length :])


def _special_tokens(config: dict[str, Any]) -> dict[str, int]:
    added = config.get("added_tokens_decoder", {})
    found = {str(token["content"]): int(number) for number, token in added.items()}
    return found or {"<unk>": 0, "<s>": 1, "</s>": 2}


def _stripping_tokens(config: dict[str, Any]) -> dict[str, set[str]]:
    added = config.get("added_tokens_decoder", {}).values()
    return {side: {token["content"] for token in added if token.get(side)} for side in ("lstrip", "rstrip")}


def _content(token: Any) -> str:
    return str(token["content"] if isinstance(token, dict) else token)
