"""Text embeddings: every distinct question once per encoder, whichever shard shows it."""

import numpy as np
import pytest
from free2ds_project import free2ds_settings
from small_project import row, small_rows, text_row

from vsel_platform.models.huggingface_text_encoder import HuggingFaceTextEncoder
from vsel_platform.models.text_encoders import load_text_encoder
from vsel_platform.pipeline import text_embeddings, vector_stage
from vsel_platform.pipeline.lookup import dataset_shards
from vsel_platform.signals.question_texts import text_id

TASK_QUESTIONS = [f"What is the {task}?" for task in ("name", "colour", "count")]
QUESTIONS = [*TASK_QUESTIONS, *(f"Say the number {i}." for i in range(6))]
STAGE = text_embeddings.STAGE


@pytest.fixture(scope="module")
def settings(models):
    return {"text_encoder": free2ds_settings(models)["text_encoder"]}


@pytest.fixture
def project(make_project):
    """A project whose rows are in the store, without signals."""
    project = make_project("texts")
    project.drive(["random"])
    return project


@pytest.fixture
def encoded(monkeypatch):
    """Texts that were given to the encoder."""
    seen = []
    encode = HuggingFaceTextEncoder.encode
    monkeypatch.setattr(HuggingFaceTextEncoder, "encode", lambda self, t: (seen.extend(t), encode(self, t))[1])
    return seen


def run_all(ctx):
    return [text_embeddings.run(ctx, shard) for shard in dataset_shards(ctx, "shapes")]


def stored(ctx):
    ids, vectors = ctx.vectors.read(STAGE.signal, STAGE.fingerprint(ctx), None)
    return dict(zip(ids, vectors, strict=True))


def test_a_question_that_shards_share_is_encoded_once(project, settings, encoded):
    ctx = project.context(settings)
    results = run_all(ctx)
    assert len(results) > 1
    assert sorted(encoded) == sorted(QUESTIONS)
    assert sum(result.computed for result in results) == len(QUESTIONS)
    assert all(result.reused for result in results[1:])
    assert [STAGE.is_current(ctx, shard) for shard in dataset_shards(ctx, "shapes")] == [True] * len(results)
    assert ctx.vectors.check(STAGE.signal, STAGE.fingerprint(ctx)).rows == len(QUESTIONS)
    encoder = load_text_encoder(ctx.project.text_encoder, "cpu")
    found = stored(ctx)
    assert found.keys() == {text_id(question) for question in QUESTIONS}
    for question, vector in zip(QUESTIONS, encoder.encode(QUESTIONS), strict=True):
        np.testing.assert_allclose(found[text_id(question)], vector, atol=1e-5)


def test_a_second_run_encodes_nothing(project, settings, encoded):
    ctx = project.context(settings)
    first = run_all(ctx)
    encoded.clear()
    again = run_all(ctx)
    assert encoded == []
    assert [r.data_version for r in again] == [r.data_version for r in first]
    assert [(r.computed, r.reused) for r in again] == [(0, r.rows) for r in first]


def test_new_rows_cost_their_new_questions_alone(project, settings, encoded):
    run_all(project.context(settings))
    encoded.clear()
    before = stored(project.context(settings))
    project.write([*small_rows(), row(300), text_row(77), text_row(78)])
    project.drive(["random"])
    ctx = project.context(settings)
    run_all(ctx)
    assert sorted(encoded) == ["Say the number 77.", "Say the number 78."]
    after = stored(ctx)
    assert len(after) == len(before) + 2
    assert all((after[i] == vector).all() for i, vector in before.items())


def test_a_killed_run_goes_on_behind_its_finished_batches(project, settings, encoded, monkeypatch):
    monkeypatch.setattr(text_embeddings, "BATCH_TEXTS", 1)
    monkeypatch.setattr(vector_stage, "PART_ROWS", 1)
    ctx = project.context(settings)
    shard = dataset_shards(ctx, "shapes")[0]
    batch = vector_stage.VectorBatch
    made = []

    def killed(*arguments):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(arguments)
        return batch(*arguments)

    monkeypatch.setattr(text_embeddings, "VectorBatch", killed)
    with pytest.raises(KeyboardInterrupt):
        text_embeddings.run(ctx, shard)
    assert not STAGE.is_current(ctx, shard)
    first = list(encoded[:2])
    encoded.clear()
    monkeypatch.setattr(text_embeddings, "VectorBatch", batch)
    text_embeddings.run(ctx, shard)
    assert not set(first) & set(encoded)
    assert {text_id(text) for text in [*first, *encoded]} == set(STAGE.wanted(ctx, shard)) == stored(ctx).keys()
    assert STAGE.is_current(ctx, shard)
    assert not list(ctx.store.files.list("work"))


def test_another_encoder_or_feature_makes_the_vectors_stale(project, settings):
    ctx = project.context(settings)
    run_all(ctx)
    shard = dataset_shards(ctx, "shapes")[0]
    assert STAGE.is_current(project.context(settings | {"text_encoder.batch_tokens": 99}), shard)
    for changes in ({"text_encoder.feature": "mean"}, {"text_encoder.dtype": "bfloat16"}, {"text_encoder.model": "x"}):
        assert not STAGE.is_current(project.context(settings | changes), shard)


def test_a_text_without_a_finite_vector_is_a_reported_failure(project, settings, monkeypatch):
    encode = HuggingFaceTextEncoder.encode

    def broken(self, texts):
        vectors = encode(self, texts)
        vectors[[text == TASK_QUESTIONS[0] for text in texts]] = np.nan
        return vectors

    monkeypatch.setattr(HuggingFaceTextEncoder, "encode", broken)
    ctx = project.context(settings)
    shard = dataset_shards(ctx, "shapes")[0]
    result = text_embeddings.run(ctx, shard)
    assert result.failed == 1
    (failure,) = ctx.store.read_partition(
        "signal_failures", {"signal": STAGE.signal, **STAGE.partition(ctx, shard)}
    ).to_pylist()
    assert (failure["content_id"], failure["reason"]) == (text_id(TASK_QUESTIONS[0]), "no_vector")
    assert "What is the name?" in failure["detail"]
    assert text_id(TASK_QUESTIONS[0]) not in stored(ctx)
