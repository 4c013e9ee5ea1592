"""Plots of signals, made from what stages published."""

import base64
import re

import numpy as np
import pytest
from free2ds_project import free2ds_settings
from small_project import project_values, small_rows, write_rows

from assets import signal_plots
from vsel_platform.config import parse_project
from vsel_platform.pipeline import clustering, hidden_states, moments, representations, text_embeddings
from vsel_platform.pipeline.context import Context
from vsel_platform.pipeline.drive import drive
from vsel_platform.pipeline.lookup import dataset_shards
from vsel_platform.reports import map_data

RECIPES = {
    "scalselect": {"dataset": "shapes", "method": "scalselect", "budget": {"rows": 20}},
    "coincide": {"dataset": "shapes", "method": "coincide", "budget": {"rows": 20}},
}


@pytest.fixture(scope="module")
def ctx(tmp_path_factory):
    import yaml

    directory = tmp_path_factory.mktemp("signals")
    write_rows(directory, small_rows())
    models = tmp_path_factory.mktemp("models")
    encoder = free2ds_settings(models)["text_encoder"]
    values = project_values(directory, models, recipes=RECIPES, text_encoder=encoder)
    found = Context(parse_project(yaml.safe_dump(values), base_dir=str(directory)))
    drive(found, list(RECIPES), train=False, log=lambda _: None)
    return found


def titles(metadata):
    """Titles of the PNGs."""
    found = []
    for name, value in metadata.items():
        data = re.fullmatch(r"!\[.+\]\(data:image/png;base64,([A-Za-z0-9+/=]+)\)", str(value.value))
        assert data is not None
        assert base64.b64decode(data[1]).startswith(b"\x89PNG")
        found.append(name)
    return found


def test_rows_of_a_shard_are_mapped_by_every_signal_that_gives_rows_vectors(ctx):
    *_, last = dataset_shards(ctx, "shapes")  # the one with the text-only rows
    for stage in (representations.STAGE, hidden_states.STAGE):
        assert titles(signal_plots.row_vectors(ctx, stage, last)) == ["embedding map"]
    rows = map_data.row_map(ctx, hidden_states.STAGE, last)
    assert set(rows.tasks) == {"name", "colour", "count", "text"}
    assert "text" not in map_data.row_map(ctx, representations.STAGE, last).tasks
    assert len(rows.vectors) == len(hidden_states.STAGE.wanted(ctx, last))
    few = map_data.row_map(ctx, hidden_states.STAGE, last, limit=4)
    assert (len(few.vectors), few.sampled) == (4, True)
    np.testing.assert_array_equal(few.vectors, rows.vectors[:4])


def test_distinct_questions_are_mapped_with_the_task_of_their_first_row(ctx):
    *_, last = dataset_shards(ctx, "shapes")
    assert signal_plots.questions(ctx, last) == {}  # no recipe has asked for them
    text_embeddings.run(ctx, last)
    assert titles(signal_plots.questions(ctx, last)) == ["embedding map"]
    found = map_data.question_map(ctx, last)
    assert len(found.vectors) == len(text_embeddings.STAGE.wanted(ctx, last))
    assert sorted(set(found.tasks)) == ["colour", "count", "name", "text"]
    assert found.tasks.count("colour") == 1  # all its rows ask the same


def test_clusterings_show_their_sizes_and_moments_their_variance(ctx, monkeypatch):
    pointers = [p.reference for p in ctx.store.pointers(clustering.TABLE)]
    assert pointers
    assert len(titles(signal_plots.clusters(ctx, pointers))) == len(pointers)
    assert titles(signal_plots.moments(ctx, "shapes")) == ["variance by direction"]
    monkeypatch.setattr(signal_plots, "SPECTRUM_DIMENSIONS", 8)
    assert moments.read_moments(ctx, ctx.store.require(moments.SIGNAL, moments.partition(ctx, "shapes"))).mean.size > 8
    assert signal_plots.moments(ctx, "shapes") == {}


def test_nothing_published_gives_nothing(tmp_path):
    import yaml

    values = project_values(tmp_path, tmp_path / "models")
    empty = Context(parse_project(yaml.safe_dump(values), base_dir=str(tmp_path)))
    assert signal_plots.row_vectors(empty, hidden_states.STAGE, "one") == {}
    assert signal_plots.questions(empty, "one") == {}
    assert signal_plots.moments(empty, "shapes") == {}
    assert signal_plots.clusters(empty, []) == {}
