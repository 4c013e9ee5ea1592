"""Text encoders from Hugging Face checkpoints."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_encoders import JOINT_KINDS, LONGEST_TEXT, save_tiny_joint

from vsel_platform.config import TextEncoderSettings
from vsel_platform.errors import ModelError, OutOfMemoryError, UnsafeCheckpointError
from vsel_platform.models.huggingface_text_encoder import HuggingFaceTextEncoder, load

WORDS = ["a", "cat", "dog", "red", "blue", "what", "is", "on", "the", "mat", "where", "how", "many", "two", "three"]
TEXTS = [" ".join(WORDS[: 1 + i % 15]) for i in range(40)] + ["", "what is this thing?"]


def save_bert(directory, *, seed=0, positions=64, **tokenizer_options):
    """BERT of width 16 and two layers with a word-piece vocabulary."""
    from transformers import BertConfig, BertModel, BertTokenizer

    directory.mkdir(parents=True, exist_ok=True)
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, "##s"]
    tokenizer = BertTokenizer(vocab={token: i for i, token in enumerate(tokens)}, **tokenizer_options)
    tokenizer.save_pretrained(directory)
    config = BertConfig(
        vocab_size=len(tokens), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=positions,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        BertModel(config).save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def bert_dir(tmp_path_factory):
    return save_bert(tmp_path_factory.mktemp("text") / "bert")


def settings(directory, **options):
    return TextEncoderSettings(model=str(directory), **options)


def states(directory, text):
    """last_hidden_state [tokens, 16] of one text without padding."""
    from transformers import AutoModel, AutoTokenizer

    encoded = AutoTokenizer.from_pretrained(directory)(text, return_tensors="pt")
    with torch.no_grad():
        return AutoModel.from_pretrained(directory)(**encoded).last_hidden_state[0]


def test_cls_is_the_first_token_and_mean_the_mean_over_the_text(bert_dir):
    cls, mean = (load(settings(bert_dir, feature=feature), "cpu") for feature in ("cls", "mean"))
    assert cls.dimension == 16
    for text, first, average in zip(TEXTS, cls.encode(TEXTS), mean.encode(TEXTS), strict=True):
        expected = states(bert_dir, text)
        np.testing.assert_allclose(first, expected[0], atol=1e-6)
        np.testing.assert_allclose(average, expected.mean(dim=0), atol=1e-6)
    assert cls.encode(TEXTS).dtype == np.float32


@pytest.mark.parametrize("feature", ["cls", "mean"])
def test_vectors_do_not_depend_on_order_or_batches(bert_dir, feature):
    encoder = load(settings(bert_dir, feature=feature), "cpu")
    small = load(settings(bert_dir, feature=feature, batch_tokens=20), "cpu")
    together = encoder.encode(TEXTS)
    np.testing.assert_allclose(encoder.encode(TEXTS[::-1])[::-1], together, atol=1e-6)
    np.testing.assert_allclose(small.encode(TEXTS), together, atol=1e-6)
    np.testing.assert_allclose(np.concatenate([encoder.encode([t]) for t in TEXTS]), together, atol=1e-6)


@pytest.fixture(scope="module", params=JOINT_KINDS)
def joint_dir(request, tmp_path_factory):
    return save_tiny_joint(tmp_path_factory.mktemp("joint"), request.param)


def joint_features(directory, texts):
    """get_text_features of the whole model, as its own tokenizer pads for it."""
    from transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(directory)
    padding = "longest" if model.config.model_type == "clip" else "max_length"
    encoded = AutoTokenizer.from_pretrained(directory)(
        texts, padding=padding, max_length=LONGEST_TEXT, truncation=True, return_tensors="pt"
    )
    assert ("attention_mask" in encoded) == (model.config.model_type == "clip")
    with torch.no_grad():
        return model.get_text_features(**encoded).pooler_output


def test_joint_is_the_text_in_the_space_of_images(joint_dir):
    texts = ["", "A cat?", "what is the colour 7", "how many red cats are on the mat and where is the dog"]
    encoder = load(settings(joint_dir, feature="joint"), "cpu")
    expected = joint_features(joint_dir, texts)
    assert encoder.pooling.max_tokens == LONGEST_TEXT
    assert encoder.dimension == expected.shape[1]
    assert len(np.unique(expected.numpy().round(5), axis=0)) == len(texts)
    np.testing.assert_allclose(encoder.encode(texts), expected, atol=1e-5)
    np.testing.assert_allclose(np.concatenate([encoder.encode([t]) for t in texts]), expected, atol=1e-5)


def test_the_joint_fingerprint_follows_the_weights(joint_dir, tmp_path):
    base = load(settings(joint_dir, feature="joint"), "cpu").fingerprint
    copy = tmp_path / "copy"
    shutil.copytree(joint_dir, copy)
    assert load(settings(copy, feature="joint"), "cpu").fingerprint == base
    kind = json.loads((copy / "config.json").read_text())["model_type"]
    shutil.copy(save_tiny_joint(tmp_path / "other", kind, seed=1) / "model.safetensors", copy)
    assert load(settings(copy, feature="joint"), "cpu").fingerprint != base


def test_a_tokenizer_that_is_not_fast_is_part_of_the_fingerprint(tmp_path):
    lower = load(settings(save_tiny_joint(tmp_path, "siglip"), feature="joint"), "cpu")
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"do_lower_case": False}))
    cased = load(settings(tmp_path, feature="joint"), "cpu")
    assert (lower.encode(["A Cat"]) != cased.encode(["A Cat"])).any()
    assert cased.fingerprint != lower.fingerprint


def test_joint_needs_both_towers(bert_dir, tmp_path):
    from transformers import CLIPModel

    with pytest.raises(ModelError, match=r"text_encoder: .*an image and a text tower .*this one is bert"):
        load(settings(bert_dir, feature="joint"), "cpu")
    half = save_tiny_joint(tmp_path)
    CLIPModel.from_pretrained(half).text_model.save_pretrained(half)
    with pytest.raises(ModelError, match="this one is clip_text_model"):
        load(settings(half, feature="joint"), "cpu")


def test_a_repeated_text_is_encoded_once(bert_dir, monkeypatch):
    encoder = load(settings(bert_dir), "cpu")
    seen = []
    forward = HuggingFaceTextEncoder._forward
    monkeypatch.setattr(HuggingFaceTextEncoder, "_forward", lambda self, rows: seen.extend(rows) or forward(self, rows))
    vectors = encoder.encode(["a cat", "two", "a cat", "a cat"])
    assert len(seen) == 2
    assert (vectors[0] == vectors[[2, 3]]).all()


def test_batches_stay_within_the_token_budget(bert_dir, monkeypatch):
    encoder = load(settings(bert_dir, batch_tokens=40), "cpu")
    sizes = []
    forward = HuggingFaceTextEncoder._forward
    monkeypatch.setattr(
        HuggingFaceTextEncoder,
        "_forward",
        lambda self, rows: sizes.append(len(rows) * max(map(len, rows))) or forward(self, rows),
    )
    encoder.encode(TEXTS)
    assert len(sizes) > 1
    assert max(sizes) <= 40


def test_short_memory_halves_the_batches_and_names_the_text_that_never_fits(bert_dir, monkeypatch):
    encoder, expected = load(settings(bert_dir), "cpu"), load(settings(bert_dir), "cpu").encode(TEXTS)
    forward = HuggingFaceTextEncoder._forward
    most = 3

    def short(self, rows):
        if len(rows) > most:
            raise torch.OutOfMemoryError("out of memory")
        return forward(self, rows)

    monkeypatch.setattr(HuggingFaceTextEncoder, "_forward", short)
    np.testing.assert_allclose(encoder.encode(TEXTS), expected, atol=1e-6)
    most = 0
    with pytest.raises(OutOfMemoryError, match="the text 'a cat'"):
        encoder.encode(["a cat"])


def test_texts_are_cut_to_what_the_model_takes(tmp_path):
    encoder = load(settings(save_bert(tmp_path, positions=8)), "cpu")
    assert encoder.pooling.max_tokens == 8
    long, longer = encoder.encode(["a cat dog red blue what is on", "a cat dog red blue what the the the the the"])
    np.testing.assert_allclose(long, longer, atol=1e-6)


def test_no_texts_and_texts_without_tokens(bert_dir, monkeypatch):
    encoder = load(settings(bert_dir, feature="mean"), "cpu")
    assert encoder.encode([]).shape == (0, 16)
    monkeypatch.setattr(encoder, "_tokens", lambda texts: [[7, 8] if text else [] for text in texts])
    found = encoder.encode(["", "a cat"])
    assert np.isnan(found[0]).all()
    assert np.isfinite(found[1]).all()


def test_the_fingerprint_follows_weights_tokenizer_feature_and_dtype(bert_dir, tmp_path):
    base = load(settings(bert_dir), "cpu").fingerprint
    copy = tmp_path / "copy"
    shutil.copytree(bert_dir, copy)
    used = load(settings(copy, batch_tokens=77), "cpu")
    used.encode(TEXTS)
    assert used.fingerprint == base == load(settings(copy), "cpu").fingerprint
    others = [
        load(settings(bert_dir, feature="mean"), "cpu"),
        load(settings(bert_dir, dtype="bfloat16"), "cpu"),
        load(settings(save_bert(tmp_path / "weights", seed=1)), "cpu"),
        load(settings(save_bert(tmp_path / "case", do_lower_case=False)), "cpu"),
    ]
    assert len({base, *(encoder.fingerprint for encoder in others)}) == 5


def test_bfloat16_vectors_come_as_float32_and_are_close(bert_dir):
    exact, rounded = (load(settings(bert_dir, dtype=d), "cpu") for d in ("float32", "bfloat16"))
    assert rounded.encode(TEXTS).dtype == np.float32
    np.testing.assert_allclose(rounded.encode(TEXTS), exact.encode(TEXTS), atol=0.1)


def test_a_pickled_checkpoint_is_refused(bert_dir, tmp_path):
    copy = tmp_path / "pickled"
    shutil.copytree(bert_dir, copy)
    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    with pytest.raises(UnsafeCheckpointError, match=r"pytorch_model\.bin"):
        load(settings(copy), "cpu")


def test_missing_weights_are_not_replaced_by_random_ones_but_for_the_pooler(bert_dir, tmp_path):
    copy = tmp_path / "partial"
    shutil.copytree(bert_dir, copy)
    state = {key: value for key, value in load_file(copy / "model.safetensors").items() if "pooler" not in key}
    save_file(state, copy / "model.safetensors", metadata={"format": "pt"})
    np.testing.assert_array_equal(
        load(settings(copy), "cpu").encode(TEXTS), load(settings(bert_dir), "cpu").encode(TEXTS)
    )
    del state["encoder.layer.1.output.dense.bias"]
    save_file(state, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks the weights encoder\.layer\.1\.output\.dense\.bias"):
        load(settings(copy), "cpu")


def test_cls_needs_a_cls_token(bert_dir, tmp_path):
    copy = tmp_path / "plain"
    shutil.copytree(bert_dir, copy)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (copy / name).exists():
            config = json.loads((copy / name).read_text())
            config.pop("cls_token", None)
            config["tokenizer_class"] = "PreTrainedTokenizerFast"
            (copy / name).write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"no CLS token; use text_encoder\.feature: mean"):
        load(settings(copy), "cpu")
    assert load(settings(copy, feature="mean"), "cpu").dimension == 16


def test_a_model_of_two_stacks_is_refused(bert_dir, tmp_path):
    from transformers import T5Config, T5Model

    shutil.copytree(bert_dir, tmp_path / "t5")
    T5Model(T5Config(vocab_size=30, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)).save_pretrained(
        tmp_path / "t5"
    )
    with pytest.raises(ModelError, match="gives no hidden states of a text"):
        load(settings(tmp_path / "t5"), "cpu")


def test_a_directory_without_a_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"no \.safetensors weights"):
        load(settings(tmp_path), "cpu")
    save_bert(tmp_path / "bert")
    (tmp_path / "bert" / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(settings(tmp_path / "bert"), "cpu")


def test_remote_code_is_never_run(bert_dir, tmp_path):
    copy, marker = tmp_path / "remote", tmp_path / "executed"
    shutil.copytree(bert_dir, copy)
    (copy / "modeling_own.py").write_text(f"open({str(marker)!r}, 'w')\nclass Own: pass\n")
    config = json.loads((copy / "config.json").read_text())
    config.update(model_type="own", auto_map={"AutoConfig": "modeling_own.Own", "AutoModel": "modeling_own.Own"})
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(settings(copy), "cpu")
    assert not marker.exists()
