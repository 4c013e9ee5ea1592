"""Free2DS against recorded runs of the released code; beside it what the corrected default does instead."""

import argparse
import json

import numpy as np
import pytest
from parity_cases import step_dir

from vsel_platform.config import TextEncoderSettings
from vsel_platform.errors import DataError
from vsel_platform.methods import free2ds_released_data as released_data
from vsel_platform.methods.free2ds import Free2dsOptions, joint_scores, select_order
from vsel_platform.methods.free2ds_released import (
    ReleasedFilterOptions,
    assign_to_centroids,
    released_centroids,
    released_filter,
    released_text_scores,
)
from vsel_platform.methods.text_clusters import text_scores
from vsel_platform.models.released_tokenizer import ReleasedTokenizer
from vsel_platform.models.text_encoders import load_text_encoder
from vsel_platform.signals.attention_maps import one_word_question
from vsel_platform.signals.losses_released import released_ids
from vsel_platform.signals.relative_attention import (
    aggregate_maps,
    attention_iou,
    chunk_ious,
    relative_maps,
    step_attention,
)


def read(path):
    return json.loads(path.read_text("utf-8"))


def cases(step):
    """The cases of a step that has one folder for each; empty if this set of cases leaves the step out."""
    folders = sorted(f for f in step_dir("free2ds", step).glob("*") if f.is_dir())
    return [pytest.param(folder, id=f"free2ds/{step}-{folder.name}") for folder in folders]


def one(step, name=None):
    return pytest.param(step_dir("free2ds", step), id=f"free2ds/{step}{'-' + name if name else ''}")


def split_cases():
    folders = sorted(step_dir("free2ds", "ids_split_merge").glob("chunks*"))
    return [pytest.param(folder, id=f"free2ds/ids_split_merge-{folder.name}") for folder in folders]


@pytest.mark.parametrize("folder", [one("ids_split_merge", "ids")])
def test_ids(folder, tmp_path):
    count = released_data.write_with_unique_id(folder / "input.json", tmp_path / "out.json")
    assert count == len(read(folder / "input.json"))
    assert (tmp_path / "out.json").read_bytes() == (folder / "with_id.json").read_bytes()


@pytest.mark.parametrize("chunks", split_cases())
def test_split_and_merge(chunks, tmp_path):
    n_splits = int(chunks.name.removeprefix("chunks"))
    files = released_data.split_into_chunks(
        chunks.parent / "with_id.json", tmp_path / "chunks", n_splits, mode="released"
    )
    assert len(files) == n_splits == len(list(chunks.glob("*.json")))
    for file in files:
        assert file.read_bytes() == (chunks / file.name).read_bytes()
    merged = chunks.parent / f"merged{n_splits}.json"
    if merged.exists():
        released_data.merge_chunks(tmp_path / "chunks", tmp_path / "merged.json", mode="released")
        assert read(tmp_path / "merged.json") == read(merged)
    released_data.merge_chunks(tmp_path / "chunks", tmp_path / "corrected.json")
    assert read(tmp_path / "corrected.json") == read(chunks.parent / "with_id.json")


@pytest.mark.parametrize("folder", [one("ids_split_merge", "float")])
def test_a_number_with_a_fraction_ends_the_released_split(folder, tmp_path):
    source, expected = folder / "float_input.json", read(folder / "expected_error.json")
    with pytest.raises(DataError, match=expected["message"]):
        released_data.split_into_chunks(source, tmp_path, 1, mode="released")
    (corrected,) = released_data.split_into_chunks(source, tmp_path, 1)
    assert read(corrected) == read(source)


@pytest.mark.parametrize("folder", [one("one_word_prompt")])
def test_one_word_prompts(folder):
    recorded = read(folder / "prompts.json")
    model = step_dir("presel", "loss_labels") / "llava-tiny-legacy0"
    tokenizer = ReleasedTokenizer(model)
    for case in (case for case in recorded.values() if isinstance(case, dict) and "input_ids" in case):
        message = released_data.one_word_message(released_data.first_question(case["conversations"]))
        prompt = released_data.one_word_prompt(message, "llava_v1")
        assert released_ids(prompt, tokenizer) == case["input_ids"]
        assert one_word_question(message) == message
    for script, text in recorded["prompt_text"].items():
        message = text[text.index("USER: ") + len("USER: ") : -1]
        template = script[script.index("(") + 1 : -1]
        assert released_data.one_word_prompt(message, template) == text
    with pytest.raises(DataError, match="nothing to ask"):
        released_data.first_question([{"from": "human", "value": "q"}])


def attention_cases():
    path = step_dir("free2ds", "relative_attention") / "cases.json"
    found = read(path) if path.is_file() else []
    return [pytest.param(case, id=f"free2ds/relative_attention-{case['name']}") for case in found]


@pytest.mark.parametrize("case", attention_cases())
def test_relative_attention(case):
    recorded = np.load(step_dir("free2ds", "relative_attention") / "io.npz")
    name, start = case["name"], case["vision_start"]
    vision = (start, start + case["num_vision"])
    steps = [
        step_attention([recorded[f"{name}__a_{step}_{layer}"] for layer in range(case["layers"])], vision)
        for step in range(case["steps"])
    ]
    tolerance = {"rtol": 2e-3, "atol": 2e-3} if "16" in case["dtype"] else {"rtol": 1e-5, "atol": 1e-6}
    maps = relative_maps(np.stack(steps))
    assert maps.dtype == np.float32
    assert maps.size == recorded[f"{name}__relative"].size
    if maps.size:
        np.testing.assert_allclose(np.stack(steps[:-1]), recorded[f"{name}__attention_maps"], **tolerance)
        np.testing.assert_allclose(maps, recorded[f"{name}__relative"], **tolerance)
    assert len(maps) == len(recorded[f"{name}__token_ids"])


@pytest.mark.parametrize("folder", [one("attention_iou", "pairs")])
def test_iou_of_two_vectors(folder):
    pairs = np.load(folder / "pairs.npz")
    for case in read(folder / "cases.json")["calculate_iou"]:
        first, second = pairs[f"a{case['i']}"], pairs[f"b{case['i']}"]
        assert attention_iou(first, second, case["top_p"]) == case["iou"]


def chunk_files(directory):
    return {file.name: read(file) for file in sorted(directory.glob("*.json"))}


@pytest.mark.parametrize("folder", [one("attention_iou", "chunks")])
def test_iou_of_chunk_files(folder):
    first, second = chunk_files(folder / "model1"), chunk_files(folder / "model2")
    recorded = read(folder / "cases.json")["process_chunk_pair"]
    expected = {int(i): iou for ious in recorded.values() for i, iou in ious.items()}
    assert chunk_ious(first, second) == expected
    aggregated = np.load(folder / "aggregated_model1_chunk1.npz")
    records = {r["sample_id"]: r["relative_attention_maps"] for r in first["all_attention_data_chunk_1.json"]}
    found = {i: vector for i, maps in records.items() if (vector := aggregate_maps(maps)) is not None}
    assert list(found) == aggregated["ids"].tolist()
    np.testing.assert_allclose(np.stack(list(found.values())), aggregated["maps"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("folder", [one("bert_embeddings")])
def test_text_vectors(folder):
    (model,) = (f for f in folder.glob("*") if f.is_dir())
    rows = released_data.human_messages(read(folder / "data.json"))
    encoder = load_text_encoder(TextEncoderSettings(model=str(model), feature="cls"), "cpu")
    vectors = encoder.encode([row["message"] for row in rows])
    recorded = sorted(folder.glob("*_metadata.json"))
    assert recorded
    for metadata in recorded:
        assert rows == read(metadata)
        expected = np.load(metadata.with_name(metadata.name.replace("metadata.json", "embeddings.npy")))
        np.testing.assert_allclose(vectors, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("folder", cases("bert_clustering"))
def test_clustering_score(folder):
    vectors, ids = np.load(folder / "embeddings.npy"), [row["unique_id"] for row in read(folder / "metadata.json")]
    labels, distances = assign_to_centroids(vectors, np.load(folder / "kmeans_centroids.npy"))
    np.testing.assert_array_equal(labels, np.load(folder / "nearest_cent.npy"))
    np.testing.assert_allclose(distances, np.load(folder / "dist_to_cent.npy"), rtol=1e-5)
    found = released_text_scores(distances, ids)
    expected = read(folder / "conversation_scores.json")
    assert [str(name) for name in found] == list(expected)
    np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=0, atol=2e-6)


@pytest.mark.parametrize("folder", cases("bert_clustering"))
def test_training_on_the_data_itself(folder):
    vectors, settings = np.load(folder / "embeddings.npy"), read(folder / "meta.json")
    n_clusters, seed = settings["ncentroids"], settings["seed"]
    trained = released_centroids(vectors, n_clusters, n_iterations=settings["niter"], seed=seed)
    recorded = assign_to_centroids(vectors, np.load(folder / "kmeans_centroids.npy"))[1].sum()
    # Centroids of other data (a stale cache) are worse; those of another version of faiss are about as good.
    assert assign_to_centroids(vectors, trained)[1].sum() <= recorded * 1.1
    rows = np.arange(len(vectors))
    corrected = text_scores(vectors, rows, len(rows), n_clusters, seed)
    assert ((corrected >= 0) & (corrected <= 1)).all()


def filter_options(arguments):
    parser = argparse.ArgumentParser()
    for name, field in ReleasedFilterOptions.model_fields.items():
        parser.add_argument(f"--{name}", type=int if name in ("num_samples", "seed") else float, default=field.default)
    return ReleasedFilterOptions(**vars(parser.parse_args(arguments)))


def recorded_ious(case_name):
    """IoU of the recorded maps; one case had no chunk file of the second model."""
    folder = step_dir("free2ds", "attention_iou")
    return (
        {} if case_name == "no_common_chunk" else chunk_ious(*(chunk_files(folder / m) for m in ("model1", "model2")))
    )


@pytest.mark.parametrize("folder", cases("joint_filter"))
def test_joint_filter(folder):
    entries, scores = read(folder / "data.json"), read(folder / "bert_scores.json")
    options, output = filter_options(read(folder / "meta.json")["args"]), folder / "out"
    found = released_filter(entries, recorded_ious(folder.name), scores, options, input_file="data.json")
    assert found.selected_sample_ids == read(output / "selected_sample_ids.json")
    assert found.filtered_data == read(output / "filtered_data.json")
    assert found.filter_stats == read(output / "filter_stats.json")
    expected = read(output / "sample_scores.json")
    assert list(found.sample_scores) == list(expected)
    for name, row in expected.items():
        assert found.sample_scores[name] == pytest.approx(row, rel=0, abs=1e-12)


@pytest.mark.parametrize("folder", cases("joint_filter"))
def test_the_default_never_takes_a_row_for_what_it_lacks(folder):
    scores, released = read(folder / "bert_scores.json"), read(folder / "out" / "sample_scores.json")
    ious = {str(i): value for i, value in recorded_ious(folder.name).items()}
    names = list(released)
    iou = np.array([ious.get(name, np.nan) for name in names])
    text = np.array([1 - scores[name] if name in scores else np.nan for name in names])
    found = joint_scores(iou, text, Free2dsOptions(scaling="minmax"))
    lacking = np.isnan(iou)
    assert all(released[name]["iou_normalized"] == 1.0 for name in np.array(names)[lacking]) or not ious
    assert np.isnan(found.image[lacking]).all()
    assert (found.missing_image, found.missing_text) == (lacking.sum(), np.isnan(text).sum())
    order = select_order(found.joint, names, Free2dsOptions(), seed=1)
    assert len(order) == len(names) - found.unranked
    assert not (np.isnan(iou) & np.isnan(text))[order].any()
