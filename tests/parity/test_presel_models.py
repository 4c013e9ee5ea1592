"""PreSel's model steps against the recorded runs of the released code."""

import json

import numpy as np
import pytest
from parity_cases import step_dir
from PIL import Image

from vsel_platform.config import EncoderSettings
from vsel_platform.models.encoders import load_image_encoder
from vsel_platform.models.llava_released import load_released_llava
from vsel_platform.models.released_tokenizer import ReleasedTokenizer
from vsel_platform.signals.image_embeddings import embed_images
from vsel_platform.signals.losses_released import (
    released_labels,
    released_losses,
    released_prompt,
    released_row,
    released_texts,
)

FEATURES = step_dir("presel", "dino_features")
LOSSES = step_dir("presel", "loss_labels")


def read(path):
    return json.loads(path.read_text("utf-8"))


def embedded(name):
    """Vectors and failures of the images of a recorded list, by unique_idx."""
    encoder = load_image_encoder(EncoderSettings(model=str(FEATURES / "tiny_dinov2")), "cpu")
    items = [
        (str(e["unique_idx"]), lambda e=e: Image.open(FEATURES / "images" / e["image"])) for e in read(FEATURES / name)
    ]
    batches = list(embed_images(encoder, items, batch_size=2))
    vectors = {int(i): v for batch in batches for i, v in zip(batch.ids, batch.vectors, strict=True)}
    return vectors, [failure for batch in batches for failure in batch.failures]


@pytest.mark.parametrize("name", [pytest.param("data.json", id="presel/dino_features")])
def test_dinov2_features_are_those_of_the_released_extractor(name):
    vectors, failures = embedded(name)
    with np.load(FEATURES / "output_features.npz") as recorded:
        expected = dict(zip(recorded["unique_idx"].tolist(), recorded["cls"], strict=True))
    assert not failures
    assert list(vectors) == list(expected)
    for unique_idx, vector in vectors.items():
        other = expected[unique_idx]
        cosine = vector @ other / np.linalg.norm(vector) / np.linalg.norm(other)
        assert cosine > 0.999
        np.testing.assert_allclose(vector, other, atol=2e-2)


@pytest.mark.parametrize("name", [pytest.param("data_missing.json", id="presel/dino_features-missing-image")])
def test_a_missing_image_ends_the_released_run_and_is_a_reported_failure_here(name):
    assert read(FEATURES / "expected_error.json")["output_written"] is False
    vectors, failures = embedded(name)
    complete, _ = embedded("data.json")
    absent = [e for e in read(FEATURES / name) if not (FEATURES / "images" / e["image"]).exists()]
    assert absent
    assert [(f.content_id, f.reason) for f in failures] == [(str(e["unique_idx"]), "image_missing") for e in absent]
    assert list(vectors) == list(complete)
    for unique_idx, vector in complete.items():
        np.testing.assert_allclose(vectors[unique_idx], vector, atol=1e-5)


SOURCES = {"with_q": "data_all.json", "without_q": "data_noq.json"}
ITEMS = [
    pytest.param(item, id=f"presel/loss_labels-legacy{int(item['legacy'])}-{item['variant']}-{item['unique_idx']}")
    for item in (read(LOSSES / "labels.json")["items"] if LOSSES.is_dir() else [])
]


@pytest.mark.parametrize("item", ITEMS)
def test_ids_and_labels_are_those_of_the_released_code(item):
    entries = {e["unique_idx"]: e for e in read(LOSSES / SOURCES[item["variant"]])}
    conversations = entries[item["unique_idx"]]["conversations"]
    tokenizer = ReleasedTokenizer(LOSSES / f"llava-tiny-legacy{int(item['legacy'])}")
    assert tokenizer.legacy == item["tokenizer_legacy_attr"]
    ids, labels = released_labels(released_prompt(conversations), tokenizer)
    assert released_texts(conversations) == item["after_preprocess_multimodal"]
    assert ids.tolist() == item["input_ids"]
    assert labels.tolist() == item["labels"]


RUNS = [
    pytest.param("data.json", "with_q", id="presel/loss_labels-loss-with-question"),
    pytest.param("data_noq.json", "without_q", id="presel/loss_labels-loss-without-question"),
]


@pytest.mark.parametrize(("data", "variant"), RUNS)
def test_losses_are_those_of_the_released_script(data, variant):
    result = released_losses(
        read(LOSSES / data),
        LOSSES / "llava-tiny-legacy0",
        LOSSES / "images",
        vision_tower=LOSSES / "clip-tiny",
        device="cpu",
    )
    expected = read(LOSSES / f"out_loss_{variant}_fp32.json")
    assert not result.failures
    assert [v["unique_idx"] for v in result.values] == [v["unique_idx"] for v in expected]
    for value, recorded in zip(result.values, expected, strict=True):
        assert value["loss"] == pytest.approx(recorded["loss"], abs=1e-4, nan_ok=True)
        assert value["perplexity"] == pytest.approx(recorded["perplexity"], rel=1e-3, nan_ok=True)


@pytest.mark.parametrize(("data", "variant"), RUNS)
def test_labels_with_the_image_expanded_are_those_fed_to_the_released_model(data, variant):
    model = load_released_llava(LOSSES / "llava-tiny-legacy0", vision_tower=LOSSES / "clip-tiny", device="cpu")
    with np.load(LOSSES / f"logits_{variant}.npz") as recorded:
        for number, entry in enumerate(read(LOSSES / data)):
            row = released_row(entry["conversations"], model)
            assert row.labels.tolist() == recorded[f"labels_{number}"].reshape(-1).tolist()


@pytest.mark.parametrize("data", [pytest.param("data_all.json", id="presel/loss_labels-masked-row")])
def test_a_row_whose_labels_are_all_masked_is_nan_as_released(data):
    entries = read(LOSSES / data)
    masked = {
        item["unique_idx"]
        for item in read(LOSSES / "labels.json")["items"]
        if not item["legacy"] and item["variant"] == "with_q" and set(item["labels"]) == {-100}
    }
    result = released_losses(
        entries,
        LOSSES / "llava-tiny-legacy0",
        LOSSES / "images",
        vision_tower=LOSSES / "clip-tiny",
        device="cpu",
    )
    assert {v["unique_idx"] for v in result.values if np.isnan(v["loss"])} == masked
