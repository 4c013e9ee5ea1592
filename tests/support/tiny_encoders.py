"""Tiny random vision models as checkpoint directories."""

from pathlib import Path
from typing import Any


def _save(model: Any, directory: Path, side: int) -> Path:
    from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

    model.save_pretrained(directory)
    BitImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side}).save_pretrained(
        directory
    )
    return directory


def save_tiny_dinov2(directory: Path, *, seed: int = 0, side: int = 56) -> Path:
    """DINOv2 of width 32, two layers, patches of 14 pixels."""
    import torch
    from transformers import Dinov2Config, Dinov2Model

    config = Dinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2, image_size=side, patch_size=14
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return _save(Dinov2Model(config), directory, side)


def save_tiny_clip(directory: Path, *, side: int = 28) -> Path:
    """A joint CLIP model: vision tower of width 16, text tower of width 24."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    small = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = CLIPConfig(
        vision_config={"hidden_size": 16, "image_size": side, "patch_size": 14, **small},
        text_config={"hidden_size": 24, "vocab_size": 50, **small},
        projection_dim=8,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return _save(CLIPModel(config), directory, side)


JOINT_KINDS = ("clip", "siglip", "siglip2")
_TOWER = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789?."
LONGEST_TEXT = 20


def save_tiny_joint(directory: Path, kind: str = "clip", *, seed: int = 0) -> Path:
    """A whole CLIP, SigLIP or SigLIP2 model with its processor's two parts; texts of at most 20 tokens."""
    import torch
    import transformers

    directory.mkdir(parents=True, exist_ok=True)
    tokenizer, processor = _joint_parts(directory, kind)
    tokenizer.save_pretrained(directory)
    processor.save_pretrained(directory)
    name = {"clip": "CLIP", "siglip": "Siglip", "siglip2": "Siglip2"}[kind]
    ids = {f"{token}_token_id": getattr(tokenizer, f"{token}_token_id") for token in ("pad", "bos", "eos")}
    picture = {"patch_size": 14} | ({"num_patches": 4} if kind == "siglip2" else {"image_size": 28})
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": LONGEST_TEXT, **ids}
    config = getattr(transformers, f"{name}Config")(
        vision_config=_TOWER | picture, text_config=_TOWER | text, **({"projection_dim": 8} if kind == "clip" else {})
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        getattr(transformers, f"{name}Model")(config).save_pretrained(directory)
    return directory


def _joint_parts(directory: Path, kind: str) -> tuple[Any, Any]:
    """Tokenizer and image processor, with the options that published checkpoints have."""
    import transformers

    square = {"height": 28, "width": 28}
    if kind == "clip":
        tokens = [*_LETTERS, *(f"{letter}</w>" for letter in _LETTERS), "<|startoftext|>", "<|endoftext|>"]
        vocabulary = {token: i for i, token in enumerate(tokens)}
        return (
            transformers.CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=LONGEST_TEXT),
            transformers.CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size=square),
        )
    if kind == "siglip":
        return (
            transformers.SiglipTokenizer(_sentence_pieces(directory), model_input_names=["input_ids"]),
            transformers.SiglipImageProcessorPil(size=square),
        )
    specials = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "\u2581"]
    vocabulary = {token: i for i, token in enumerate([*specials, *_LETTERS])}
    return (
        transformers.Siglip2Tokenizer(
            vocab=vocabulary, merges=[], padding_side="right", model_input_names=["input_ids"]
        ),
        transformers.Siglip2ImageProcessorPil(patch_size=14, max_num_patches=9),
    )


def _sentence_pieces(directory: Path) -> str:
    """File of a SentencePiece model with the pieces that SigLIP has, trained on a few made-up questions."""
    import sentencepiece

    sentences = [
        f"what is the {word} {i} say count how many red or blue cats are here" for i, word in enumerate(_LETTERS)
    ]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences), model_prefix=str(directory / "spiece"), vocab_size=60,
        hard_vocab_limit=False, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2,
    )  # fmt: skip
    (directory / "spiece.vocab").unlink()
    return str(directory / "spiece.model")
