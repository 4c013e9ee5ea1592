"""Where the recorded cases of the released systems lie."""

import os
from pathlib import Path

DEFAULT_CASES = Path(__file__).parent.parent / "parity" / "cases"


def parity_dir() -> Path:
    """Directory with `<system>/<step>/` folders: `PARITY_DIR`, or the copy shipped with the tests."""
    return Path(os.environ.get("PARITY_DIR") or DEFAULT_CASES)


def step_dir(system: str, step: str) -> Path:
    """Folder of one recorded step, e.g. `step_dir("presel", "typicality")`."""
    return parity_dir() / system / step
