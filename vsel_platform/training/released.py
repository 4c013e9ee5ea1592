"""Schedules, optimiser groups, LoRA targets and batches exactly as released: for comparison.

Sources: LLaVA 1.5 and SQ-LLaVA (specification 1.6, 1.9, 1.10, 3.7), MiniGPT-4 as in MLLM-DataEngine (2.2, 2.4).
"""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vsel_platform.models.vlm import IGNORED_LABEL

if TYPE_CHECKING:
    import torch

BETAS, EPSILON = (0.9, 0.999), 1e-8
NOT_LANGUAGE = ("mm_projector", "vision_tower", "vision_resampler")
"""Paths that hold no LoRA target in LLaVA."""
NOT_LANGUAGE_SQ = (*NOT_LANGUAGE, "latent_tokens", "crossA_layer")


def cosine_rate(step: int, *, total_steps: int, warmup_steps: int, base_lr: float) -> float:
    """Learning rate before optimiser step `step` (from 0): linear from 0, then half a cosine to 0."""
    if step < warmup_steps:
        return base_lr * step / max(1, warmup_steps)
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return base_lr * max(0.0, 0.5 * (1 + math.cos(math.pi * progress)))


def warmup_steps(total_steps: int, ratio: float) -> int:
    """Steps with a rising rate."""
    return math.ceil(total_steps * ratio)


def minigpt_rate(
    epoch: int,
    step: int,
    *,
    max_epoch: int,
    iters_per_epoch: int,
    init_lr: float,
    min_lr: float,
    warmup_steps: int,
    warmup_start_lr: float,
) -> float:
    """Learning rate of MiniGPT's `linear_warmup_cosine_lr` at iteration `step` of an epoch (both from 0).

    Known faults, kept: the warm-up counts the steps of the epoch, so one longer than an epoch starts again; the cosine
    runs over all steps, those of the warm-up included. A negative `warmup_start_lr` means `init_lr`.
    """
    done = epoch * iters_per_epoch + step
    if done < warmup_steps:
        start = warmup_start_lr if warmup_start_lr >= 0 else init_lr
        return min(init_lr, start + (init_lr - start) * step / max(warmup_steps, 1))
    return (init_lr - min_lr) * 0.5 * (1 + math.cos(math.pi * done / (max_epoch * iters_per_epoch))) + min_lr


def optimizer_groups(
    model: "torch.nn.Module",
    *,
    learning_rate: float,
    weight_decay: float,
    mm_projector_lr: float | None,
    vision_tower_lr: float | None = None,
    sq_llava: bool = False,
) -> list[dict[str, Any]]:
    """AdamW groups {lr, weight_decay, betas, eps, params: names}, in the order that `create_optimizer` builds.

    Decayed are parameters outside norms whose name has no "bias". LLaVA takes a projector rate of 0 for a rate and
    knows none of the tower; SQ-LLaVA takes 0 for unset, and the tower's rate counts only beside the projector's.
    """
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    decayed = _decayed_names(model)
    own: dict[str, float] = {}
    if mm_projector_lr or (mm_projector_lr is not None and not sq_llava):
        own["mm_projector"] = mm_projector_lr
        if sq_llava and vision_tower_lr:
            own["vision_tower"] = vision_tower_lr

    def group(part: str | None, decay: bool) -> dict[str, Any]:
        def belongs(name: str) -> bool:
            return part in name if part else not any(other in name for other in own)

        return {
            "lr": own[part] if part else learning_rate,
            "weight_decay": weight_decay if decay else 0.0,
            "betas": BETAS,
            "eps": EPSILON,
            "params": [name for name in trainable if belongs(name) and (name in decayed) == decay],
        }

    # The tower's groups stand beside those of the rest, the projector's behind them.
    beside = [None, "vision_tower"] if "vision_tower" in own else [None]
    behind = ["mm_projector"] if "mm_projector" in own else []
    return [group(part, decay) for parts in (beside, behind) for decay in (True, False) for part in parts]


def _decayed_names(model: "torch.nn.Module") -> set[str]:
    import torch

    found = set()
    for path, module in model.named_modules():
        if isinstance(module, torch.nn.LayerNorm) or type(module).__name__.endswith("RMSNorm"):
            continue
        names = (name for name, _ in module.named_parameters(recurse=False))
        found |= {f"{path}.{name}" if path else name for name in names}
    return {name for name in found if "bias" not in name}


def lora_targets(model: "torch.nn.Module", left_out: Sequence[str] = NOT_LANGUAGE) -> list[str]:
    """Last name parts of the linear layers that get an adapter, sorted: all but the output layer's and those whose
    path contains one of `left_out`."""
    import torch

    paths = (path for path, module in model.named_modules() if isinstance(module, torch.nn.Linear))
    names = {path.rpartition(".")[2] for path in paths if not any(part in path for part in left_out)}
    return sorted(names - {"lm_head"})


def collate(
    ids: Sequence[Sequence[int]], labels: Sequence[Sequence[int]], *, pad_id: int, max_length: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Ids, labels int64 and attention mask bool [rows, tokens]: padded on the right, then cut; the mask is where the
    id is not `pad_id`, wherever that stands."""
    padded, targets = (_padded(rows, value)[:, :max_length] for rows, value in ((ids, pad_id), (labels, IGNORED_LABEL)))
    return padded, targets, padded != pad_id


def vqa_targets(
    texts: Sequence[str],
    prompts: Sequence[str],
    encode: Callable[[str], list[int]],
    *,
    pad_id: int,
    max_length: int = 160,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """DataEngine v1: ids and targets int64 [rows, tokens] of texts cut to `max_length`; as many tokens as the prompt
    has by itself are no targets, so a prompt that fills the window leaves none."""
    ids = _padded([encode(text)[:max_length] for text in texts], pad_id)
    targets = np.where(ids == pad_id, IGNORED_LABEL, ids)
    for row, prompt in enumerate(prompts):
        targets[row, : len(encode(prompt)[:max_length])] = IGNORED_LABEL
    return ids, targets


def _padded(rows: Sequence[Sequence[int]], value: int) -> NDArray[np.int64]:
    found = np.full((len(rows), max(map(len, rows), default=0)), value, dtype=np.int64)
    for i, row in enumerate(rows):
        found[i, : len(row)] = row
    return found
