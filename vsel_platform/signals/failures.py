"""Contents for which a signal could not be computed: never dropped, never a number."""

from collections.abc import Sequence

import pyarrow as pa

from vsel_platform.tables import TABLES


def failures_table(failures: Sequence[tuple[str, str, str]]) -> pa.Table:
    """Rows of the `signal_failures` table from (content id, reason code, detail), sorted by id."""
    rows = sorted(set(failures))
    names = TABLES["signal_failures"].column_names
    return pa.table({name: pa.array([row[i] for row in rows], pa.string()) for i, name in enumerate(names)})
