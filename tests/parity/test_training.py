"""Training of LLaVA-1.5 and MLLM-DataEngine against the recorded runs of the released code."""

import json
import math

import numpy as np
import pytest
import torch
from char_tokenizer import CharTokenizer, PieceTokenizer, supervised_spans
from named_modules import module_of, module_with_linears
from parity_cases import step_dir
from PIL import Image
from released_forward import forward_of

from vsel_platform.errors import DataError
from vsel_platform.models.images_released import (
    background_of,
    best_resolution,
    padded_to_square,
    released_pixels,
    tile_grid,
)
from vsel_platform.training import labels_released as labels
from vsel_platform.training import released, samplers_released
from vsel_platform.training.splice_released import splice

SQ_LABELS = step_dir("sq_llava", "label_masking")
TEMPLATES = step_dir("sq_llava", "conversation_templates") / "fixture.json"


def folder(step, system="llava_base"):
    return step_dir(system, step)


def read(step, name="fixture.json", system="llava_base"):
    file = folder(step, system) / name
    return json.loads(file.read_text("utf-8")) if file.is_file() else None


def cases(step, items, name=lambda i, item: str(i), system="llava_base"):
    return [pytest.param(item, id=f"{system}/{step}-{name(i, item)}") for i, item in enumerate(items or [])]


def whole(step, system="llava_base"):
    """One test for what a step's fixture holds besides its cases; none without the fixture."""
    return [pytest.param(step, id=f"{system}/{step}")] if folder(step, system).is_dir() else []


CHARS = read("label_masking", "char_tokenizer.json") or {"cases": []}
PIECES = read("label_masking", "sentencepiece_tokenizer.json") or {"cases": []}


def systems():
    recorded = json.loads(TEMPLATES.read_text("utf-8"))
    return {"v1": recorded["v1"]["system"], "llava_llama_2": CHARS["system_texts"]["llava_llama_2"]}


def labelled(case, tokenizer):
    """(turns after clean-up, prompt, labels) of a case."""
    template, has_image = case["template"], case["has_image"]
    turns = labels.released_conversation(case["source"]) if has_image else case["source"]
    if template == "plain":
        prompt = labels.released_plain_prompt(turns)
        return turns, prompt, labels.released_plain_labels(prompt, tokenizer)
    if template == "v1":
        prompt, rounds = labels.released_vicuna_prompt(turns, systems()["v1"]), labels.VICUNA
    else:
        prompt = labels.released_llama_2_prompt(turns, systems()["llava_llama_2"])
        rounds = labels.LLAMA_2
    return turns, prompt, labels.released_round_labels(prompt, tokenizer, rounds, has_image=has_image)


@pytest.mark.parametrize("case", cases("label_masking", CHARS["cases"], lambda i, c: f"{c['template']}-{c['case']}"))
def test_labels_of_characters_are_those_of_the_released_code(case):
    tokenizer = CharTokenizer(CHARS["tokenizer"]["alphabet"])
    turns, prompt, found = labelled(case, tokenizer)
    assert turns == case["after_preprocess_multimodal"]
    system = systems().get(case["template"], "\0")
    assert "<s>" + prompt.replace(system, "{system}") == case["prompt"]
    assert found.ids.tolist() == case["input_ids"]
    assert found.labels.tolist() == case["labels"]
    assert found.warning == case["warning"]
    assert supervised_spans(found.labels, tokenizer.decode) == case["supervised_spans"]


@pytest.mark.parametrize(
    "case", cases("label_masking", PIECES["cases"], lambda i, c: f"pieces-{c['case']}-legacy{int(c['legacy'])}")
)
def test_labels_of_pieces_are_those_of_the_released_code(case):
    tokenizer = PieceTokenizer(SQ_LABELS / "tokenizer.json", legacy=case["legacy"])
    _, _, found = labelled(case, tokenizer)
    assert found.ids.tolist() == case["input_ids"]
    assert found.labels.tolist() == case["labels"]
    assert found.warning == case["warning"]
    assert supervised_spans(found.labels, tokenizer.decode) == case["supervised_spans"]


@pytest.mark.parametrize(
    "case", cases("label_masking", read("label_masking", "tokenizer_image_token.json"), lambda i, c: f"image-token-{i}")
)
def test_image_tags_become_ids_as_released(case):
    tokenizer = CharTokenizer(CHARS["tokenizer"]["alphabet"], add_bos=case["tok"] == "bos")
    assert labels.released_image_ids(case["prompt"], tokenizer) == case["ids"]


@pytest.mark.parametrize("step", whole("label_masking"))
def test_batches_are_padded_then_cut_as_released(step):
    recorded = read(step, "collator.json")
    rows = recorded["instances"]
    found = released.collate(
        [row["input_ids"] for row in rows],
        [row["labels"] for row in rows],
        pad_id=recorded["pad_token_id"],
        max_length=recorded["model_max_length"],
    )
    expected = recorded["out"]
    assert [part.tolist() for part in found] == [
        expected["input_ids"], expected["labels"], expected["attention_mask"],
    ]  # fmt: skip
    # A row has one image, a black one if it has none of its own.
    assert [len(rows), *recorded["images_shape"][1:]] == recorded["images_shape"]


SAMPLER = read("group_by_modality_length")


@pytest.mark.parametrize(
    "case",
    cases("group_by_modality_length", (SAMPLER or {}).get("samplers"), lambda i, c: f"{c['kind']}-{i}"),
)
def test_orders_are_those_of_the_released_sampler(case):
    drawn = iter(case["randperm_calls"])
    order = {
        "modality": samplers_released.released_modality_order,
        "length": samplers_released.released_length_order,
    }[case["kind"]]
    found = order(
        case["lengths"],
        batch_size=case["batch_size"],
        world_size=case["world_size"],
        permutation=lambda n: next(drawn),
    )
    assert found == case["indices"]
    assert next(drawn, None) is None


@pytest.mark.parametrize("case", cases("group_by_modality_length", (SAMPLER or {}).get("samplers")))
def test_permutations_are_those_of_torch_with_the_recorded_seed(case):
    torch.manual_seed(case["torch_seed"])
    for expected in case["randperm_calls"]:
        assert torch.randperm(len(expected)).tolist() == expected


@pytest.mark.parametrize("step", whole("group_by_modality_length"))
def test_chunks_lengths_and_the_error_are_those_of_the_released_sampler(step):
    for case in SAMPLER["split_to_even_chunks"]:
        found = samplers_released.released_even_chunks(case["indices"], case["lengths"], case["num_chunks"])
        assert found == case["out"]
    assert samplers_released.released_lengths(SAMPLER["dataset"]) == SAMPLER["lengths"]
    assert samplers_released.released_modality_lengths(SAMPLER["dataset"]) == SAMPLER["modality_lengths"]
    with pytest.raises(DataError) as raised:
        samplers_released.released_modality_order([1, 0], batch_size=1, world_size=1, permutation=range)
    assert str(raised.value) in SAMPLER["zero_length_error"]


@pytest.mark.parametrize("case", cases("lr_schedule", read("lr_schedule", "hf_cosine.json")))
def test_learning_rates_are_those_of_the_cosine_schedule(case):
    assert released.warmup_steps(case["total_steps"], case["warmup_ratio"]) == case["warmup_steps"]
    settings = {key: case[key] for key in ("total_steps", "warmup_steps", "base_lr")}
    found = [released.cosine_rate(step, **settings) for step in range(len(case["lrs"]))]
    np.testing.assert_allclose(found, case["lrs"], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "case",
    cases("lr_schedule_minigpt", read("lr_schedule_minigpt", system="mllm_dataengine"), system="mllm_dataengine"),
)
def test_learning_rates_are_those_of_minigpt(case):
    settings = {key: value for key, value in case.items() if key != "lrs"}
    found = [released.minigpt_rate(int(epoch), int(step), **settings) for epoch, step, _ in case["lrs"]]
    np.testing.assert_allclose(found, [rate for *_, rate in case["lrs"]], rtol=1e-9)


@pytest.mark.parametrize("step", whole("vqa_target_mask_v1", "mllm_dataengine"))
def test_targets_are_those_of_dataengine_v1(step):
    case = read(step, system="mllm_dataengine")
    tokenizer = CharTokenizer(case["alphabet"], add_bos=False)
    ids, targets = released.vqa_targets(case["text"], case["mask_text"], tokenizer.encode, pad_id=0)
    assert ids.tolist() == case["input_ids"]
    assert targets.tolist() == case["targets"]
    assert [supervised_spans(row, tokenizer.decode) for row in targets] == case["supervised"]


GROUPS = read("optimizer_groups") or {"cases": []}


@pytest.mark.parametrize("case", cases("optimizer_groups", GROUPS["cases"]))
def test_optimizer_groups_are_those_of_llava(case):
    found = released.optimizer_groups(
        module_of(GROUPS["named_parameters"]),
        learning_rate=case["learning_rate"],
        weight_decay=case["weight_decay"],
        **case["setting"],
    )
    assert [group | {"betas": list(group["betas"])} for group in found] == case["groups"]


@pytest.mark.parametrize("step", whole("lora_targets"))
def test_lora_targets_are_those_of_llava(step):
    case = read(step)
    assert released.lora_targets(module_with_linears(case["modules"])) == case["targets"]


SPLICE = folder("multimodal_splice") / "fixture.npz"


def splice_cases():
    if not SPLICE.is_file():
        return []
    with np.load(SPLICE) as recorded:
        names = sorted(key.partition(".")[2] for key in recorded.files if key.startswith("out_embeds."))
    return [pytest.param(name, id=f"llava_base/multimodal_splice-{name}") for name in names]


@pytest.mark.parametrize("name", splice_cases())
def test_images_are_spliced_in_as_released(name):
    side, _, limit = name.partition("_")
    with np.load(SPLICE) as recorded:
        arrays = {key: torch.from_numpy(recorded[key]) for key in recorded.files}
    found = splice(
        arrays["input_ids"],
        arrays["labels"],
        arrays["attention_mask"],
        lambda ids: arrays["emb"][ids],
        arrays["features"],
        max_length=None if limit == "None" else int(limit),
        padding_side=side,
    )
    assert torch.equal(found.embeddings, arrays[f"out_embeds.{name}"])
    assert torch.equal(found.labels, arrays[f"out_labels.{name}"])
    assert torch.equal(found.attention_mask, arrays[f"out_attention_mask.{name}"])


@pytest.mark.parametrize("step", whole("tiny_model_forward"))
def test_logits_loss_and_gradients_are_those_of_llava(step):
    found, recorded, config = forward_of(folder(step))
    tolerance = {"rtol": 0, "atol": 1e-4}
    torch.testing.assert_close(found.image_features, recorded["image_features"], **tolerance)
    assert found.logits.shape == recorded["logits"].shape
    real = found.attention_mask
    torch.testing.assert_close(found.logits[real], recorded["logits"][real], **tolerance)
    assert found.loss == pytest.approx(float(recorded["loss"]), abs=1e-4)
    expected = {key[2:]: value for key, value in recorded.items() if key.startswith("g.")}
    assert expected
    for name, gradient in expected.items():
        torch.testing.assert_close(found.gradients[name], gradient, **tolerance)
    assert found.tower_has_no_gradients == config["grads_none_for_vision_tower"]


IMAGES = read("image_preprocess", "meta.json") or {"images": [], "anyres": []}


@pytest.mark.parametrize("case", cases("image_preprocess", IMAGES["images"], lambda i, c: c["name"]))
def test_pictures_are_prepared_as_released(case):
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    options = IMAGES["processor"]
    crop = options["crop"]
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": options["size_shortest_edge"]},
        crop_size={"height": crop, "width": crop},
        image_mean=options["mean"],
        image_std=options["std"],
    )
    name = case["name"]
    with np.load(folder("image_preprocess") / "fixture.npz") as recorded:
        image = Image.fromarray(recorded[f"{name}.image"])
        assert image.size == (case["w"], case["h"])
        assert background_of(options["mean"]) == tuple(case["background"])
        square = padded_to_square(image, tuple(case["background"]))
        np.testing.assert_array_equal(np.asarray(square), recorded[f"{name}.square"])
        for aspect in ("pad", None):
            found = released_pixels(image, processor, aspect)
            np.testing.assert_allclose(found, recorded[f"{name}.pixel_values.{aspect}"][0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("case", cases("image_preprocess", IMAGES["anyres"], lambda i, c: f"anyres-{i}"))
def test_grids_of_any_resolution_are_those_of_the_released_code(case):
    points = [tuple(point) for point in case["pinpoints"]]
    assert list(best_resolution(case["size"], points)) == case["best"]
    tile = math.gcd(*(number for point in points for number in point))
    assert list(tile_grid(case["size"], points, tile)) == case["grid"]
