"""Errors of methods that others wrote: where in their file, so that the author finds the line."""

import traceback
from collections.abc import Callable
from typing import Any

TRACEBACK_HINT = "VSEL_TRACEBACK=1 makes `vsel` print the traceback (with `vsel run`: add --engine)"


def describe_failure(error: BaseException, file: str) -> str:
    """What was raised and where: the innermost line of `file`, or of any file if the error comes from elsewhere."""
    if isinstance(error, SyntaxError) and error.filename == file:
        return f"{file}, line {error.lineno}: {type(error).__name__}: {error.msg}. {TRACEBACK_HINT}"
    frames = traceback.extract_tb(error.__traceback__)
    frame = ([found for found in frames if found.filename == file] or frames)[-1]
    return f"{frame.filename}, line {frame.lineno}: {type(error).__name__}: {error}. {TRACEBACK_HINT}"


def file_of(function: Callable[..., Any]) -> str:
    """File that a function was written in; empty for callables without code of their own."""
    code = getattr(function, "__code__", None)
    return code.co_filename if code is not None else ""
