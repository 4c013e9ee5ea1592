"""Greedy answers, and where the model looks while it gives each token."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vsel_platform.models.attention import AttentionRecorder, recording
from vsel_platform.models.vlm import GeneratedAnswer, RenderedRow, padded_places

if TYPE_CHECKING:
    import torch

    from vsel_platform.models.decoder_forward import DecoderForward


def generate_with_attention(
    model: "DecoderForward",
    prompts: Sequence[RenderedRow],
    images: "Sequence[Sequence[torch.Tensor]]",
    *,
    end_token: int,
    max_tokens: int,
) -> list[GeneratedAnswer]:
    """Answers of a batch of prompts (Free2DS, specification C1.3), at most `max_tokens` tokens each.

    Prompts are padded on the right: a prompt's tokens see nothing behind them, and the generated tokens, which are
    cached behind the padding, are kept from seeing it. Of every layer's attention only the last query's row is made.
    """
    import torch
    from transformers import DynamicCache

    decoder = model.decoder
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=model.device)
    keys = torch.from_numpy(padded_places([model.image_places(p) for p in prompts])).to(model.device)
    # Whole layers even for a decoder with a sliding window: padding must not push tokens out of it.
    cache = DynamicCache()
    rows = torch.arange(len(prompts), device=model.device)
    with torch.inference_mode():
        inputs: dict[str, Any] = model.decoder_inputs(prompts, images)
        following = model.following_positions(prompts)
        width = inputs["inputs_embeds"].shape[1]
        place, query, valid = (lengths - 1)[:, None], lengths - 1, None
        tokens, looks = [], []
        for step in range(max_tokens):
            recorder = AttentionRecorder(frozenset(range(len(decoder.layers))), place, keys, valid=valid)
            with recording(decoder.config, recorder):
                states = decoder(use_cache=True, past_key_values=cache, **inputs).last_hidden_state
            looks.append(torch.stack(list(recorder.mass.values())).mean(dim=0))
            tokens.append(model.logits(states[rows, query]).argmax(dim=-1))
            if all((torch.stack(tokens) == end_token).any(dim=0).tolist()):
                break
            total = width + step + 1
            seen = torch.arange(total, device=model.device)
            valid = (seen < lengths[:, None]) | (seen >= width)
            lowest = torch.finfo(model.model.dtype).min
            hidden = torch.zeros(valid.shape, dtype=model.model.dtype, device=model.device).masked_fill(~valid, lowest)
            inputs = {
                "inputs_embeds": model.token_embeddings(tokens[-1])[:, None],
                "attention_mask": hidden[:, None, None],
                "position_ids": following + step,
            }
            place, query = torch.full_like(lengths, total - 1)[:, None], torch.zeros_like(lengths)
    return _answers(
        torch.stack(tokens, dim=1).cpu().numpy(), torch.stack(looks, dim=1).cpu().numpy(), end_token, keys.cpu().numpy()
    )


def _answers(
    tokens: NDArray[np.int64], attention: NDArray[np.float32], end_token: int, keys: NDArray[np.int64]
) -> list[GeneratedAnswer]:
    """Rows of `tokens` [rows, steps] and `attention` [rows, steps, P], each up to its own end token."""
    answers = []
    for own, look, places in zip(tokens, attention, keys, strict=True):
        ends = np.flatnonzero(own == end_token)
        count = int(ends[0]) + 1 if len(ends) else len(own)
        answers.append(GeneratedAnswer(own[:count], look[:count, : int((places >= 0).sum())]))
    return answers
