import base64
import re
from pathlib import Path

import dagster as dg
import pytest
from report_store import (
    full_context,
    publish,
    publish_answers,
    publish_content,
    publish_evaluation,
    publish_scores,
    publish_selection,
    report_context,
)

from assets import plots, reporting, signal_plots
from vsel_platform.pipeline.context import Context
from vsel_platform.reports.html import figures

CALLS = {
    "dataset": (plots.dataset, "shapes"),
    "quarantine": (plots.quarantine, "shapes"),
    "embeddings": (signal_plots.embeddings, "one"),
    "losses": (signal_plots.losses, "one"),
    "reference": (plots.reference, "shapes"),
    "presel": (plots.presel, "shapes"),
    "selection": (plots.selection, "typical"),
    "evaluation": (lambda ctx, recipe: plots.evaluation(ctx, recipe, "held_out"), "typical"),
    "metrics": (lambda ctx, recipe: plots.metrics(ctx, recipe, "held_out"), "base"),
}


@pytest.fixture(scope="module")
def ctx(tmp_path_factory: pytest.TempPathFactory) -> Context:
    return full_context(tmp_path_factory.mktemp("store"))


def images(metadata: dict[str, dg.MetadataValue]) -> dict[str, bytes]:
    """PNG bytes of the Markdown images."""
    found = {}
    for name, value in metadata.items():
        match = re.fullmatch(r"!\[(.+)\]\(data:image/png;base64,([A-Za-z0-9+/=]+)\)", str(value.value))
        if match:
            assert match[1] == name
            found[name] = base64.b64decode(match[2], validate=True)
    return found


def table_rows(value: dg.MetadataValue) -> list[str]:
    return str(value.value).split("\n")[2:]


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("dataset", {"rows by task"}),
        ("quarantine", {"reasons"}),
        ("embeddings", {"embedding map"}),
        ("losses", {"instruction relevance, shapes"}),
        ("reference", {"reference rows by task"}),
        ("presel", {"task difficulty", "typicality", "most and least typical"}),
        ("selection", {"budgets", "typicality", "embedding map", "first and last rows"}),
        ("evaluation", {"exact match and loss"}),
        ("metrics", set()),
    ],
)
def test_published_data_are_plotted(ctx, call, expected):
    function, key = CALLS[call]
    metadata = function(ctx, key)
    assert all(isinstance(value, dg.MetadataValue) for value in metadata.values())
    found = images(metadata)
    assert set(found) == expected
    assert all(png.startswith(b"\x89PNG") and len(png) < 90_000 for png in found.values())


@pytest.mark.parametrize("call", CALLS)
def test_an_empty_store_has_nothing_to_show(tmp_path, call):
    function, key = CALLS[call]
    assert function(report_context(tmp_path), key) == {}


@pytest.mark.parametrize("call", sorted(set(CALLS) - {"dataset"}))
def test_empty_partitions_have_nothing_to_show(tmp_path, call):
    ctx = report_context(tmp_path)
    for table in ("manifest", "quarantine"):
        publish(ctx, table, {"dataset": "shapes"}, [])
    for table in ("samples", "images"):
        publish(ctx, table, {"shard": "one"}, [])
    publish(ctx, "reference_subset", {"dataset": "shapes"}, [])
    for table in ("presel_scores", "presel_tasks"):
        publish(ctx, table, {"dataset": "shapes", "mode": "default"}, [])
    for table in ("selected_subset", "selected_tasks"):
        publish(ctx, table, {"recipe": "typical"}, [])
    for recipe in ("base", "typical"):
        publish(ctx, "evaluation", {"recipe": recipe, "benchmark": "held_out"}, [])
    function, key = CALLS[call]
    assert function(ctx, key) == {}


def test_counts_of_a_dataset(ctx):
    metadata = plots.dataset(ctx, "shapes")
    values = {name: metadata[name].value for name in ("distinct rows", "repeated rows", "tasks")}
    assert values == {"distinct rows": 60, "repeated rows": 3, "tasks": 4}


def test_quarantine_lists_its_first_twenty_rows_as_text(ctx):
    rows = table_rows(plots.quarantine(ctx, "shapes")["first refused rows"])
    assert len(rows) == 20
    assert rows[0].startswith(r"| 200 | bad\|reason | \<script\>")


def test_reasons_are_explained_most_frequent_first(tmp_path):
    ctx = report_context(tmp_path)
    publish_content(ctx, tmp_path)
    reasons = ["duplicate_row", "duplicate_row", "image_missing"]
    refused = [{"position": i, "reason": reason, "detail": "d"} for i, reason in enumerate(reasons)]
    publish(ctx, "quarantine", {"dataset": "shapes"}, refused)
    rows = table_rows(plots.quarantine(ctx, "shapes")["what the reasons mean"])
    assert rows[0].startswith("| duplicate_row | 2 | The complete row, id included,")
    assert rows[0].endswith("the same content under another id is accepted, as a repeated row. |")
    assert "scored and selected once" in str(plots.dataset(ctx, "shapes")["what repeated rows are"].value)


def test_reference_rows_are_listed_for_every_task(ctx):
    rows = table_rows(plots.reference(ctx, "shapes")["tasks"])
    assert r"| colour | 24 | 4 | 16.7% | 4 |" in rows
    assert r"| text | 4 | 0 | 0.0% | 0 |" in rows


def test_a_dataset_without_refused_rows_has_no_quarantine_plot(tmp_path):
    ctx = report_context(tmp_path)
    publish_content(ctx, tmp_path)
    publish(ctx, "quarantine", {"dataset": "shapes"}, [])
    assert plots.quarantine(ctx, "shapes") == {}


def test_training_curve_comes_from_the_losses_beside_the_adapter(ctx):
    assert set(images(plots.training_curve(ctx, "reference_model", "dataset", "shapes"))) == {"training loss"}


@pytest.mark.parametrize("files", [{"README.md": "card"}, {"losses.json": "[]"}])
def test_an_adapter_without_losses_has_no_curve(tmp_path, files):
    ctx = report_context(tmp_path)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    for name, text in files.items():
        (adapter / name).write_text(text)
    ctx.store.publish_artifact("reference_model", {"dataset": "shapes"}, adapter)
    assert plots.training_curve(ctx, "reference_model", "dataset", "shapes") == {}
    assert plots.training_curve(ctx, "finetuned_checkpoint", "recipe", "typical") == {}


def test_presel_plots_every_mode_that_a_recipe_uses(tmp_path):
    ctx = report_context(tmp_path)
    publish_content(ctx, tmp_path)
    publish_scores(ctx)
    recipe = ctx.project.recipes["typical"].model_copy(update={"mode": "released"})
    project = ctx.project.model_copy(update={"recipes": {**ctx.project.recipes, "as_released": recipe}})
    both = Context(project)
    for table in ("presel_scores", "presel_tasks"):
        rows = ctx.store.read_partition(table, {"dataset": "shapes", "mode": "default"})
        both.store.publish(table, {"dataset": "shapes", "mode": "released"}, rows)
    names = set(images(plots.presel(both, "shapes")))
    assert names >= {"typicality", "typicality (released)"}
    assert set(images(plots.presel(ctx, "shapes"))) == {n for n in names if "released" not in n}


def test_selection_has_its_tasks_and_files(ctx):
    metadata = plots.selection(ctx, "typical")
    *rows, empty, legend = table_rows(metadata["tasks"])
    assert len(rows) == 4
    assert (empty, legend[:49]) == ("", "share: of the image rows left after reference; in")
    headers = str(metadata["tasks"].value).split("\n")[0].strip("| ").split(" | ")
    assert max(map(len, headers)) <= 10  # the UI breaks none, and a wide one pushes others out of sight
    for name, file in {"manifest": "manifest.json", "training file": "selected.json", "plot page": "page.html"}.items():
        assert isinstance(metadata[name], dg.PathMetadataValue)
        assert Path(str(metadata[name].value)).name == file
    page = Path(str(metadata["plot page"].value)).read_text()
    assert {plot.name: plot.png for plot in figures(page)} == images(metadata)


def publish_files(ctx, artifact, partition, directory, *names):
    directory.mkdir()
    for name in names:
        (directory / name).write_text(f"text of {name}")
    ctx.store.publish_artifact(artifact, partition, directory)


def test_every_file_of_an_artifact_has_a_label_of_its_own(tmp_path):
    ctx = report_context(tmp_path)
    publish_files(ctx, "leakage_page", {"recipe": "r"}, tmp_path / "a", "one.html", "one.md", "two.html", "two.md")
    found = plots.page(ctx, "leakage_page", {"recipe": "r"})
    paths = {label: Path(value.value).name for label, value in found.items() if isinstance(value, dg.PathMetadataValue)}
    assert paths == {
        "leaked questions: one (page)": "one.html",
        "leaked questions: one (Markdown)": "one.md",
        "leaked questions: two (page)": "two.html",
        "leaked questions: two (Markdown)": "two.md",
    }
    publish_files(ctx, "leaderboard_page", {"benchmark": "b"}, tmp_path / "b", "loss.html", "f1.html")
    board = plots.page(ctx, "leaderboard_page", {"benchmark": "b"})
    assert set(board) == {"leaderboard: loss (page)", "leaderboard: f1 (page)"}
    publish_files(ctx, "comparison", {"dataset": "d"}, tmp_path / "c", "page.html", "manifest.json", "1.json", "2.json")
    assert set(reporting.files(ctx, "comparison", {"dataset": "d"})) == {
        "plot page", "manifest", "training file: 1.json", "training file: 2.json"
    }  # fmt: skip


def test_markdown_of_an_artifact_is_shown(tmp_path):
    ctx = report_context(tmp_path)
    publish_files(ctx, "leakage_page", {"recipe": "r"}, tmp_path / "a", "one.html", "one.md", "two.md")
    found = plots.page(ctx, "leakage_page", {"recipe": "r"})
    texts = {name: value.value for name, value in found.items() if isinstance(value, dg.MarkdownMetadataValue)}
    assert texts == {"leaked questions: one": "text of one.md", "leaked questions: two": "text of two.md"}


def test_a_random_selection_needs_no_scores(tmp_path):
    ctx = report_context(tmp_path)
    publish_content(ctx, tmp_path)
    publish_selection(ctx, tmp_path, "drawn")
    assert set(images(plots.selection(ctx, "drawn"))) == {"budgets", "first and last rows"}


def test_evaluation_gives_intervals_losses_and_verdicts(tmp_path):
    ctx = report_context(tmp_path)
    publish_evaluation(ctx)
    metadata = plots.evaluation(ctx, "typical", "held_out")
    rows = table_rows(metadata["results by task"])
    assert [row.split(" | ")[-1].removesuffix(" |") for row in rows] == ["learned", "not learned", "worse"]
    answers, _, tuned, *losses = rows[0].split(" | ")[1:6]
    assert (answers, losses) == ("100", ["1.5", "1"])
    low, high = (float(end) for end in re.fullmatch(r"80\.0 \((.*) to (.*)\)", tuned).groups())
    assert 69 < low < 76
    assert 84 < high < 90
    assert "side: worse, loss 1.500 -> 1.000 nat/token, 70.0 -> 30.0 percent." in str(metadata["notes"].value)


def test_metrics_are_listed_with_intervals_and_what_was_not_understood(tmp_path):
    ctx = report_context(tmp_path)
    publish_answers(ctx, "typical", {"colour": (80, 1.0), "side": (0, 2.0)})
    metadata = plots.evaluation(ctx, "typical", "held_out")  # without the base model there is nothing to compare
    assert set(metadata) == {"metrics"}
    rows = [row.strip("| ").split(" | ") for row in table_rows(metadata["metrics"])]
    assert [row[:2] for row in rows[:3]] == [
        ["exact_match", "all"],
        ["exact_match", "colour"],
        ["exact_match", "side"],
    ]
    assert rows[0][2].startswith("40.0 (")
    assert rows[2][2:] == ["0.0 (0.0 to 3.6)", "percent", "100", "0"]  # exact binomial: nothing to resample
    assert [row[0] for row in rows[3:]] == ["loss"] * 3


def test_a_metric_without_a_spread_is_shown_without_an_interval(tmp_path):
    ctx = report_context(tmp_path)
    row = {"measure": "accuracy", "category": "", "unit": "percent", "lower_is_better": False, "n_unparsed": 0}
    cases = [(50.0, 50.0, 50.0), (50.0, None, None), (None, None, None), (50.0, 40.0, 61.0)]
    rows = [
        row | {"position": i, "category": str(i), "value": value, "low": low, "high": high, "n_questions": 2}
        for i, (value, low, high) in enumerate(cases)
    ]
    rows.append(rows[-1] | {"measure": "loss", "unit": "nat/token", "value": 0.1234, "low": 0.1, "high": 0.2})
    publish(ctx, "evaluation", {"recipe": "typical", "benchmark": "held_out"}, rows)
    shown = [line.split(" | ")[2] for line in table_rows(plots.metrics(ctx, "typical", "held_out")["metrics"])]
    assert shown == ["50.0", "50.0", "-", "50.0 (40.0 to 61.0)", "0.123 (0.100 to 0.200)"]


def test_evaluation_says_when_its_adapter_is_older_than_the_selection(tmp_path):
    ctx = report_context(tmp_path)
    publish_content(ctx, tmp_path)
    publish_selection(ctx, tmp_path)
    publish_evaluation(ctx)
    assert "trained on 14 rows of the present selection" in str(
        plots.evaluation(ctx, "typical", "held_out")["notes"].value
    )
    assert "checkpoint" not in plots.selection(ctx, "typical")
    rows = ctx.store.read_partition("selected_subset", {"recipe": "typical"}).to_pylist()
    publish(ctx, "selected_subset", {"recipe": "typical"}, rows[1:])
    assert "14 rows of an earlier state" in str(plots.selection(ctx, "typical")["checkpoint"].value)
    assert "14 rows of an earlier state of the selection" in str(
        plots.evaluation(ctx, "typical", "held_out")["notes"].value
    )
