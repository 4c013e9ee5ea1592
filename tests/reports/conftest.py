from pathlib import Path

import pytest
from report_store import full_context, report_context

from vsel_platform.pipeline.context import Context


@pytest.fixture(scope="module")
def ctx(tmp_path_factory: pytest.TempPathFactory) -> Context:
    """Everything published; tests read it only."""
    return full_context(tmp_path_factory.mktemp("store"))


@pytest.fixture
def empty(tmp_path: Path) -> Context:
    """A project whose store holds nothing."""
    return report_context(tmp_path)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list:
    """Figures that the plot functions of the test drew."""
    from vsel_platform.reports import evaluation_plot, maps, plots, style, training_plots

    figures = []

    def keep(figure):
        figures.append(figure)
        return style.to_png(figure)

    for module in (plots, maps, evaluation_plot, training_plots):
        monkeypatch.setattr(module, "to_png", keep)
    return figures
