"""Image features in place of image tokens, exactly as released; `models.decoder_forward` is the default.

A row without image takes a row of features too (and shows nothing of it), in both versions.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from vsel_platform.models.llava_released import IMAGE_TOKEN
from vsel_platform.models.vlm import IGNORED_LABEL

Embed = Callable[[Tensor], Tensor]


class Spliced(NamedTuple):
    """embeddings [rows, tokens, width]; labels int64 and attention_mask bool [rows, tokens]."""

    embeddings: Tensor
    labels: Tensor
    attention_mask: Tensor


def splice(
    input_ids: Tensor,
    labels: Tensor,
    attention_mask: Tensor,
    embed: Embed,
    features: Tensor,
    *,
    max_length: int | None = None,
    padding_side: Literal["right", "left"] = "right",
) -> Spliced:
    """LLaVA: padding is dropped, every image token becomes the next features, rows are cut, then padded.

    `input_ids`, `labels`, `attention_mask` [rows, tokens]; `features` [images and rows without, tokens, width].
    """
    used, rows = 0, []
    for ids, targets, mask in zip(input_ids, labels, attention_mask, strict=True):
        count = int((ids[mask] == IMAGE_TOKEN).sum())
        own = features[used : used + count]
        used += max(1, count)
        row, own_labels = _with_features(ids[mask], targets[mask], embed, own)
        rows.append((row[:max_length], own_labels[:max_length]))
    return _padded(rows, [torch.ones(len(row), dtype=torch.bool) for row, _ in rows], padding_side)


def splice_sq(input_ids: Tensor, labels: Tensor, attention_mask: Tensor, embed: Embed, features: Tensor) -> Spliced:
    """SQ-LLaVA: padding tokens stay, all images of a row show the row's features [tokens, width], nothing is cut, and
    the mask grows at its left end. Arguments as for `splice`, `features` one per row."""
    rows, masks = [], []
    for ids, targets, mask, own in zip(input_ids, labels, attention_mask, features, strict=True):
        count = int((ids == IMAGE_TOKEN).sum())
        rows.append(_with_features(ids, targets, embed, own.expand(count, -1, -1)))
        grown = torch.ones(len(rows[-1][0]) - len(ids), dtype=torch.bool)
        masks.append(torch.cat([grown.to(mask.device), mask.bool()]))
    return _padded(rows, masks, "right")


def _with_features(ids: Tensor, labels: Tensor, embed: Embed, images: Tensor) -> tuple[Tensor, Tensor]:
    """A row with its images' features in place of its image tokens, and its labels."""
    places = (ids == IMAGE_TOKEN).nonzero().flatten().tolist()
    pieces, targets, start = [], [], 0
    for place, image in zip(places, images, strict=True):
        pieces += [embed(ids[start:place]), image]
        targets += [labels[start:place], labels.new_full((len(image),), IGNORED_LABEL)]
        start = place + 1
    return torch.cat([*pieces, embed(ids[start:])]), torch.cat([*targets, labels[start:]])


def _padded(rows: Sequence[tuple[Tensor, Tensor]], masks: Sequence[Tensor], side: str) -> Spliced:
    width = max(len(row) for row, _ in rows)

    def stacked(tensors: Sequence[Tensor], value: float) -> Tensor:
        padded = []
        for tensor in tensors:
            missing = width - len(tensor)
            ends = (missing, 0) if side == "left" else (0, missing)
            padded.append(functional.pad(tensor, (0, 0) * (tensor.ndim - 1) + ends, value=value))
        return torch.stack(padded)

    return Spliced(
        stacked([row for row, _ in rows], 0.0),
        stacked([labels for _, labels in rows], IGNORED_LABEL),
        stacked([mask.to(rows[0][0].device) for mask in masks], 0).bool(),
    )


def mean_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy of the next tokens [nat], in float32, over the labels of a batch that are not ignored."""
    flat = logits[:, :-1].float().flatten(0, 1)
    return functional.cross_entropy(flat, labels[:, 1:].flatten(), ignore_index=IGNORED_LABEL)
