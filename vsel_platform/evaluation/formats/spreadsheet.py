"""Workbooks (.xlsx) of one sheet for servers that take no other file."""

import datetime
import io
from collections.abc import Iterable, Sequence

Cell = str | int | None

LONGEST_CELL = 32_767
"""Characters that a cell of Excel can hold."""
# Creation time is written into the file: one for all, so that the same cells are the same bytes.
_CREATED = datetime.datetime(1980, 1, 1)
_AS_THEY_ARE = {"in_memory": True, "strings_to_formulas": False, "strings_to_urls": False, "strings_to_numbers": False}


def workbook(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> bytes:
    """An .xlsx file of one sheet, `columns` as its first row; None is an empty cell, texts are never formulas.

    Characters that no encoding has are left out, and texts end after `LONGEST_CELL` characters.
    """
    import xlsxwriter  # type: ignore[import-untyped]

    content = io.BytesIO()
    with xlsxwriter.Workbook(content, _AS_THEY_ARE) as book:
        book.set_properties({"created": _CREATED})
        sheet = book.add_worksheet()
        for number, cells in enumerate([columns, *rows]):
            for place, cell in enumerate(cells):
                if isinstance(cell, int):
                    sheet.write_number(number, place, cell)
                elif cell is not None:
                    sheet.write_string(number, place, cell.encode("utf-8", "ignore").decode()[:LONGEST_CELL])
    return content.getvalue()
