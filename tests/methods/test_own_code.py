"""A failure in somebody's method file is told with the file and the line that its author has to look at."""

import json

from vsel_platform.methods.own_code import describe_failure, file_of


def failure(source, name="own.py"):
    try:
        exec(compile(source, name, "exec"), {"json": json})
    except Exception as error:
        return describe_failure(error, name)
    raise AssertionError("nothing was raised")


def test_the_innermost_line_of_the_file_is_named():
    source = "def inner():\n    return {}['x']\n\ndef outer():\n    return inner()\n\nouter()\n"
    assert failure(source).startswith("own.py, line 2: KeyError: 'x'. VSEL_TRACEBACK=1")


def test_an_error_of_a_library_is_told_at_the_line_that_called_it():
    assert failure("\n\njson.loads('{')\n").startswith("own.py, line 3: JSONDecodeError: ")


def test_an_error_of_another_file_is_told_where_it_is():
    try:
        json.loads("{")
    except ValueError as error:
        text = describe_failure(error, "own.py")
    assert "decoder.py, line " in text


def test_a_file_that_is_no_python_is_told_with_its_line():
    assert failure("a = 1\nb = (\n").startswith("own.py, line 2: SyntaxError: '(' was never closed. ")


def test_functions_know_their_file_and_other_callables_have_none():
    assert file_of(failure) == __file__
    assert file_of(len) == ""
