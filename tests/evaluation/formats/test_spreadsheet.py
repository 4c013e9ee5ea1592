import io
import zipfile

from hypothesis import given
from hypothesis import strategies as st
from workbooks import read_workbook

from vsel_platform.evaluation.formats.spreadsheet import LONGEST_CELL, workbook

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters=[*map(chr, range(32)), "\ufffe", "\uffff"]), min_size=1)
CELLS = st.one_of(st.none(), st.integers(-(10**15), 10**15), TEXTS)


@given(st.lists(st.lists(CELLS, min_size=3, max_size=3).filter(any)))
def test_cells_come_back(rows):
    found = read_workbook(workbook(["a", "b", "c"], rows))
    assert [list(row.values()) for row in found] == rows


def test_line_breaks_blanks_and_what_looks_like_a_formula_or_xml_stay():
    texts = [" a\n\tb\r\nc ", "=1+1", "<b>&amp;</b>", "007", "https://a.example"]
    assert read_workbook(workbook(["t"], [[text] for text in texts])) == [{"t": text} for text in texts]


def test_what_a_cell_cannot_hold_is_left_out():
    (row,) = read_workbook(workbook(["t", "u"], [["a\ud800b", "x" * (LONGEST_CELL + 1)]]))
    assert row == {"t": "ab", "u": "x" * LONGEST_CELL}


def test_the_same_cells_are_the_same_bytes():
    content = workbook(["a"], [["b"]])
    assert content == workbook(["a"], [["b"]]) != workbook(["a"], [["c"]])
    assert {entry.date_time[0] for entry in zipfile.ZipFile(io.BytesIO(content)).infolist()} == {1980}
