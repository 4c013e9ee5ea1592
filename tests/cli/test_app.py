import re
from pathlib import Path

from vsel_platform.cli.app import app
from vsel_platform.errors import RunError, VselError


def subclasses(kind):
    return {kind, *(found for child in kind.__subclasses__() for found in subclasses(child))}


def test_the_help_lists_the_exit_codes_of_all_errors():
    listed = {int(code) for code in re.findall(r"\d+", app.info.epilog)}
    assert listed == {0} | {kind.exit_code for kind in subclasses(VselError) - {RunError}}


def test_the_documentation_lists_the_same_exit_codes():
    text = (Path(__file__).parents[2] / "docs" / "operations.md").read_text("utf-8")
    assert app.info.epilog in " ".join(text.split())
