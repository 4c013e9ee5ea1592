from pathlib import Path

import pytest
from report_store import full_context, publish, publish_answers

from vsel_platform.demo.tour import where_to_look
from vsel_platform.pipeline.context import Context


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    """The published store, seen through a project with one dataset and one recipe."""
    full = full_context(tmp_path)
    project = full.project
    one = {"datasets": {"shapes": project.datasets["shapes"]}, "recipes": {"typical": project.recipes["typical"]}}
    return Context(project.model_copy(update=one))


def summary(ctx: Context) -> str:
    return where_to_look(ctx, Path("vsel.yaml"), reselection_s=2, total_s=9)


def test_the_summary_says_what_was_learned_and_what_got_worse(ctx):
    lines = summary(ctx).splitlines()
    assert "recipe typical: 14 rows selected" in lines
    (colour,) = [line.split() for line in lines if line.startswith("colour")]
    assert colour[:4] == ["colour", "100", "10.0", "80.0"]
    assert "typical: not learned (no better than the base within 95 %): count." in lines
    assert any(line.startswith("typical: side: worse, loss 1.500 -> 1.000") for line in lines)


def test_the_summary_says_which_selection_the_adapters_are_of(ctx):
    assert "typical: the adapter was trained on 14 rows of the present selection." in summary(ctx)
    assert "--train" not in summary(ctx)
    publish(ctx, "selected_subset", {"recipe": "typical"}, [])
    assert "typical: the adapter was trained on 14 rows of an earlier state of the selection." in summary(ctx)
    assert "vsel run --train" in summary(ctx)


def test_tasks_that_exact_match_cannot_judge_are_named_once(ctx):
    publish_answers(ctx, "base", {"caption": (0, 1.255)})
    publish_answers(ctx, "typical", {"caption": (0, 1.475)})
    text = summary(ctx)
    assert text.count("No answer is right before or after in: caption.") == 1
    assert "typical: caption: worse, loss 1.255 -> 1.475" in text


def test_where_results_are_in_the_ui_is_told(ctx):
    lines = summary(ctx).splitlines()
    place = next(i for i, line in enumerate(lines) if "make ui" in line)
    assert lines[place + 1].lstrip().startswith("open Assets: the first page is empty until a run is started there")


def test_files_of_the_tour_go_beside_the_project_where_nothing_tracks_them(ctx, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = where_to_look(ctx, tmp_path / "demo" / "vsel.yaml", reselection_s=2, total_s=9)
    assert "vsel export typical --to demo/selected.json --manifest demo/manifest.json" in here
    there = where_to_look(ctx, Path("/elsewhere/vsel.yaml"), reselection_s=2, total_s=9)
    assert "vsel verify /elsewhere/manifest.json --data /elsewhere/selected.json" in there
