"""The demo's vision-language model: a small LLaVA on EfficientNet-Lite0, with the shipped base weights."""

from pathlib import Path

from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import (
    CLIPImageProcessorPil,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from vsel_platform.demo.efficientnet import IMAGENET_MEAN, IMAGENET_STD, INPUT_PX, published_weights_hash
from vsel_platform.demo.tower import register_tower
from vsel_platform.errors import ConfigError, ModelError
from vsel_platform.identity import fingerprint
from vsel_platform.models.quiet import quiet_transformers
from vsel_platform.models.safety import weights_hash

BASE_DIR = Path(__file__).with_name("base")
SECOND_DIR = Path(__file__).with_name("base_second")
EMBEDDED = {"embedded:demo": BASE_DIR, "embedded:demo_second": SECOND_DIR}
"""Shipped models by the name that a project file gives them."""
TEMPLATE = "plain"
"""Conversation template that the base was trained with."""
PAD, BOS, EOS, IMAGE = "<pad>", "<s>", "</s>", "<image>"
PUBLISHED_PREFIX = "model.vision_tower.backbone."
TIED_WEIGHT = "lm_head.weight"
_CELL_PX = 32


def embedded_directory(name: str) -> Path:
    """Directory of a shipped model. Raises ConfigError with the known names."""
    if name not in EMBEDDED:
        raise ConfigError(f"vlm.model: unknown embedded model {name!r}; known: {', '.join(EMBEDDED)}")
    return EMBEDDED[name]


def load_base(device: str = "cpu", directory: Path = BASE_DIR) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """The base model (float32, evaluation mode) on `device`, and its processor.

    The projector and the language model come from the shipped safetensors file, the vision tower from its package.
    Raises MissingPackageError if that package is not installed, ModelError if the shipped file does not fill the rest.
    """
    register_tower()
    with quiet_transformers():
        model = LlavaForConditionalGeneration(LlavaConfig.from_pretrained(directory))
    _fill(model, directory / "model.safetensors")
    return model.eval().to(device), make_processor(Tokenizer.from_file(str(directory / "tokenizer.json")))


def _fill(model: LlavaForConditionalGeneration, file: Path) -> None:
    weights = {name: tensor.float() for name, tensor in load_file(file).items()}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    absent = [name for name in missing if not is_published(name)]
    if absent or unexpected:
        wrong = ", ".join([*absent, *unexpected][:5])
        raise ModelError(f"{file} does not fit the config.json beside it ({wrong}); install the package again")


def is_published(name: str) -> bool:
    """Whether a weight is not in the shipped file: it is the tower's published one, or tied to the embeddings."""
    return name.startswith(PUBLISHED_PREFIX) or name == TIED_WEIGHT


def make_processor(tokenizer: Tokenizer) -> LlavaProcessor:
    """Tokenizer and image processor (128 x 128 pixels, bicubic, ImageNet mean and deviation)."""
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        extra_special_tokens={"image_token": IMAGE},
    )
    images = CLIPImageProcessorPil(
        size={"height": INPUT_PX, "width": INPUT_PX},
        do_center_crop=False,
        image_mean=list(IMAGENET_MEAN),
        image_std=list(IMAGENET_STD),
    )
    return LlavaProcessor(
        image_processor=images,
        tokenizer=fast,
        patch_size=_CELL_PX,
        vision_feature_select_strategy="full",
        image_token=IMAGE,
        num_additional_image_tokens=0,
    )


def base_weights_hash() -> str:
    """Hash of everything that decides the base's output: shipped weights, tokenizer and published tower weights.

    Reads files, but makes no model. Raises MissingPackageError if the tower's package is not installed.
    """
    return fingerprint(
        base=weights_hash(BASE_DIR),
        config=(BASE_DIR / "config.json").read_text("utf-8"),
        tokenizer=(BASE_DIR / "tokenizer.json").read_text("utf-8"),
        tower=published_weights_hash(),
    )
