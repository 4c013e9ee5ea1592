"""Texts of questions: what text embeddings are made of, identified by their content."""

import hashlib
import re
from collections.abc import Sequence

# As specified for Free2DS (C1.5): these two spellings and no other.
_TAGS = re.compile("<image>|<Image>")


def question_texts(turns: Sequence[tuple[str, str]]) -> list[str]:
    """Text of every user turn without image tags and blanks around it; may be empty."""
    return [_TAGS.sub("", text).strip() for role, text in turns if role == "user"]


def text_id(text: str) -> str:
    """sha256 of the text, hex: a text that occurs in many rows is embedded once."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
