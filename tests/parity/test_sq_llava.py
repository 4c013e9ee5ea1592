"""SQ-LLaVA's model and training steps against the recorded runs of the released code."""

import json

import numpy as np
import pytest
import torch
from named_modules import module_of
from parity_cases import step_dir
from released_forward import forward_of

from vsel_platform.models.prototype_extractor import pooling_matrix, released_options
from vsel_platform.models.prototypes import PrototypeProjector, released_state
from vsel_platform.models.sq_llava_remnants import CrossAttention, wasserstein_distance
from vsel_platform.training.released import optimizer_groups
from vsel_platform.training.splice_released import splice_sq


def folder(step):
    return step_dir("sq_llava", step)


def read(step, name="fixture.json"):
    file = folder(step) / name
    return json.loads(file.read_text("utf-8")) if file.is_file() else None


def arrays(step, name="fixture.npz"):
    with np.load(folder(step) / name) as recorded:
        return {key: torch.from_numpy(np.asarray(recorded[key])) for key in recorded.files}


def cases(step, items, name=lambda i, item: str(i)):
    return [pytest.param(item, id=f"sq_llava/{step}-{name(i, item)}") for i, item in enumerate(items or [])]


def whole(step):
    return [pytest.param(step, id=f"sq_llava/{step}")] if folder(step).is_dir() else []


META = {entry["case"]: entry for entry in read("prototype_extractor", "meta.json") or []}
EXTRACTORS = [entry for entry in META.values() if "iters" in entry]
FLOAT32 = [entry for entry in EXTRACTORS if entry["case"] != "full_ratio"]


def extracted(entry, dtype):
    """(recorded arrays, projector, tokens with gradient, result) of a case."""
    recorded = arrays("prototype_extractor", f"{entry['case']}.npz")
    projector = PrototypeProjector(entry["D"], entry["D_out"], released_options(entry["N"], entry["iters"])).to(dtype)
    state = {key[2:]: tensor.to(dtype) for key, tensor in recorded.items() if key.startswith("w.")}
    projector.load_state_dict(released_state(state))
    x = recorded["x"].to(dtype).clone().requires_grad_()
    return recorded, projector, x, projector(x)


@pytest.mark.parametrize("entry", cases("prototype_extractor", EXTRACTORS, lambda i, e: f"{e['case']}-float64"))
def test_tokens_are_those_of_the_released_extractor_in_float64(entry):
    recorded, _, _, y = extracted(entry, torch.float64)
    torch.testing.assert_close(y.detach(), recorded["y_fp64"], rtol=0, atol=1e-10)


@pytest.mark.parametrize("entry", cases("prototype_extractor", FLOAT32, lambda i, e: f"{e['case']}-float32"))
def test_tokens_gradients_and_intermediate_results_are_those_of_the_released_extractor(entry):
    recorded, projector, x, y = extracted(entry, torch.float32)
    near = {"rtol": 0, "atol": 1e-5}
    torch.testing.assert_close(y.detach(), recorded["y"], **near)
    (y * recorded["grad_out"]).sum().backward()
    torch.testing.assert_close(x.grad, recorded["grad_x"], **near)
    expected = {key[2:]: gradient for key, gradient in recorded.items() if key.startswith("g.")}
    assert set(expected) == {name for name, _ in projector.named_parameters()}
    for name, parameter in projector.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=0, atol=1e-4)
    missing = {key[2:] for key in recorded if key.startswith("w.")} - set(expected)
    assert missing == set(entry["params_without_grad"])
    with torch.no_grad():
        found = projector.group(recorded["x"])
        value = projector.v(recorded["x"]).mT
    for name, tensor in {
        "value": value,
        "feature": found.features,
        "centers0": found.start,
        "assign_last": found.assignment,
        "centers_final": found.centers,
        "similarity": found.similarity,
    }.items():
        torch.testing.assert_close(tensor, recorded[f"t.{name}"], **near)
    assert torch.equal(found.winners, recorded["t.assign_idx"])


@pytest.mark.parametrize("entry", cases("prototype_extractor", FLOAT32, lambda i, e: f"{e['case']}-first-round"))
def test_the_first_round_and_the_pooled_features_are_those_of_the_released_extractor(entry):
    recorded, projector, x, _ = extracted(entry | {"iters": 1}, torch.float32)
    found = projector.group(x.detach())
    torch.testing.assert_close(found.assignment.detach(), recorded["t.assign_first"], rtol=0, atol=1e-5)
    pooled = pooling_matrix(entry["L"], entry["N"], x) @ found.features
    torch.testing.assert_close(pooled.detach(), recorded["t.centers_feature"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("step", whole("prototype_extractor"))
def test_production_sizes_are_those_of_the_released_projector(step):
    expected = META["production_shapes"]["state_dict"]
    width, out = expected["c.weight"][1], expected["mlp.2.weight"][0]
    with torch.device("meta"):
        projector = PrototypeProjector(width, out, released_options())
        larger = PrototypeProjector(width, 5120, released_options())
    shapes = {name: list(tensor.shape) for name, tensor in projector.state_dict().items()}
    unused = {"ln_1.weight": [width], "ln_1.bias": [width]}
    assert shapes | unused == expected

    def count(module):
        return sum(parameter.numel() for parameter in module.parameters())

    assert count(projector) + 2 * width == META["production_shapes"]["n_params"]
    assert count(larger) + 2 * width == META["production_13b_n_params"]["n_params"]
    assert count(projector.mlp) == META["mlp2x_gelu_7b_n_params"]["n_params"]


@pytest.mark.parametrize("step", whole("multimodal_splice"))
def test_images_are_spliced_in_as_released(step):
    recorded = arrays(step)
    found = splice_sq(
        recorded["input_ids"],
        recorded["labels"],
        recorded["attention_mask"],
        lambda ids: recorded["emb"][ids],
        recorded["features"],
    )
    assert torch.equal(found.embeddings, recorded["out_embeds"])
    assert torch.equal(found.labels, recorded["out_labels"])
    assert torch.equal(found.attention_mask, recorded["out_attention_mask"])


GROUPS = read("optimizer_groups") or {"cases": []}


@pytest.mark.parametrize("case", cases("optimizer_groups", GROUPS["cases"]))
def test_optimizer_groups_are_those_of_sq_llava(case):
    found = optimizer_groups(
        module_of(GROUPS["named_parameters"]),
        learning_rate=case["learning_rate"],
        weight_decay=case["weight_decay"],
        sq_llava=True,
        **case["setting"],
    )
    assert [group | {"betas": list(group["betas"])} for group in found] == case["groups"]


@pytest.mark.parametrize("step", whole("tiny_model_forward"))
def test_logits_loss_and_gradients_are_those_of_sq_llava(step):
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


def tower_run(targets, layers, *, gradients):
    """One training step of LoRA on a tiny tower, its second last state into the projector: what learned."""
    import peft
    from transformers import CLIPVisionConfig, CLIPVisionModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        small = {
            "hidden_size": 8,
            "intermediate_size": 16,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 14,
        }
        holder = torch.nn.Module()
        holder.vision_tower = tower = CLIPVisionModel(CLIPVisionConfig(num_hidden_layers=layers, **small))
        wrapped = peft.get_peft_model(holder, peft.LoraConfig(r=2, target_modules=targets))
        projector = torch.nn.Linear(8, 8)
        with torch.set_grad_enabled(gradients):
            features = tower(torch.randn(1, 3, 28, 28), output_hidden_states=True).hidden_states[-2][:, 1:]
        projector(features).square().sum().backward()
    lora = {name: parameter for name, parameter in wrapped.named_parameters() if "lora_" in name}
    torch.optim.SGD(lora.values(), lr=0.1).step()
    return {
        "target_modules": targets,
        "n_lora_params": len(lora),
        "requires_grad": all(parameter.requires_grad for parameter in lora.values()),
        "without_grad": [name for name, parameter in lora.items() if parameter.grad is None],
        "lora_B_all_zero": all(not parameter.any() for name, parameter in lora.items() if "lora_B" in name),
        "features_require_grad": features.requires_grad,
        "projector_grad_none": projector.weight.grad is None,
        "peft_wrapper_is_same_object": wrapped.get_submodule("base_model.model.vision_tower") is tower,
        "names": list(lora),
    }


@pytest.mark.parametrize("step", whole("vit_lora_no_grad"))
def test_lora_of_the_tower_learns_nothing_as_released_and_all_but_the_last_layer_with_gradients(step):
    evidence = read(step, "evidence.json")
    targets = evidence["target_modules"]
    layers = evidence["n_lora_params"] // (2 * len(targets))
    blind = tower_run(targets, layers, gradients=False)
    for key in (
        "n_lora_params", "requires_grad", "lora_B_all_zero", "features_require_grad", "projector_grad_none",
        "peft_wrapper_is_same_object",
    ):  # fmt: skip
        assert blind[key] == evidence[key], key
    assert len(blind["without_grad"]) == evidence["grads_none"]
    seeing = tower_run(targets, layers, gradients=True)
    assert len(seeing["without_grad"]) == evidence["grads_none_without_no_grad"]

    def here(names):
        # transformers 5 has no level `vision_model` in the tower.
        return {name.replace("vision_tower.vision_model.", "vision_tower.") for name in names}

    assert set(seeing["without_grad"]) == here(evidence["params_without_grad_even_then"])
    assert here(evidence["example_lora_names"]) <= set(seeing["names"])
    assert not seeing["lora_B_all_zero"]


@pytest.mark.parametrize(
    "query",
    cases("cross_attention_unused", ["shared", "batched"] if whole("cross_attention_unused") else [], lambda i, q: q),
)
def test_the_unused_cross_attention_is_that_of_the_released_code(query):
    recorded = arrays("cross_attention_unused")
    state = {key[2:]: tensor for key, tensor in recorded.items() if key.startswith("w.")}
    inner, width = state["q.weight"].shape
    layer = CrossAttention(width, state["k.weight"].shape[1], inner, len(state["ffn.0.weight"]))
    layer.load_state_dict(state)
    with torch.no_grad():
        found = layer(recorded[f"query_{query}"], recorded["target"])
    torch.testing.assert_close(found, recorded[f"out_{query}"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("step", whole("wasserstein_unused"))
def test_the_unused_distance_is_that_of_the_released_code(step):
    recorded = arrays(step)
    for other, expected in (("Y", "out"), ("X", "same")):
        found = wasserstein_distance(recorded["X"], recorded[other])
        assert found == pytest.approx(float(recorded[expected]), abs=1e-4)
