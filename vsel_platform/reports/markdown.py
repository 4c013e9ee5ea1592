"""Tables in Markdown, safe for any text."""

import re
from collections.abc import Sequence

_SPECIAL = str.maketrans({c: "\\" + c for c in "\\`*_{}[]<>|#~$!"})
# Inside a word an underline marks nothing, and names of recipes are read in terminals too.
_INSIDE_A_WORD = re.compile(r"(?<=[A-Za-z0-9])\\_(?=[A-Za-z0-9])")


class Long(str):
    """A text that a cell shows in full."""

    __slots__ = ()


def cell(value: object, limit: int = 80) -> str:
    """A value as the text of one cell: one line, at most `limit` characters unless `Long`, nothing in it is markup.

    A missing value is a dash; numbers have thousands separators, measures three significant digits.
    """
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    text = " ".join(str(value).split())
    text = text if len(text) <= limit or isinstance(value, Long) else text[: limit - 1] + "…"
    return _INSIDE_A_WORD.sub("_", text.translate(_SPECIAL))


def table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table. Columns whose first value is a number are aligned to the right."""
    numeric = [isinstance(value, int | float) for value in rows[0]] if rows else [False] * len(headers)
    lines = [
        "| " + " | ".join(cell(header) for header in headers) + " |",
        "| " + " | ".join("---:" if right else "---" for right in numeric) + " |",
    ]
    lines += ["| " + " | ".join(cell(value) for value in row) + " |" for row in rows]
    return "\n".join(lines)
