"""Tiny random models of every family beside LLaVA-1.5, each with tokenizer, chat template and image processor."""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from tiny_llava import SENTENCES

from vsel_platform.models.families import FAMILIES
from vsel_platform.models.family_adapter import FamilyAdapter

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ image }}{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
VICUNA = (
    "{% for message in messages %}{{ message['role'].upper() }}: "
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] | trim }}{% endif %}"
    "{% endfor %}{% if message['role'] == 'assistant' %}</s>{% else %} {% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
SMOL = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}: "
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
TILES = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
SPECIAL = ["<pad>", "<s>", "</s>", "<image>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"]
SPECIAL += ["<|image_pad|>", "<|video_pad|>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>", *TILES]
TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
TEXT |= {"num_key_value_heads": 2, "max_position_embeddings": 2048, "tie_word_embeddings": False}
MROPE = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}


@dataclass
class TinyFamily:
    """Model, tokenizer, image processor, and the processor class of transformers that expands image tokens."""

    model_type: str
    model: Any
    tokenizer: Any
    image_processor: Any
    processor: Any

    def adapter(self, **options: Any) -> FamilyAdapter:
        values = {"name": "tiny", "fingerprint": self.model_type, "device": "cpu", "max_tokens": 1024}
        family = FAMILIES[self.model_type]
        return FamilyAdapter(self.model, self.tokenizer, self.image_processor, family, **(values | options))

    def save(self, directory: Path) -> Path:
        for part in (self.model, self.tokenizer, self.image_processor):
            part.save_pretrained(directory)
        return directory


def tiny_tokenizer(template: str, end: str) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=440, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=end, pad_token="<pad>", extra_special_tokens=SPECIAL[3:],
        chat_template=template,
    )  # fmt: skip


def tiny_family(model_type: str) -> TinyFamily:
    """A model of a family with random float32 weights, large enough that losses differ clearly."""
    template, end = {"llava_next": (VICUNA, "</s>"), "idefics3": (SMOL, "<end_of_utterance>")}.get(
        {"smolvlm": "idefics3"}.get(model_type, model_type), (CHATML, "<|im_end|>")
    )
    image = "<image>" if "qwen" not in model_type else "<|vision_start|><|image_pad|><|vision_end|>"
    tokenizer = tiny_tokenizer(template.replace("{{ image }}", image), end)
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in SPECIAL}
    text = TEXT | {"vocab_size": len(tokenizer), "bos_token_id": None, "pad_token_id": 0, "eos_token_id": ids[end]}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, image_processor, processor = _BUILD[model_type](text, ids)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(0, 0.15)
            # A random model would answer with image tokens, for which there is no image.
            model.lm_head.weight[[ids[name] for name in SPECIAL if name != end]] = 0.0
    return TinyFamily(model_type, model.eval().float(), tokenizer, image_processor, processor)


def picture(name: str) -> Any:
    """A random picture whose size and pixels depend on its name."""
    from PIL import Image

    seed = int.from_bytes(name.encode(), "big") % 1000
    rng = np.random.default_rng(seed)
    height, width = (int(n) for n in rng.integers(20, 90, 2))
    return Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8))


def _llava_next(text: dict, ids: dict) -> tuple:
    from transformers import LlavaNextConfig, LlavaNextForConditionalGeneration, LlavaNextProcessor
    from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

    points = [[28, 56], [56, 28], [56, 56]]
    config = LlavaNextConfig(
        vision_config={"model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 64,
                       "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 28, "patch_size": 14},
        text_config={"model_type": "llama", **text},
        image_token_index=ids["<image>"], image_grid_pinpoints=points, vision_feature_layer=-1,
    )  # fmt: skip
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}, image_grid_pinpoints=points
    )
    reference = SimpleNamespace(
        image_processor=images, image_token="<image>", patch_size=14, num_additional_image_tokens=1,
        vision_feature_select_strategy="default",
    )  # fmt: skip
    return LlavaNextForConditionalGeneration(config), images, _official(LlavaNextProcessor, reference)


def _llava_onevision(text: dict, ids: dict) -> tuple:
    from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration, LlavaOnevisionProcessor
    from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil

    points = [[28, 28], [28, 56], [56, 28], [56, 56]]
    config = LlavaOnevisionConfig(
        vision_config={"model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 64,
                       "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 28, "patch_size": 14,
                       "vision_use_head": False},
        text_config={"model_type": "qwen2", **text},
        image_token_index=ids["<image>"], video_token_index=ids["<|video_pad|>"], image_grid_pinpoints=points,
    )  # fmt: skip
    images = LlavaOnevisionImageProcessorPil(size={"height": 28, "width": 28}, image_grid_pinpoints=points)
    reference = SimpleNamespace(
        image_processor=images, image_token="<image>", num_image_tokens=4, vision_feature_select_strategy="full",
        vision_aspect_ratio="anyres_max_9",
    )  # fmt: skip
    return LlavaOnevisionForConditionalGeneration(config), images, _official(LlavaOnevisionProcessor, reference)


def _qwen(text: dict, ids: dict, *, config: Any, model: Any, processor: Any, vision: dict, **own: Any) -> tuple:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    patch = vision.get("patch_size", 14)
    made = config(
        vision_config={"depth": 2, "num_heads": 4, "patch_size": patch, **vision},
        text_config={**text, "rope_parameters": MROPE, **own},
        image_token_id=ids["<|image_pad|>"], video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"], vision_end_token_id=ids["<|vision_end|>"],
    )  # fmt: skip
    images = Qwen2VLImageProcessorPil(
        patch_size=patch, size={"shortest_edge": (2 * patch) ** 2, "longest_edge": 12 * (2 * patch) ** 2}
    )
    reference = SimpleNamespace(image_processor=images, image_token="<|image_pad|>")
    return model(made), images, _official(processor, reference)


def _qwen2(text: dict, ids: dict) -> tuple:
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration, Qwen2VLProcessor

    return _qwen(text, ids, config=Qwen2VLConfig, model=Qwen2VLForConditionalGeneration, processor=Qwen2VLProcessor,
                 vision={"embed_dim": 32, "hidden_size": 32})  # fmt: skip


def _qwen2_5(text: dict, ids: dict) -> tuple:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

    vision = {"hidden_size": 32, "intermediate_size": 64, "out_hidden_size": 32, "fullatt_block_indexes": [1]}
    return _qwen(text, ids, config=Qwen2_5_VLConfig, model=Qwen2_5_VLForConditionalGeneration,
                 processor=Qwen2_5_VLProcessor, vision=vision | {"window_size": 56})  # fmt: skip


def _qwen3(text: dict, ids: dict) -> tuple:
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration, Qwen3VLProcessor

    vision = {"hidden_size": 32, "intermediate_size": 64, "out_hidden_size": 32, "deepstack_visual_indexes": [0, 1]}
    return _qwen(text, ids, config=Qwen3VLConfig, model=Qwen3VLForConditionalGeneration, processor=Qwen3VLProcessor,
                 vision=vision | {"patch_size": 16, "num_position_embeddings": 64}, head_dim=8)  # fmt: skip


def _idefics(text: dict, ids: dict, *, config: Any, model: Any, images: Any, processor: Any) -> tuple:
    made = config(
        vision_config={"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
                       "image_size": 32, "patch_size": 8},
        text_config={"model_type": "llama", **text}, scale_factor=2, image_token_id=ids["<image>"],
    )  # fmt: skip
    reference = SimpleNamespace(
        image_token="<image>", fake_image_token="<fake_token_around_image>", image_seq_len=4,
        global_image_tag="<global-img>", global_image_token="<global-img>",
    )  # fmt: skip
    own = images(size={"longest_edge": 128}, max_image_size={"longest_edge": 32})
    return model(made), own, _official(processor, reference)


def _idefics3(text: dict, ids: dict) -> tuple:
    from transformers import Idefics3Config, Idefics3ForConditionalGeneration, Idefics3Processor
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

    return _idefics(text, ids, config=Idefics3Config, model=Idefics3ForConditionalGeneration,
                    images=Idefics3ImageProcessorPil, processor=Idefics3Processor)  # fmt: skip


def _smolvlm(text: dict, ids: dict) -> tuple:
    from transformers import SmolVLMConfig, SmolVLMForConditionalGeneration, SmolVLMProcessor
    from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

    return _idefics(text, ids, config=SmolVLMConfig, model=SmolVLMForConditionalGeneration,
                    images=SmolVLMImageProcessorPil, processor=SmolVLMProcessor)  # fmt: skip


def _official(processor: Any, reference: SimpleNamespace) -> Any:
    """The expansion of image tokens in transformers' own processor, which itself wants a video library."""
    for name in ("_get_number_of_features", "_get_unpadded_features"):
        if hasattr(processor, name):
            setattr(reference, name, getattr(processor, name).__get__(reference))
    return lambda inputs, index: processor.replace_image_token(reference, inputs, index)


_BUILD = {
    "llava_next": _llava_next,
    "llava_onevision": _llava_onevision,
    "qwen2_vl": _qwen2,
    "qwen2_5_vl": _qwen2_5,
    "qwen3_vl": _qwen3,
    "idefics3": _idefics3,
    "smolvlm": _smolvlm,
}
