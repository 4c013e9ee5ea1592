"""EfficientNet-Lite0 as the frozen vision tower of a LLaVA model: 128 pixels to 16 tokens of width 768."""

from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from vsel_platform.demo.efficientnet import (
    INPUT_PX,
    LAST_CHANNELS,
    MIDDLE_CHANNELS,
    Backbone,
    load_backbone,
    run_in_chunks,
)

IMAGE_TOKENS = 16
TOKEN_WIDTH = LAST_CHANNELS + 4 * MIDDLE_CHANNELS


class EffLiteConfig(PretrainedConfig):  # type: ignore[misc]
    """Configuration of the tower; its sizes are fixed by the published network."""

    model_type = "efficientnet_lite0_tower"

    def __init__(
        self,
        hidden_size: int = TOKEN_WIDTH,
        image_size: int = INPUT_PX,
        num_hidden_layers: int = 1,
        **kwargs: Any,
    ) -> None:
        self.hidden_size = hidden_size
        self.image_size = image_size
        self.num_hidden_layers = num_hidden_layers
        super().__init__(**kwargs)


class EffLiteModel(PreTrainedModel):  # type: ignore[misc]
    """The tower. Each of its 4 x 4 tokens joins the last block's channels of one cell with the four finer cells of
    block 10 below it; every channel is shifted and scaled to mean 0 and deviation 1 on the base's training pictures
    (`token_mean`, `token_std`, stored with the base).

    The published weights are loaded from their package when the model is made.
    """

    config_class = EffLiteConfig
    main_input_name = "pixel_values"
    _supports_sdpa = True
    token_mean: torch.Tensor
    token_std: torch.Tensor

    def __init__(self, config: EffLiteConfig) -> None:
        super().__init__(config)
        self.backbone: Backbone = load_backbone()
        self.register_buffer("token_mean", torch.zeros(TOKEN_WIDTH))
        self.register_buffer("token_std", torch.ones(TOKEN_WIDTH))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing: the weights are the published ones."""

    def forward(self, pixel_values: torch.Tensor, **kwargs: Any) -> BaseModelOutput:
        """Tokens [n, 16, 768] of pixels [n, 3, 128, 128]; `hidden_states` holds them alone."""
        middle, last = run_in_chunks(self.backbone, pixel_values)
        joined = torch.cat([last, nn.functional.pixel_unshuffle(middle, 2)], dim=1)
        tokens = (joined.flatten(2).transpose(1, 2) - self.token_mean) / self.token_std
        return BaseModelOutput(last_hidden_state=tokens, hidden_states=(tokens,))


def register_tower() -> None:
    """Make the tower known to transformers' AutoConfig and AutoModel; doing it again changes nothing."""
    AutoConfig.register(EffLiteConfig.model_type, EffLiteConfig, exist_ok=True)
    AutoModel.register(EffLiteConfig, EffLiteModel, exist_ok=True)
