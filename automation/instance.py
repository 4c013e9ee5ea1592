"""Prepares DAGSTER_HOME: `python -m automation.instance` puts the instance settings there and prints its path."""

import os
import sys
import tempfile
from pathlib import Path

from vsel_platform.errors import ConfigError, VselError

ROOT = Path(__file__).resolve().parent.parent
POSTGRES_VARIABLES = (
    "DAGSTER_PG_HOST",
    "DAGSTER_PG_PORT",
    "DAGSTER_PG_USERNAME",
    "DAGSTER_PG_PASSWORD",
    "DAGSTER_PG_DB",
)


def settings_file(root: Path) -> Path:
    """The instance settings to use: dagster.postgres.yaml if DAGSTER_PG_HOST is set, else dagster.yaml.

    Raises ConfigError if the file is missing, or if some but not all of the DAGSTER_PG_* variables are set.
    """
    missing = [name for name in POSTGRES_VARIABLES if not os.environ.get(name)]
    if 0 < len(missing) < len(POSTGRES_VARIABLES):
        raise ConfigError(
            f"PostgreSQL for Dagster needs {', '.join(POSTGRES_VARIABLES)}; not set: {', '.join(missing)}. "
            "Set them, or unset all of them to use SQLite"
        )
    file = root / ("dagster.yaml" if missing else "dagster.postgres.yaml")
    if not file.is_file():
        raise ConfigError(f"no instance settings at {file}; run this in a checkout of the repository")
    return file


def prepare_home(root: Path, home: Path) -> Path:
    """Create `home` with a copy of the instance settings of `root`, and return it.

    The copy is replaced as a whole, so that services may start at the same time; edit the file in `root`, not
    the copy. Raises ConfigError for a relative `home` and for what `settings_file` refuses.
    """
    if not home.is_absolute():
        raise ConfigError(f"DAGSTER_HOME={home} is relative; Dagster needs an absolute path")
    content = settings_file(root).read_bytes()
    home.mkdir(parents=True, exist_ok=True)
    target = home / "dagster.yaml"
    if target.is_file() and target.read_bytes() == content:
        return home
    handle, name = tempfile.mkstemp(prefix=".tmp-", dir=home)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return home


def main() -> int:
    """Prepare the directory that DAGSTER_HOME names (default: .dagster beside this repository's files)."""
    try:
        print(prepare_home(ROOT, Path(os.environ.get("DAGSTER_HOME") or ROOT / ".dagster")))
    except VselError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
