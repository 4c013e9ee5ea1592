"""Original LLaVA checkpoints in transformers."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_llava import picture
from tiny_released import save_released
from transformers import CLIPVisionModel, LlamaForCausalLM

from vsel_platform.errors import ModelError, UnsafeCheckpointError
from vsel_platform.models.llava_released import IMAGE_TOKEN, expand_images, load_released_llava
from vsel_platform.models.scoring import score_batch
from vsel_platform.models.vlm import RenderedRow


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return save_released(tmp_path_factory.mktemp("released"))


@pytest.fixture
def copy(directory, tmp_path):
    shutil.copytree(directory.parent, tmp_path / "copy")
    return tmp_path / "copy" / "llava"


def edit(file, **changes):
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_the_forward_pass_is_projector_and_llama_of_the_checkpoint(directory):
    model = load_released_llava(directory, device="cpu")
    row = RenderedRow(np.array([1] + [IMAGE_TOKEN] * 4 + [30, 31]), np.array([-1] * 5 + [0, 0]))
    pixels = model.preprocess(picture("a"))[None]
    ((score,),) = score_batch(model, [[row]], [[model.project(model.tower_features(pixels))[0]]])

    state = load_file(directory / "model.safetensors")
    language = LlamaForCausalLM(LlamaForCausalLM.config_class(**_text_config(directory)))
    language.load_state_dict({k: v for k, v in state.items() if "mm_projector" not in k})
    tower = CLIPVisionModel.from_pretrained(directory.parent / "clip")
    with torch.no_grad():
        hidden = tower(torch.from_numpy(pixels), output_hidden_states=True).hidden_states[-2][:, 1:]
        for number in (0, 2):
            weight, bias = (state[f"model.mm_projector.{number}.{part}"] for part in ("weight", "bias"))
            hidden = torch.nn.functional.linear(hidden, weight, bias)
            hidden = torch.nn.functional.gelu(hidden) if number == 0 else hidden
        words = language.get_input_embeddings()(torch.tensor([[1, 30, 31]]))
        embedded = torch.cat([words[:, :1], hidden, words[:, 1:]], dim=1)
        logs = torch.log_softmax(language(inputs_embeds=embedded).logits[0], -1)
    np.testing.assert_allclose(score.nll, [-logs[4, 30], -logs[5, 31]], atol=1e-5)


def _text_config(directory):
    config = json.loads((directory / "config.json").read_text())
    return {k: config[k] for k in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
                                   "num_attention_heads", "rms_norm_eps", "max_position_embeddings")}  # fmt: skip


def test_a_tuned_tower_inside_the_checkpoint_replaces_the_original(copy):
    before = load_released_llava(copy, device="cpu")
    state = load_file(copy / "model.safetensors")
    tower = load_file(copy.parent / "clip" / "model.safetensors")
    for name, tensor in tower.items():
        inner = name.removeprefix("vision_model.")
        state[f"model.vision_tower.vision_tower.vision_model.{inner}"] = tensor + 0.1
    save_file(state, copy / "model.safetensors")
    after = load_released_llava(copy, device="cpu")
    pixels = before.preprocess(picture("a"))[None]
    assert not torch.allclose(before.tower_features(pixels), after.tower_features(pixels))
    assert before.fingerprint != after.fingerprint


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "llava"}, "model_type is 'llava'"),
        ({"mm_projector_type": "linear"}, "mm_projector_type is 'linear'"),
        ({"mm_use_im_start_end": True}, "start, end and patch tokens are not supported"),
        ({"mm_vision_tower": "nowhere"}, "no vision tower at"),
    ],
)
def test_another_architecture_is_refused_with_what_differs(copy, changes, message):
    edit(copy / "config.json", **changes)
    with pytest.raises(ModelError, match=message):
        load_released_llava(copy, device="cpu")


def test_missing_and_unknown_weights_are_named(copy):
    state = load_file(copy / "model.safetensors")
    state["model.extra.weight"] = state.pop("model.norm.weight")
    save_file(state, copy / "model.safetensors")
    with pytest.raises(ModelError, match=r"missing: model\.language_model\.norm\.weight; unknown: .*extra"):
        load_released_llava(copy, device="cpu")


def test_a_pickled_checkpoint_is_refused(copy):
    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    with pytest.raises(UnsafeCheckpointError):
        load_released_llava(copy, device="cpu")


def test_a_directory_without_config_is_a_model_error(tmp_path):
    with pytest.raises(ModelError, match=r"config\.json: missing"):
        load_released_llava(tmp_path, device="cpu")


def test_images_are_expanded_with_their_labels_and_cut():
    ids, labels = np.array([1, IMAGE_TOKEN, 7]), np.array([-100, -100, 7])
    expanded = expand_images(ids, labels, image_tokens=3, limit=100)
    assert [part.tolist() for part in expanded] == [[1, *[IMAGE_TOKEN] * 3, 7], [-100] * 4 + [7]]
    assert len(expand_images(ids, labels, image_tokens=3, limit=2)[0]) == 2
