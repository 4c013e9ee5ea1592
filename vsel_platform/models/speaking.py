"""What a model says after prompts: the same for all families."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vsel_platform.models.decoder_forward import DecoderForward
from vsel_platform.models.generation import generate_tokens, generate_with_attention, sample_tokens
from vsel_platform.models.sampling import Sampling
from vsel_platform.models.vlm import GeneratedAnswer, RenderedRow

if TYPE_CHECKING:
    import torch


class Speaking(DecoderForward):
    """A model with a tokenizer, and with the token that ends its answers."""

    _tokenizer: Any
    _end_token: int

    @property
    def tokenizer(self) -> Any:
        """With the tokens that were added to it."""
        return self._tokenizer

    def generate(
        self, prompts: Sequence[RenderedRow], images: "Sequence[Sequence[torch.Tensor]]", *, max_tokens: int
    ) -> list[GeneratedAnswer]:
        """Greedy answers with the attention to the image (see `models.generation`)."""
        return generate_with_attention(self, prompts, images, end_token=self._end_token, max_tokens=max_tokens)

    def answer(
        self, prompts: Sequence[RenderedRow], images: "Sequence[Sequence[torch.Tensor]]", *, max_tokens: int
    ) -> list[NDArray[np.int64]]:
        """Greedy answers as tokens int64 [T], T at most `max_tokens`, the end token included."""
        return generate_tokens(self, prompts, images, end_token=self._end_token, max_tokens=max_tokens)

    def sample(
        self,
        prompts: Sequence[RenderedRow],
        images: "Sequence[Sequence[torch.Tensor]]",
        *,
        sampling: Sampling,
        uniform: NDArray[np.float64],
    ) -> list[NDArray[np.int64]]:
        """Drawn answers or questions as tokens int64 [T], the end token included (see `generation.sample_tokens`)."""
        return sample_tokens(self, prompts, images, end_token=self._end_token, sampling=sampling, uniform=uniform)

    def text_of(self, tokens: NDArray[np.int64]) -> str:
        """Text of generated tokens, without special tokens and blanks around it."""
        return str(self._tokenizer.decode(tokens.tolist(), skip_special_tokens=True)).strip()
