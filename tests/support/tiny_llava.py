"""A tiny random LLaVA (CLIP tower of 4 tokens, two Llama layers) with a tokenizer trained on a few sentences."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vsel_platform.models.llava import LlavaAdapter
from vsel_platform.models.templates import load_template

SENTENCES = (
    "A chat between a curious user and an artificial intelligence assistant.",
    "The assistant gives helpful, detailed, and polite answers to the user's questions.",
    "USER: What colour is the bus? ASSISTANT: It is red and white.",
    "USER: How many people are there? ASSISTANT: Two people on the street.",
    "Describe the picture in detail. There is a dog on a mat, and a cat.",
)
IMAGE_TOKENS = 4
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<image>"]


def tiny_tokenizer() -> Any:
    """Byte-level BPE with the special tokens of LLaVA."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        extra_special_tokens=["<image>"],
    )


def tiny_image_processor() -> Any:
    """CLIP's image processor at 28 x 28 pixels."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    return CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})


def tiny_model(seed: int = 0, width: int = 32, layers: int = 2) -> Any:
    """LlavaForConditionalGeneration with random float32 weights, large enough that losses differ clearly."""
    import torch
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    tokenizer = tiny_tokenizer()
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        initializer_range=0.3,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=IMAGE_TOKENS,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlavaForConditionalGeneration(config).eval()


def tiny_adapter(
    *, model: Any = None, template: str = "vicuna_v1", max_tokens: int = 512, device: str = "cpu"
) -> LlavaAdapter:
    """The tiny model behind the platform's protocol."""
    return LlavaAdapter(
        model if model is not None else tiny_model(),
        tiny_tokenizer(),
        tiny_image_processor(),
        load_template(template),
        name="tiny",
        weights="tiny-weights",
        device=device,
        max_tokens=max_tokens,
    )


def save_tiny(directory: Path, seed: int = 0) -> Path:
    """The tiny model as a checkpoint directory in the transformers format."""
    tiny_model(seed).save_pretrained(directory)
    tiny_tokenizer().save_pretrained(directory)
    tiny_image_processor().save_pretrained(directory)
    return directory


def picture(image_id: str) -> Image.Image:
    """A picture made from its id: equal ids give equal pictures, and others different ones."""
    noise = np.random.default_rng(list(image_id.encode())).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    return Image.fromarray(noise)


Turns = Sequence[tuple[str, str]]


def conversation(question: str, answer: str, *more: str) -> list[tuple[str, str]]:
    """Turns `(role, text)` from alternating user and assistant texts."""
    texts = (question, answer, *more)
    return [("user" if i % 2 == 0 else "assistant", text) for i, text in enumerate(texts)]
