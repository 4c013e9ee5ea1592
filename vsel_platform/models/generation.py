"""Answers, greedy or drawn, and where the model looks while it gives each token."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vsel_platform.models.attention import AttentionRecorder, recording
from vsel_platform.models.packing import common_prefix
from vsel_platform.models.sampling import Sampling, drawn_tokens
from vsel_platform.models.vlm import GeneratedAnswer, RenderedRow, padded_places

if TYPE_CHECKING:
    import torch

    from vsel_platform.models.decoder_forward import DecoderForward

GROUP_TOKENS = 2048
"""Largest group of prompts that share their images [tokens]: its attention mask has the square of it."""


def generate_with_attention(
    model: "DecoderForward",
    prompts: Sequence[RenderedRow],
    images: "Sequence[Sequence[torch.Tensor]]",
    *,
    end_token: int,
    max_tokens: int,
) -> list[GeneratedAnswer]:
    """Answers of a batch of prompts (Free2DS, specification C1.3), at most `max_tokens` tokens each.

    Prompts with the same images (the same tensors) pass through the model as branches behind the beginning that they
    share (`models.packing`). Of every layer's attention only the last query's row of each prompt is made.
    """
    return _generated(model, prompts, images, end_token, max_tokens, look=True)


def generate_tokens(
    model: "DecoderForward",
    prompts: Sequence[RenderedRow],
    images: "Sequence[Sequence[torch.Tensor]]",
    *,
    end_token: int,
    max_tokens: int,
) -> list[NDArray[np.int64]]:
    """Greedy answers of a batch of prompts as tokens int64 [T], T at most `max_tokens`, the end token included."""
    return [answer.token_ids for answer in _generated(model, prompts, images, end_token, max_tokens, look=False)]


def sample_tokens(
    model: "DecoderForward",
    prompts: Sequence[RenderedRow],
    images: "Sequence[Sequence[torch.Tensor]]",
    *,
    end_token: int,
    sampling: Sampling,
    uniform: NDArray[np.float64],
) -> list[NDArray[np.int64]]:
    """Drawn answers of a batch of prompts as tokens int64 [T], the end token included.

    uniform: float64 [prompts, most tokens] in [0, 1), one number for each token of each prompt. What is drawn for a
    prompt depends on its own numbers only, so the same prompt may stand there several times.
    """
    found = _generated(model, prompts, images, end_token, uniform.shape[1], look=False, draw=(sampling, uniform))
    return [answer.token_ids for answer in found]


def _generated(
    model: "DecoderForward",
    prompts: Sequence[RenderedRow],
    images: "Sequence[Sequence[torch.Tensor]]",
    end_token: int,
    max_tokens: int,
    *,
    look: bool,
    draw: tuple[Sampling, NDArray[np.float64]] | None = None,
) -> list[GeneratedAnswer]:
    import torch

    groups = prompt_groups(
        [[(image.data_ptr(), *image.shape) for image in own] for own in images],
        prompts,
        [model.image_places(prompt) for prompt in prompts],
    )
    choose = _likeliest if draw is None else _drawing(groups, *draw)
    with torch.inference_mode():
        found = _answers(_Generation(model, groups, prompts, images, choose), end_token, max_tokens, look=look)
    return [found[i] for i in range(len(prompts))]


def _likeliest(logits: "torch.Tensor", step: int) -> "torch.Tensor":
    return logits.argmax(dim=-1)


def _drawing(
    groups: Sequence[Sequence[int]], sampling: Sampling, uniform: NDArray[np.float64]
) -> "Callable[[torch.Tensor, int], torch.Tensor]":
    """Draws the tokens of prompts that stand in groups."""
    import torch

    members = padded_places([np.array(group, dtype=np.int64) for group in groups])
    numbers = torch.from_numpy(np.where(members[..., None] >= 0, uniform[members], 0.0))

    def choose(logits: torch.Tensor, step: int) -> torch.Tensor:
        return drawn_tokens(logits, sampling, numbers[..., step].to(logits.device))

    return choose


def prompt_groups(
    keys: Sequence[Sequence[Any]], prompts: Sequence[RenderedRow], image_places: Sequence[NDArray[np.int64]]
) -> list[list[int]]:
    """Numbers of prompts that can share their beginning: the same images (`keys`), all of them in the beginning that
    they share, and together not longer than GROUP_TOKENS. In the order of their first prompts."""
    groups: list[list[int]] = []
    by_key: dict[tuple[Any, ...], list[list[int]]] = {}
    last_image = [int(places.max(initial=-1)) for places in image_places]

    def fits(rows: list[int]) -> bool:
        # The very same prompt may stand there many times, to be answered by chance.
        prefix = common_prefix(list({id(prompts[j]): prompts[j] for j in rows}.values()))
        length = prefix + sum(len(prompts[j]) - prefix for j in rows)
        return prefix > max(last_image[j] for j in rows) and length <= GROUP_TOKENS

    for i, key in enumerate(keys):
        known = by_key.setdefault(tuple(key), [])
        group = next((group for group in known if fits([*group, i])), None) if key else None
        if group is None:
            known.append([i])
            groups.append(known[-1])
        else:
            group.append(i)
    return groups


@dataclass(frozen=True)
class _Generation:
    """Groups of prompts on their way through a model."""

    model: "DecoderForward"
    groups: list[list[int]]
    prompts: Sequence[RenderedRow]
    images: "Sequence[Sequence[torch.Tensor]]"
    choose: "Callable[[torch.Tensor, int], torch.Tensor]"
    """Tokens [groups, branches] from logits [groups, branches, vocabulary] and the number of the step."""

    @property
    def rows(self) -> list[list[RenderedRow]]:
        """The prompts of every group."""
        return [[self.prompts[i] for i in group] for group in self.groups]


def _answers(run: _Generation, end_token: int, max_tokens: int, *, look: bool) -> dict[int, GeneratedAnswer]:
    """Answers by number of the prompt; with attention only if it is to `look`.

    A prompt of a group sees the group's beginning (branch 0) and its own branch; a generated token joins the branch of
    its prompt, behind whatever pads the groups, and sees the same.
    """
    import torch
    from transformers import DynamicCache

    model, decoder = run.model, run.model.decoder
    batch, inputs, prefix = model.packed_inputs(run.rows, [run.images[group[0]] for group in run.groups])
    width = inputs["inputs_embeds"].shape[1]
    last = torch.from_numpy(padded_places([packed.last for packed in batch])).to(model.device)
    places = [model.image_places(run.prompts[group[0]]) for group in run.groups]
    keys = torch.from_numpy(padded_places(places)).to(model.device)
    own = torch.arange(1, last.shape[1] + 1, device=model.device)
    branch = torch.full((len(batch), width), -1, device=model.device)
    for i, packed in enumerate(batch):
        branch[i, : len(packed)] = torch.from_numpy(packed.branch)
    seen = _visible(branch, own) & (torch.arange(width, device=model.device) <= last[..., None])
    following, known = model.following_positions(run.rows), last >= 0
    # Whole layers even for a decoder with a sliding window: padding must not push tokens out of it.
    cache = DynamicCache()
    query, tokens, looks = last, [], []
    for step in range(max_tokens):
        recorder = AttentionRecorder(frozenset(range(len(decoder.layers))), query, keys, allowed=seen, each_query=True)
        with recording(decoder.config, recorder) if look else nullcontext():
            states = model.through(inputs, prefix if step == 0 else 0, cache)
        if look:
            looks.append(torch.stack(list(recorder.mass.values())).mean(dim=0))
        if step == 0:
            states = states[torch.arange(len(batch), device=model.device)[:, None], last.clamp(min=0)]
        tokens.append(run.choose(model.logits(states), step))
        if bool(((torch.stack(tokens) == end_token).any(dim=0) | ~known).all()):
            break
        branch = torch.cat([branch, own.expand(len(batch), -1)], dim=1)
        seen = _visible(branch, own)
        hidden = torch.zeros(seen.shape, dtype=model.model.dtype, device=model.device)
        inputs = {
            "inputs_embeds": model.token_embeddings(tokens[-1]),
            "attention_mask": hidden.masked_fill_(~seen, torch.finfo(model.model.dtype).min)[:, None],
            "position_ids": following + step,
        }
        query = (width + step * len(own) + own - 1).expand(len(batch), -1).masked_fill(~known, -1)
    ids = torch.stack(tokens, dim=-1).cpu().numpy()
    shape = (*last.shape, len(tokens), keys.shape[1])
    attention = torch.stack(looks, dim=2).cpu().numpy() if look else np.zeros(shape, np.float32)
    return {
        i: _answer(ids[b, g], attention[b, g, :, : len(places[b])], end_token)
        for b, group in enumerate(run.groups)
        for g, i in enumerate(group)
    }


def _visible(branch: "torch.Tensor", own: "torch.Tensor") -> "torch.Tensor":
    """Which tokens a branch sees, bool [groups, branches, tokens], given the branch of every token [groups, tokens]."""
    return (branch[:, None] == 0) | (branch[:, None] == own[None, :, None])


def _answer(tokens: NDArray[np.int64], attention: NDArray[np.float32], end_token: int) -> GeneratedAnswer:
    """`tokens` [steps] and `attention` [steps, P] up to the end token."""
    ends = np.flatnonzero(tokens == end_token)
    count = int(ends[0]) + 1 if len(ends) else len(tokens)
    return GeneratedAnswer(tokens[:count], attention[:count])
