"""How errors of the engine end a step: as a failure with the error's own text, in whichever asset they rise."""

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import dagster as dg

from vsel_platform.errors import VselError
from vsel_platform.worker import PROGRAM_FAULTS, is_passing

EXIT_CODE = "exit code"
RETRY_MAY_HELP = "retry may help"
_Function = TypeVar("_Function", bound=Callable[..., Any])


def failure(text: str, *, may_pass: bool, exit_code: int) -> dg.Failure:
    """What ends a step: the UI shows `text` first, and the step is retried only where that may go better.

    The metadata tell the same to whoever reads the run later: `vsel run`, and the sensor that would ask again.
    """
    return dg.Failure(text, metadata={EXIT_CODE: exit_code, RETRY_MAY_HELP: may_pass}, allow_retries=may_pass)


@contextmanager
def failures() -> Iterator[None]:
    """Turn an error of the engine into the failure of the step.

    So is a fault of the platform, which Dagster would try again, and with it what was computed and published before.
    """
    try:
        yield
    except VselError as error:
        raise failure(str(error), may_pass=is_passing(error), exit_code=error.exit_code) from error
    except PROGRAM_FAULTS as error:
        text = f"{type(error).__name__}: {error}"
        raise failure(text, may_pass=is_passing(error), exit_code=VselError.exit_code) from error


def fails_in_words(function: _Function) -> _Function:
    """Decorate what an asset or op computes (below `@dg.asset`): errors of the engine are told by `failures`.

    Without it the UI shows Dagster's own error and hides the engine's text behind its frames.
    """
    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def generate(*arguments: Any, **named: Any) -> Iterator[Any]:
            with failures():
                yield from function(*arguments, **named)

        return cast("_Function", generate)

    @functools.wraps(function)
    def compute(*arguments: Any, **named: Any) -> Any:
        with failures():
            return function(*arguments, **named)

    return cast("_Function", compute)
