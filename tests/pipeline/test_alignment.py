"""Agreement of images and questions through the whole store, with one CLIP checkpoint for both."""

import json

import pytest
import torch
from PIL import Image
from tiny_encoders import save_tiny_joint

from vsel_platform.errors import ConfigError
from vsel_platform.methods.registry import composition
from vsel_platform.pipeline import method_scores
from vsel_platform.pipeline.estimate import estimate
from vsel_platform.pipeline.plan import next_steps

N_ROWS, N_TEXT = 90, 6


@pytest.fixture(scope="module")
def clip_dir(tmp_path_factory):
    return save_tiny_joint(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def changes(clip_dir):
    joint = {"name": "huggingface", "model": str(clip_dir), "feature": "joint"}
    recipe = {"dataset": "shapes", "method": "clip_score", "budget": {"rows": 20}}
    return {"image_encoder": joint, "text_encoder": joint, "recipes": {"fit": recipe}}


@pytest.fixture(scope="module")
def driven(make_project, changes):
    """Driven to the end once. Nothing may change it."""
    project = make_project("alignment")
    project.drive(["fit"], changes)
    return project


def scores(ctx):
    key = method_scores.partition("shapes", composition(ctx.project, ctx.project.recipe("fit")))
    return {row["sample_id"]: row for row in ctx.store.read_partition(method_scores.TABLE, key).to_pylist()}


def plain_cosine(clip_dir, image, question):
    """Cosine of a picture and a text from the whole model at once."""
    from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

    pixels = AutoImageProcessor.from_pretrained(clip_dir, backend="pil")(
        images=image.convert("RGB"), return_tensors="pt"
    )
    text = AutoTokenizer.from_pretrained(clip_dir)(question, truncation=True, return_tensors="pt")
    with torch.no_grad():
        found = CLIPModel.from_pretrained(clip_dir)(**pixels, **text)
    return float((found.image_embeds @ found.text_embeds.T)[0, 0])


def test_scores_are_the_cosines_of_the_plain_model(driven, changes, clip_dir):
    ctx = driven.context(changes)
    found = scores(ctx)
    assert len(found) == N_ROWS + N_TEXT
    assert sum(row["value"] is None for row in found.values()) == N_TEXT
    shards = [pointer.partition["shard"] for pointer in ctx.store.pointers("samples")]
    table = {}
    for shard in shards:
        table |= {row["sample_id"]: row for row in ctx.store.read_partition("samples", {"shard": shard}).to_pylist()}
    paths = {
        row["image_id"]: row["path"]
        for shard in shards
        for row in ctx.store.read_partition("images", {"shard": shard}).to_pylist()
    }
    for sample in [i for i, row in found.items() if row["value"] is not None][:5]:
        question = f"What is the {found[sample]['task']}?"
        assert question in str(table[sample]["conversation"])
        with Image.open(paths[found[sample]["image_id"]]) as image:
            cosine = plain_cosine(clip_dir, image, question)
        assert found[sample]["value"] == pytest.approx(max(0, cosine), abs=1e-5)
        assert json.loads(found[sample]["details"])["cosine"] == pytest.approx(cosine, abs=1e-5)


def test_the_best_rows_and_a_share_of_the_texts_are_selected(driven, changes):
    ctx = driven.context(changes)
    chosen = ctx.store.read_partition("selected_subset", {"recipe": "fit"}).to_pylist()
    values = scores(ctx)
    images = [row["sample_id"] for row in chosen if row["stratum"] != "text"]
    best = sorted((i for i, r in values.items() if r["value"] is not None), key=lambda i: (-values[i]["value"], i))
    assert images == best[: len(images)]
    assert len(chosen) - len(images) == 1  # 6 of 96 rows, of 20 places
    assert next_steps(ctx, ["fit"]) == []


def test_the_dry_run_counts_both_encoders(make_project, changes):
    project = make_project("alignment_dry")
    stages = {line.stage for line in estimate(project.context(changes), ["fit"], train=False).lines}
    signals = {"image_embeddings", "text_embeddings"}
    assert stages == {"dataset_manifest", *signals, "clip_score_scores", "selected_subset"}


def test_encoders_of_two_spaces_are_refused_before_anything_runs(driven, changes):
    for change in ({"image_encoder.feature": "own"}, {"text_encoder.feature": "mean"}):
        with pytest.raises(ConfigError, match="score clip_score requires `feature: joint`"):
            driven.drive(["fit"], changes | change)
