import dagster as dg
import pytest
from report_store import report_context

from assets.reporting import MAX_PLOT_BYTES, materialized, plot
from vsel_platform.pipeline.context import StageResult


def test_plots_and_tables_come_before_counts(tmp_path):
    """The UI keeps the order of the metadata."""
    result = StageResult(
        "selected_subset", {"recipe": "typical"}, "v", 7, computed=7, metadata={"shortfall": 2, "tasks": 3}
    )
    extra = {"budgets": plot(b"png", "budgets"), "tasks": dg.MetadataValue.md("| a |")}
    metadata = materialized(report_context(tmp_path), result, extra).metadata
    names = list(metadata)
    assert metadata["tasks"] == extra["tasks"]
    assert names[:2] == ["budgets", "tasks"]
    assert {"computed", "reused", "failed", "seconds", "published", "shortfall"} <= set(names[2:])


def test_a_plot_that_the_event_log_cannot_take_is_refused():
    with pytest.raises(ValueError, match="event log"):
        plot(b"x" * (MAX_PLOT_BYTES + 1), "large")
