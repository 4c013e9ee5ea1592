"""Reading an .xlsx file back, by the standard and without the code that writes one."""

import io
import re
import zipfile
from xml.etree import ElementTree

MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"


def read_workbook(data):
    """Rows of the first sheet as dictionaries by the first row's texts; empty cells are None."""
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        assert file.testzip() is None
        parts = {name: ElementTree.fromstring(file.read(name)) for name in file.namelist()}
    shared = [_text(item) for item in parts["xl/sharedStrings.xml"].iter(f"{MAIN}si")]
    sheet = parts["xl/worksheets/sheet1.xml"]
    rows = [{_column(cell): _value(cell, shared) for cell in row} for row in sheet.iter(f"{MAIN}row")]
    header = rows.pop(0)
    return [{name: row.get(column) for column, name in header.items()} for row in rows]


def _column(cell):
    return re.sub(r"\d", "", cell.attrib["r"])


def _text(item):
    """Text of a shared string; `_x000D_` stands for the character with that number."""
    text = "".join(part.text or "" for part in item.iter(f"{MAIN}t"))
    return re.sub(r"_x([0-9A-F]{4})_", lambda found: chr(int(found[1], 16)), text)


def _value(cell, shared):
    number = int(cell.findtext(f"{MAIN}v"))
    return shared[number] if cell.attrib.get("t") == "s" else number
