"""transformers' Trainer on rows of conversations: packed by tokens, resumable, on any number of devices."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from vsel_platform.errors import ModelError, OutOfMemoryError
from vsel_platform.models.batching import BatchLimits, free_memory, is_out_of_memory, token_batches
from vsel_platform.models.images import ContentFailure
from vsel_platform.models.prototype_usage import PrototypeUsage, mean_usage
from vsel_platform.training.examples import Example
from vsel_platform.training.gradients import require_gradients
from vsel_platform.training.resumable import ResumableTrainer
from vsel_platform.training.rows_loss import Part, RowsLoss
from vsel_platform.training.step_images import LoadedImages
from vsel_platform.training.unusable import UnusableLimit

USAGE_EVERY = 50
"""Prototypes are looked at every so many steps."""


@dataclass(frozen=True)
class StepRows:
    """This process's rows of an optimiser step and their images.

    weights: float32 [targets] of every row. units: the loss is the sum of weighted losses over the sum of all
    processes' units. is_question: bool [targets] of every row, targets that the virtual user says. failed: rows that
    cannot be learned from after all, by id.
    """

    rows: list[Example]
    weights: list[NDArray[np.float32]]
    units: float
    is_question: list[NDArray[np.bool_]]
    images: LoadedImages
    failed: tuple[ContentFailure, ...] = ()

    @property
    def tokens(self) -> int:
        """Tokens of all rows."""
        return sum(len(row.rendered) for row in self.rows)


class RowsTrainer(ResumableTrainer):
    """Trains a `RowsLoss`. One batch of its loader is this process's share of one optimiser step. `groups` gives the
    optimiser's groups of parameters, `factor` what their rates are multiplied with at a step (from 0), `limit` how many
    rows may fail.

    The rows of a step pass in parts of at most `batch_tokens` tokens, whose gradients add up to that of the weighted
    mean over all targets; when memory is short, in smaller parts. A part's size changes no result but rounding.
    """

    def __init__(
        self,
        model: RowsLoss,
        args: transformers.TrainingArguments,
        n_steps: int,
        load: Callable[[int], StepRows],
        *,
        groups: Callable[[], list[dict[str, Any]]],
        factor: Callable[[int], float],
        batch_tokens: int,
        limit: UnusableLimit,
        callbacks: list[transformers.TrainerCallback],
    ) -> None:
        self.optimizer: Any
        self.lr_scheduler: Any
        super().__init__(model=model, args=args, train_dataset=range(n_steps), callbacks=callbacks)
        self.remove_callback(transformers.PrinterCallback)
        self._rows_loss = model
        self._load, self._groups, self._factor = load, groups, factor
        self._batch_tokens, self._limit = batch_tokens, limit
        self._limits = BatchLimits()
        self._checked = False
        # A step's time is that since the end of the one before: pictures and the optimiser's work belong to it.
        self._ended = 0.0

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW of the groups; made late, because what shards a model replaces its parameters."""
        found: torch.optim.Optimizer = self.optimizer or torch.optim.AdamW(self._groups())
        self.optimizer = found
        return found

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The factor of every group's own rate."""
        if self.lr_scheduler is None:
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.create_optimizer(), self._factor)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def get_train_dataloader(self) -> Any:
        """One step after the other; rows were shared out among processes when the steps were planned."""
        return torch.utils.data.DataLoader(
            self.train_dataset, batch_sampler=[[i] for i in self.train_dataset], collate_fn=self._step
        )

    def _step(self, numbers: Sequence[int]) -> StepRows:
        step = self._load(numbers[0])
        self.failed |= {failure.content_id: failure for failure in step.failed}
        return step

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: Any) -> None:
        """Steps say themselves what their loss is divided by."""

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted."""
        return 0

    def _track_num_input_tokens(self, inputs: Any) -> None:
        """Counted in `history`."""

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """Gradients of one step; its loss [nat/token], the mean over the tokens of this process."""
        start = self._ended or time.perf_counter()
        model.train()
        step: StepRows = inputs
        has_images = any(row.images for row in step.rows)
        units, n_failed, have_images = self._together([step.units, len(self.failed), has_images])
        if self._limit.exceeded(int(n_failed)):  # a row may have failed in several processes, in one epoch each
            self._limit.check(self.failed_of_all().values())
        if not units:
            return torch.zeros((), device=self.args.device)
        with self._gradients_checked() if have_images else nullcontext():
            loss, nll = self._all_parts(model, step, units)
        self._fill_gradients()
        self._ended = time.perf_counter()
        self._record(step, units, loss, nll, self._ended - start)
        return torch.tensor(loss, device=self.args.device)

    def _all_parts(self, model: Any, step: StepRows, units: float) -> tuple[float, NDArray[np.float32]]:
        """What `_accumulate` gives, with parts that fit into memory."""
        while True:
            try:
                return self._accumulate(model, step, units)
            except _PartTooLargeError as error:
                self._limits.lower("training", error.tokens // 2)
            free_memory()
            model.zero_grad()

    def _accumulate(self, model: Any, step: StepRows, units: float) -> tuple[float, NDArray[np.float32]]:
        """Gradients of this process's share; its part of the loss, and the loss of every target [nat]."""
        lengths = [len(row.rendered) for row in step.rows]
        budget = self._limits.limit("training", self._batch_tokens)
        parts: list[list[int]] = list(token_batches(lengths, lambda: budget))
        world = self.accelerator.num_processes
        if world > 1:
            counts = self.accelerator.gather(torch.tensor([len(parts)], device=self.args.device))
            parts += [[] for _ in range(int(counts.max()) - len(parts))]
        total, found = 0.0, [np.zeros(0, np.float32)] * len(step.rows)
        for number, chosen in enumerate(parts):
            own = self._part(step, chosen)
            try:
                with self._usage() if not number else nullcontext():
                    loss, nll = self._backward(model, own, units, last=number == len(parts) - 1)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                self._explain_memory(error, step, chosen, world)
                raise _PartTooLargeError(len(chosen) * max(lengths[i] for i in chosen)) from None
            total += loss
            ends = np.cumsum([step.rows[i].rendered.n_targets for i in chosen])[:-1]
            for i, values in zip(chosen, np.split(nll.cpu().numpy(), ends), strict=bool(chosen)):
                found[i] = values
        if not math.isfinite(total):
            raise ModelError("training: the loss is not finite; lower learning_rate, or use bfloat16 or float32")
        return total, np.concatenate([np.zeros(0, np.float32), *found])

    @contextmanager
    def _usage(self) -> Iterator[None]:
        """Every so many steps, how prototypes group what passes first, into the history."""
        step, found = len(self.history.loss), list[tuple[int, PrototypeUsage]]()
        if step % USAGE_EVERY:
            yield
            return
        with self._rows_loss.prototypes_watched(found):
            yield
        if found:
            self.history.prototypes.append({"step": step} | mean_usage(found).to_dict())

    def _part(self, step: StepRows, chosen: Sequence[int]) -> Part:
        rows = [step.rows[i] for i in chosen]
        return Part(rows, [step.weights[i] for i in chosen], step.images.features, step.images.pixels)

    def _backward(self, model: Any, part: Part, units: float, *, last: bool) -> tuple[float, torch.Tensor]:
        # Processes' gradients are averaged; this is the share of a sum.
        world = self.accelerator.num_processes
        self.accelerator.gradient_state._set_sync_gradients(last)  # DeepSpeed takes a step with the last part alone
        with nullcontext() if last or world == 1 else self.accelerator.no_sync(model):
            loss, nll = model(part)
            if loss.requires_grad:  # not where only images reach what is trained, and the part has none
                self.accelerator.backward(loss * (world / units))
        return float(loss.detach()) / units, nll

    def _explain_memory(self, error: Exception, step: StepRows, chosen: Sequence[int], world: int) -> None:
        row = step.rows[chosen[0]] if chosen else None
        if row is not None and len(chosen) > 1 and world == 1:
            return
        what = f"row {row.sample_id} ({len(row.rendered)} tokens)" if row else "a step"
        if world > 1:
            raise OutOfMemoryError(
                f"{what}: too little memory for vlm.batch_tokens {self._batch_tokens} on one of {world} devices: "
                f"{error}. "
                "Lower vlm.batch_tokens, or switch gradient_checkpointing on"
            ) from error
        raise OutOfMemoryError(
            f"{what} does not fit into memory for training even alone: {error}. Lower vlm.max_tokens, switch "
            "gradient_checkpointing on or use a device with more memory"
        ) from error

    @contextmanager
    def _gradients_checked(self) -> Iterator[None]:
        """In the first step with an image in any process: every tensor that is trained gets a gradient in one of them.
        What shares a model out replaces its tensors, so nothing is looked at there."""
        if self._checked or self.is_deepspeed_enabled or self.is_fsdp_enabled:
            yield
            return
        self._checked, found = True, set[str]()
        with self._rows_loss.gradients_watched(found):
            yield
        require_gradients(self.model, set(self._everyone(sorted(found))))

    def _fill_gradients(self) -> None:
        """Where a step without images gives none, 0: AdamW else counts the steps of such tensors apart, and a process
        alone would learn something else than a group."""
        if not self.is_deepspeed_enabled:
            for parameter in self.model.parameters():
                if parameter.requires_grad and parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)

    def _record(self, step: StepRows, units: float, loss: float, nll: NDArray[np.float32], seconds: float) -> None:
        question = np.concatenate([np.zeros(0, bool), *step.is_question])
        sums = [loss, *_sum_and_count(nll[~question]), *_sum_and_count(nll[question]), len(step.rows), step.tokens]
        total, answers, n_answers, questions, n_questions, rows, tokens = self._together(sums)
        history = self.history
        history.loss.append(total)
        history.answer_loss.append(answers / n_answers if n_answers else math.nan)
        history.question_loss.append(questions / n_questions if n_questions else math.nan)
        history.learning_rate.append(float(self.optimizer.param_groups[0]["lr"]))
        history.rows.append(int(rows))
        history.tokens.append(int(tokens))
        history.seconds.append(seconds)


class _PartTooLargeError(Exception):
    """A part of a step did not fit into memory; the step starts anew with smaller parts."""

    def __init__(self, tokens: int) -> None:
        super().__init__(tokens)
        self.tokens = tokens


def _sum_and_count(values: NDArray[np.float32]) -> tuple[float, int]:
    return float(values.sum(dtype=np.float64)), len(values)
