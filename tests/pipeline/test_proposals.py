"""Proposed questions: from a dataset to a file of synthetic rows, and back in by ingest."""

import json
from pathlib import Path

import pytest
from small_project import project_values, row, text_row, write_models, write_rows
from tiny_llava import tiny_model, tiny_tokenizer

from vsel_platform.config import load_project
from vsel_platform.config_evaluation import AskingSettings
from vsel_platform.errors import ConfigError, DataError, NotMaterializedError
from vsel_platform.pipeline import ingest, proposals
from vsel_platform.pipeline.context import Context
from vsel_platform.pipeline.proposals import propose

ASKING = AskingSettings(questions=4, question_tokens=12, answer_tokens=12)
SQL = """
    select json_extract_string(coalesce(m.row_json, s.row_json), '$.synthetic.of') as of, m.task
    from manifest m join samples s using (sample_id)
    where m.dataset = '{}' and json_extract(coalesce(m.row_json, s.row_json), '$.synthetic') is not null
"""


def model_that_ends(directory: Path) -> None:
    """A tiny model whose texts have an end, as those of a trained one."""
    import torch

    model = tiny_model()
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        model.lm_head.weight[tiny_tokenizer().eos_token_id] = torch.randn(model.lm_head.weight.shape[1])
    model.save_pretrained(directory)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A small dataset of pictures and texts."""
    found = tmp_path_factory.mktemp("proposals")
    _, vlm = write_models(tmp_path_factory.mktemp("models"))
    model_that_ends(vlm)
    write_rows(found, [*(row(i) for i in range(12)), *(text_row(i) for i in range(3))])
    values = project_values(found, vlm.parent)
    values["vlm"]["template"] = "plain"
    values["datasets"]["asked"] = {
        "source": str(found / "asked.json"), "image_root": str(found / "images"), "task": {"column": "task"},
    }  # fmt: skip
    (found / "vsel.yaml").write_text(json.dumps(values))
    ingest.run(context(found), "shapes")
    return found


def context(directory):
    return Context(load_project(directory / "vsel.yaml"))


@pytest.fixture(scope="module")
def proposed(directory):
    """Report, and rows of the file."""
    report = propose(context(directory), "shapes", ASKING, rows=8, to=directory / "asked.json")
    return report, json.loads((directory / "asked.json").read_text())


def test_rows_are_about_images_of_the_dataset_and_marked(directory, proposed):
    report, rows = proposed
    assert report.asked == 8
    assert report.failed == 0
    assert report.written == len(rows) > 3
    known = {f"{task}/{i}.png": task for i in range(12) for task in [row(i)["task"]]}
    stored = context(directory).store
    ids = {s for p in stored.pointers("samples") for s in stored.read(p, ["sample_id"])["sample_id"].to_pylist()}
    for own in rows:
        assert own["task"] == f"{known[own['image']]}_synthetic"
        assert own["synthetic"] == {"by": report.by, "method": "self_questioning", "of": own["synthetic"]["of"]}
        assert own["synthetic"]["of"] in ids
        assert [turn["from"] for turn in own["conversations"]] == ["human", "gpt"]
        assert all(turn["value"].strip() for turn in own["conversations"])
    assert len({own["id"] for own in rows}) == len(rows)


def test_every_question_is_written_or_counted(proposed):
    report, _ = proposed
    assert report.asked * ASKING.questions == report.written + sum(report.dropped.values()) + sum(
        report.refused.values()
    )


def test_an_ingest_takes_the_file_and_keeps_the_markers(directory, proposed):
    report, rows = proposed
    ctx = context(directory)
    assert report.settings == {
        "source": str(directory / "asked.json"), "image_root": str(directory / "images"), "task": {"column": "task"},
    }  # fmt: skip
    result = ingest.run(ctx, "asked")
    assert (result.manifest.rows, result.quarantine.rows) == (len(rows), 0)
    from vsel_platform.storage.sql import run_query

    found = sorted(map(tuple, run_query(ctx.store, SQL.format("asked")).rows))
    assert found == sorted((own["synthetic"]["of"], own["task"]) for own in rows)
    assert not run_query(ctx.store, SQL.format("shapes")).rows


def test_nothing_is_proposed_about_proposed_rows(directory, proposed, tmp_path):
    ctx = context(directory)
    ingest.run(ctx, "asked")
    with pytest.raises(DataError, match="no row with an image"):
        propose(ctx, "asked", ASKING, rows=4, to=tmp_path / "again.json")


def test_the_same_seed_gives_the_same_file_and_more_rows_keep_the_chosen_ones(directory, proposed, tmp_path):
    ctx = context(directory)
    again, more = tmp_path / "again.json", tmp_path / "more.json"
    propose(ctx, "shapes", ASKING, rows=8, to=again)
    assert again.read_bytes() == (directory / "asked.json").read_bytes()
    report = propose(ctx, "shapes", ASKING, rows=100, to=more, task="asked")
    assert report.asked == 12
    rows = json.loads(more.read_text())
    assert {own["task"] for own in rows} == {"asked"}
    texts = {json.dumps(own["conversations"]) for own in rows}
    assert {json.dumps(own["conversations"]) for own in proposed[1]} <= texts


def test_a_killed_run_goes_on_from_its_last_window(directory, proposed, tmp_path, monkeypatch):
    ctx = context(directory)
    given, asked = proposals.propose_questions, []
    monkeypatch.setattr(proposals, "WINDOW_ROWS", 3)

    def counted(model, rows, *args, **options):
        asked.append(len(rows))
        windows = given(model, rows, *args, **options)
        yield next(windows)
        if len(asked) == 1:
            raise KeyboardInterrupt
        yield from windows

    monkeypatch.setattr(proposals, "propose_questions", counted)
    with pytest.raises(KeyboardInterrupt):
        propose(ctx, "shapes", ASKING, rows=8, to=tmp_path / "a.json")
    assert not (tmp_path / "a.json").exists()
    propose(ctx, "shapes", ASKING, rows=8, to=tmp_path / "a.json")
    assert asked == [8, 5]
    assert (tmp_path / "a.json").read_bytes() == (directory / "asked.json").read_bytes()
    propose(ctx, "shapes", ASKING, rows=8, to=tmp_path / "b.json")
    assert asked == [8, 5, 8], "what was written is forgotten"


def test_rows_that_an_ingest_would_refuse_are_left_out_and_counted(directory, proposed, tmp_path):
    ctx = context(directory)
    picture = directory / "images" / proposed[1][0]["image"]
    kept = picture.read_bytes()
    real = proposals._target_settings

    def gone(*args):
        picture.unlink()
        return real(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proposals, "_target_settings", gone)
        report = propose(ctx, "shapes", ASKING, rows=8, to=tmp_path / "a.json")
    picture.write_bytes(kept)
    lost = sum(own["image"] == proposed[1][0]["image"] for own in proposed[1])
    assert report.refused == {"image_missing": lost}
    assert report.written == len(proposed[1]) - lost


def test_a_broken_image_fails_its_row_only(directory, proposed, tmp_path):
    picture = directory / "images" / proposed[1][0]["image"]
    kept = picture.read_bytes()
    picture.write_bytes(b"no picture")
    report = propose(context(directory), "shapes", ASKING, rows=8, to=tmp_path / "a.json")
    picture.write_bytes(kept)
    assert report.failed == 1
    assert 0 < report.written < len(proposed[1])


def test_the_source_is_never_replaced(directory):
    with pytest.raises(ConfigError, match="is a source of dataset shapes"):
        propose(context(directory), "shapes", ASKING, rows=1, to=directory / "rows.json")


def test_a_recipe_without_a_checkpoint_cannot_be_asked(directory, tmp_path):
    with pytest.raises(NotMaterializedError, match="finetuned_checkpoint"):
        propose(context(directory), "shapes", ASKING, rows=1, to=tmp_path / "a.json", recipe="random")


def test_images_inside_of_the_source_cannot_be_named(tmp_path):
    with pytest.raises(DataError, match="dataset d, row 3: its images are inside"):
        proposals._image_paths(
            "d", 3, "huggingface", json.dumps({"image": {"bytes": {"image_id": "x"}}, "messages": []}).encode()
        )
