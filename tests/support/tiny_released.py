"""A tiny checkpoint in the format of the original LLaVA: llava_llama weights, a CLIP tower, a sentencepiece model."""

import json
from pathlib import Path

TEXTS = [
    "A chat between a curious user and an artificial intelligence assistant.",
    "The assistant gives helpful, detailed, and polite answers to the user's questions.",
    "USER: What colour is the bus? ASSISTANT: Red and white. USER: Where is it? ASSISTANT: On the street.",
    "USER: How many people are there? ASSISTANT: Two people stand on the mat with a cat and a dog.",
]
WIDTH = 32


def save_tokenizer(directory: Path, *, legacy: bool | None = False) -> Path:
    """`tokenizer.model` (with byte fallback, as LLaMA's) and `tokenizer_config.json`."""
    import sentencepiece

    directory.mkdir(parents=True, exist_ok=True)
    sentences = directory / "sentences.txt"
    sentences.write_text("\n".join(TEXTS * 20))
    sentencepiece.SentencePieceTrainer.train(
        input=str(sentences),
        model_prefix=str(directory / "tokenizer"),
        vocab_size=400,
        model_type="bpe",
        byte_fallback=True,
        # As in LLaMA's model: blanks are kept, and "USER" is one piece, but two with the word mark before it.
        remove_extra_whitespaces=False,
        user_defined_symbols=["USER"],
        pad_id=-1,
        minloglevel=2,
    )
    sentences.unlink()
    (directory / "tokenizer.vocab").unlink()
    special = {str(i): {"content": t, "lstrip": False, "rstrip": False} for i, t in enumerate(["<unk>", "<s>", "</s>"])}
    config = {"added_tokens_decoder": special, "model_max_length": 2048, "pad_token": "<unk>"}
    if legacy is not None:
        config["legacy"] = legacy
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return directory


def save_released(root: Path) -> Path:
    """`root/llava` (the checkpoint) beside `root/clip` (its tower); returns the former."""
    import torch
    from safetensors.torch import save_file
    from tiny_llava import tiny_image_processor
    from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

    directory = save_tokenizer(root / "llava")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        small = {"num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
        tower = CLIPVisionModel(CLIPVisionConfig(hidden_size=16, image_size=28, patch_size=14, **small))
        text = LlamaConfig(
            vocab_size=400,
            hidden_size=WIDTH,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            initializer_range=0.3,
        )
        state = dict(LlamaForCausalLM(text).state_dict())
        for number, width in ((0, 16), (2, WIDTH)):
            state[f"model.mm_projector.{number}.weight"] = torch.randn(WIDTH, width)
            state[f"model.mm_projector.{number}.bias"] = torch.randn(WIDTH)
    tower.save_pretrained(root / "clip")
    tiny_image_processor().save_pretrained(root / "clip")
    save_file({name: tensor.clone() for name, tensor in state.items()}, directory / "model.safetensors")
    config = {
        **text.to_dict(),
        "rope_theta": 10000.0,
        "model_type": "llava_llama",
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -2,
        "mm_vision_tower": "clip",
        "tokenizer_model_max_length": 2048,
    }
    (directory / "config.json").write_text(json.dumps(config))
    return directory
