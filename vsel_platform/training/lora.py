"""LoRA fine-tuning on answers (PreSel's settings by default: specification A1.9)."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vsel_platform.config import LoraSettings, VlmSettings
from vsel_platform.errors import DataError, ModelError, OutOfMemoryError
from vsel_platform.models.batching import (
    BatchLimits,
    free_memory,
    is_out_of_memory,
    token_batches,
    usable_batch_tokens,
)
from vsel_platform.models.devices import resolve_device
from vsel_platform.models.image_features import TowerFeatures
from vsel_platform.models.images import ImageProvider
from vsel_platform.models.llava import LlavaAdapter, load_llava
from vsel_platform.models.scoring import target_nll
from vsel_platform.models.vlm import ConversationRow, RenderedRow
from vsel_platform.training.adapter import add_lora, parameter_groups, save_adapter
from vsel_platform.training.model_card import model_card
from vsel_platform.training.schedule import epoch_means, learning_rate_factor, step_batches

if TYPE_CHECKING:
    import torch

FEATURE_CACHE_GIB = 4.0


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """What a training run did; losses are means over the steps of the first and of the last epoch [nat/token].

    The loss of every step lies beside the adapter, in `losses.json`.
    """

    steps: int
    rows: int
    n_skipped: int
    seconds: float
    first_epoch_loss: float
    last_epoch_loss: float
    trainable_parameters: int
    adapter_sha256: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Example:
    sample_id: str
    rendered: RenderedRow
    images: tuple[str, ...]


def train_lora(
    base: VlmSettings,
    rows: Sequence[ConversationRow],
    settings: LoraSettings,
    images: ImageProvider,
    out_dir: Path,
    *,
    device: str = "auto",
    on_step: Callable[[int, int], None] | None = None,
    confirm: Callable[[str], None] | None = None,
    feature_cache_gib: float = FEATURE_CACHE_GIB,
    origin: Mapping[str, str] | None = None,
) -> TrainingReport:
    """Train a LoRA adapter on the answers of `rows` and write it to `out_dir`: safetensors, model card, losses.

    The vision tower stays frozen: its features are computed once per distinct image and kept up to
    `feature_cache_gib`. Rows are taken in an order drawn from the seed and their ids, so the same rows in any order
    give the same adapter; on a CPU, with the same number of threads, to the last byte. Rows without an answer or
    with a broken image are left out and counted. `on_step` gets (steps done, steps in all);
    `confirm` gets the base model's fingerprint before anything is trained; `origin` says in the model card where the
    rows come from. Raises ModelError if no
    row is left or the loss stops being finite, OutOfMemoryError if one row does not fit, and what `load_llava` raises.
    """
    start = time.perf_counter()
    device = resolve_device(device)
    model = load_llava(base, device)
    if confirm is not None:
        confirm(model.fingerprint)
    examples = _examples(model, rows)
    with _seeded(settings.seed, device):
        run = _Run(model, settings, images, base, feature_cache_gib)
        losses = run.train(examples, on_step)
    n_skipped = len(rows) - len(examples) + len(run.skipped)
    first, last = epoch_means(losses, settings.epochs)
    card = model_card(
        base,
        settings,
        base_fingerprint=model.fingerprint,
        sample_ids=sorted(run.trained),
        n_skipped=n_skipped,
        first_epoch_loss=first,
        last_epoch_loss=last,
        origin=origin or {},
    )
    return TrainingReport(
        steps=len(losses),
        rows=len(run.trained),
        n_skipped=n_skipped,
        seconds=time.perf_counter() - start,
        first_epoch_loss=first,
        last_epoch_loss=last,
        trainable_parameters=run.trainable_parameters,
        adapter_sha256=save_adapter(run.peft_model, out_dir, card, losses),
    )


def _examples(model: LlavaAdapter, rows: Sequence[ConversationRow]) -> list[_Example]:
    """Rows that can be trained on, sorted by id."""
    examples = []
    for row in sorted(rows, key=lambda row: row.sample_id):
        try:
            rendered = model.render(row.turns, len(row.images))
        except DataError:
            continue  # counted by the caller as a row that was left out
        if rendered.n_targets:
            examples.append(_Example(row.sample_id, rendered, tuple(row.images)))
    if not examples:
        raise ModelError(f"training: none of {len(rows)} rows has an answer that fits into the model's length")
    return examples


class _Run:
    """One training run: model with LoRA layers, optimiser, image features."""

    def __init__(
        self,
        model: LlavaAdapter,
        settings: LoraSettings,
        images: ImageProvider,
        base: VlmSettings,
        feature_cache_gib: float,
    ) -> None:
        import torch

        self._model = model
        self._settings = settings
        self._batch_tokens = usable_batch_tokens(base.batch_tokens, model.device)
        self._limits = BatchLimits()
        self._tower = TowerFeatures(model, images, limits=self._limits, keep_bytes=int(feature_cache_gib * 2**30))
        self.peft_model = add_lora(model.model, settings, base_name=base.model)
        self._optimizer = torch.optim.AdamW(
            parameter_groups(self.peft_model, settings), weight_decay=settings.weight_decay
        )
        self._parameters = [p for group in self._optimizer.param_groups for p in group["params"]]
        self.trainable_parameters = sum(p.numel() for p in self._parameters)
        self.trained: set[str] = set()
        self.skipped: set[str] = set()

    def train(self, examples: Sequence[_Example], on_step: Callable[[int, int], None] | None) -> list[float]:
        """Run all steps; mean loss of every step that had a usable row."""
        steps = step_batches(
            len(examples),
            epochs=self._settings.epochs,
            batch_rows=self._settings.batch_rows,
            seed=self._settings.seed,
        )
        self.peft_model.train()
        losses = []
        for number, chosen in enumerate(steps):
            factor = learning_rate_factor(number, steps=len(steps), warmup_fraction=self._settings.warmup_fraction)
            loss = self._step([examples[i] for i in chosen], factor)
            if loss is not None:
                losses.append(loss)
            if on_step is not None:
                on_step(number + 1, len(steps))
        self.peft_model.eval()
        if not losses:
            raise ModelError("training: no row has a readable image")
        return losses

    def _step(self, examples: Sequence[_Example], factor: float) -> float | None:
        """One optimiser step; None if none of its rows has readable images."""
        import torch

        features, failures = self._tower.get([image for e in examples for image in e.images])
        usable = [e for e in examples if not any(image in failures for image in e.images)]
        self.trained |= {e.sample_id for e in usable}
        self.skipped |= {e.sample_id for e in examples} - self.trained
        if not usable:
            return None
        loss = self._accumulate(usable, features)
        if not math.isfinite(loss):
            raise ModelError("training: the loss is not finite; lower learning_rate, or use bfloat16 or float32")
        torch.nn.utils.clip_grad_norm_(self._parameters, self._settings.max_grad_norm)
        for group in self._optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        self._optimizer.step()
        return loss

    def _accumulate(self, examples: Sequence[_Example], features: "dict[str, torch.Tensor]") -> float:
        """Gradients of the mean loss over all answer tokens of a step; with less memory, in smaller parts."""
        import torch

        lengths = [len(e.rendered) for e in examples]
        n_targets = sum(e.rendered.n_targets for e in examples)
        while True:
            self._optimizer.zero_grad(set_to_none=True)
            total, part = 0.0, [0]
            try:
                for part in token_batches(lengths, self._limit):
                    loss = self._loss_sum([examples[i] for i in part], features) / n_targets
                    torch.autograd.backward(loss)
                    total += float(loss.detach())
                return total
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if len(part) == 1:
                    raise OutOfMemoryError(
                        f"row {examples[part[0]].sample_id} ({lengths[part[0]]} tokens) does not fit into memory "
                        f"for training even alone: {error}. Lower vlm.max_tokens or use a device with more memory"
                    ) from error
            # Half of the gradients may be there: the step starts anew with smaller parts.
            free_memory()
            self._limits.lower("training", len(part) * max(lengths[i] for i in part) // 2)

    def _limit(self) -> int:
        return self._limits.limit("training", self._batch_tokens)

    def _loss_sum(self, examples: Sequence[_Example], features: "dict[str, torch.Tensor]") -> "torch.Tensor":
        """Sum of the negative log-likelihood of the answer tokens [nat], with gradient."""
        import torch

        ids = list(dict.fromkeys(image for e in examples for image in e.images))
        projected: dict[str, torch.Tensor] = {}
        if ids:
            stacked = self._model.project(torch.stack([features[i] for i in ids]))
            projected = dict(zip(ids, stacked, strict=True))
        states, targets, _ = self._model.target_states(
            [[e.rendered] for e in examples], [[projected[image] for image in e.images] for e in examples]
        )
        return target_nll(self._model.logits(states), targets).sum()


@contextmanager
def _seeded(seed: int, device: str) -> Iterator[None]:
    """Torch's random state set from `seed` inside, and restored afterwards."""
    import torch

    devices = [torch.device(device)] if device.startswith("cuda") else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
