"""LoRA fine-tuning on conversations, with transformers' Trainer."""

import random
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
import transformers

from vsel_platform.config import VlmSettings
from vsel_platform.config_training import LoraSettings, RuntimeSettings
from vsel_platform.errors import ModelError
from vsel_platform.models.batching import usable_batch_tokens
from vsel_platform.models.devices import resolve_device
from vsel_platform.models.family_adapter import FamilyAdapter
from vsel_platform.models.images import ImageProvider
from vsel_platform.models.llava import LlavaAdapter
from vsel_platform.models.load import load_vlm
from vsel_platform.models.lora_adapter import BASE_ADAPTER, keep_base
from vsel_platform.models.quantization import quantize_language_model
from vsel_platform.models.vlm import ConversationRow
from vsel_platform.ranks import ALONE, Share
from vsel_platform.training.adapter import add_lora, parameter_groups, save_adapter
from vsel_platform.training.callbacks import Observer
from vsel_platform.training.history import History
from vsel_platform.training.model_card import model_card
from vsel_platform.training.report import TrainingReport, throughput
from vsel_platform.training.resume import TrainingStates
from vsel_platform.training.rows_loss import RowsLoss
from vsel_platform.training.runtime import placed, require_trackers, state_kind, training_arguments
from vsel_platform.training.schedule import epoch_means, learning_rate_factor
from vsel_platform.training.sharding import kept_whole, require_possible, zero_stage
from vsel_platform.training.step_rows import StepLoader
from vsel_platform.training.trainer import RowsTrainer

FEATURE_CACHE_GIB = 4.0
ON_TOP = f"the adapter in {BASE_ADAPTER}/, which is merged first; `vsel checkpoint --merged` writes all as one model"


@dataclass(frozen=True)
class TrainingJob:
    """How a training runs, none of which changes its result: where its states are kept, whom it tells, with whom it
    shares its rows."""

    device: str = "auto"
    on_step: Callable[[int, int], None] | None = None
    confirm: Callable[[str], None] | None = None
    feature_cache_gib: float = FEATURE_CACHE_GIB
    states: TrainingStates | None = None
    runtime: RuntimeSettings = field(default_factory=RuntimeSettings)
    share: Share = ALONE
    name: str = "training"


def train_lora(
    base: VlmSettings,
    rows: Sequence[ConversationRow],
    settings: LoraSettings,
    images: ImageProvider,
    out_dir: Path,
    job: TrainingJob | None = None,
    *,
    origin: Mapping[str, str] | None = None,
    start_from: str | None = None,
) -> TrainingReport:
    """Train a LoRA adapter on the answers of `rows` and write it to `out_dir`: safetensors, model card, losses.

    A frozen tower's features are computed once per distinct image and kept up to `job.feature_cache_gib`. Rows are
    taken in an order drawn from the seed and their ids, so the same rows in any order give the same adapter; on a CPU,
    with the same number of threads, to the last byte, also if the training was killed and resumed on its way. Rows
    without an answer or with a broken image are left out and counted. `start_from` is the directory of an adapter that
    is merged into the base model first, instead of that of `base`; the new adapter holds it. `origin` says in the model
    card where the rows come from. In a group of processes all call this; only the main one writes.

    Raises ModelError if no row is left, too many cannot be learned from, something that is trained gets no gradient or
    the loss stops being finite; OutOfMemoryError if one row does not fit; and what `load_vlm` and
    `quantize_language_model` raise.
    """
    job = job or TrainingJob()
    require_possible(settings, job.runtime)
    require_trackers(job.runtime)
    start = time.perf_counter()
    model = _loaded(base, settings, resolve_device(job.device), start_from)
    if job.confirm is not None and start_from is None:
        job.confirm(model.fingerprint)
    loading = time.perf_counter() - start
    below = start_from or base.adapter_place
    told = dict(origin or {}) | ({"trained on top of": ON_TOP} if below else {})
    report = train_loaded(model, base, rows, settings, images, out_dir, job, origin=told)
    if below and job.share.is_main:
        keep_base(out_dir, Path(below))
    return replace(report, seconds=report.seconds + loading)


def train_loaded(
    model: LlavaAdapter | FamilyAdapter,
    base: VlmSettings,
    rows: Sequence[ConversationRow],
    settings: LoraSettings,
    images: ImageProvider,
    out_dir: Path,
    job: TrainingJob,
    *,
    origin: Mapping[str, str] | None = None,
) -> TrainingReport:
    """`train_lora` of a model that is loaded already, which gets the LoRA layers in place; `base` names it."""
    start = time.perf_counter()
    with (
        _seeded(settings.seed, model.device),
        placed(model.device, job.share, job.runtime, job.name),
        tempfile.TemporaryDirectory(prefix="vsel-training-") as name,
    ):
        run = _Run(model, base, rows, settings, images, job, Path(job.share.agreed(name)))
        begun = time.perf_counter()
        history = run.train()
        training_seconds = time.perf_counter() - begun
    report = _report(run, history, rows, settings, (time.perf_counter() - start, training_seconds))
    if not job.share.is_main:
        return report
    card = model_card(
        base,
        settings,
        base_fingerprint=model.fingerprint,
        sample_ids=run.trained,
        n_skipped=report.n_skipped,
        first_epoch_loss=report.first_epoch_loss,
        last_epoch_loss=report.last_epoch_loss,
        origin=origin or {},
    )
    digest = save_adapter(run.peft_model, out_dir, card, history, settings, questions=run.questions, state=run.gathered)
    return replace(report, adapter_sha256=digest)


def _loaded(
    base: VlmSettings, settings: LoraSettings, device: str, start_from: str | None
) -> LlavaAdapter | FamilyAdapter:
    if settings.quantization == "none":
        return load_vlm(base, device, adapter_dir=start_from)
    model = load_vlm(base, "cpu", adapter_dir=start_from)
    quantize_language_model(model.model, model.parts.language, device)
    model.model.to(device)
    model.device = device
    return model


class _Run:
    """One training run: model with LoRA layers, optimiser, rows."""

    def __init__(
        self,
        model: LlavaAdapter | FamilyAdapter,
        base: VlmSettings,
        rows: Sequence[ConversationRow],
        settings: LoraSettings,
        images: ImageProvider,
        job: TrainingJob,
        directory: Path,
    ) -> None:
        self._settings, self._job, self._directory, self._model = settings, job, directory, model
        parts = model.parts
        # Other families' projectors are part of what computes their features.
        inside = isinstance(model, FamilyAdapter) and settings.projector_learning_rate > 0
        model.tower_gradients = settings.vision.rank > 0 or inside
        token = model.use_dedicated_token() if settings.self_questioning.dedicated_token else None
        self.peft_model = add_lora(model.model, parts, settings, base_name=base.model, token=token)
        if settings.gradient_checkpointing:
            model.model.activation_checkpointing_enable({"use_reentrant": False})
        keep = int(job.feature_cache_gib * 2**30)
        self.loader = StepLoader(model, rows, settings, images, job.share, keep_bytes=keep)
        self._require_images(self.loader.rows[row] for row in self.loader.plan.rows)
        self._groups = partial(parameter_groups, self.peft_model, parts, settings)
        trained = [p for group in self._groups() for p in group["params"]]
        self.trainable_parameters = sum(p.numel() for p in trained)
        self.resumed_at = 0
        self.gathered: Any = None
        self.trained: list[str] = []
        self.questions: list[tuple[int, str, int]] = []
        self._loss = RowsLoss(model, self.peft_model, joined=job.share.world > 1)
        self._batch_tokens = usable_batch_tokens(base.batch_tokens, model.device)

    def train(self) -> History:
        """Run all steps, or those behind the last state that was kept."""
        settings, job = self._settings, self._job
        steps = self.loader.steps
        arguments = training_arguments(
            settings,
            job.runtime,
            self._directory,
            self._loss_device(),
            job.name,
            job.share,
            layer=type(self._model.decoder.layers[0]).__name__,
        )
        states = job.states and job.states.of_kind(state_kind(job.runtime, job.share))
        trainer = RowsTrainer(
            self._loss,
            arguments,
            len(steps),
            self.loader.load,
            groups=self._groups,
            factor=lambda step: learning_rate_factor(
                step, steps=len(steps), warmup_fraction=settings.warmup_fraction, form=settings.schedule
            ),
            batch_tokens=self._batch_tokens,
            limit=self.loader.limit,
            callbacks=[Observer(states, job.runtime.checkpoint_minutes, job.share, job.on_step)],
        )
        state = self._restored(states)
        if state is not None:
            self.resumed_at = int(state.name.rpartition("-")[2])
            trainer.recall(state)
        sharded = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
        with kept_whole(self._model, zero_stage=zero_stage(trainer)) if sharded else nullcontext():
            try:
                trainer.train(resume_from_checkpoint=None if state is None else str(state))
            finally:
                self.loader.close()
            if sharded:
                self.gathered = _of_peft_model(trainer.accelerator.get_state_dict(trainer.model_wrapped) or {})
        self.peft_model.eval()
        if not trainer.history.loss:
            raise ModelError("training: no row has a readable image")
        failed = trainer.failed_of_all()
        planned = [(row, epoch) for row, epoch in self.loader.planned() if row.sample_id not in failed]
        self._require_images(row for row, _ in planned)
        self.trained = sorted({row.sample_id for row, _ in planned})
        self.questions = [
            (epoch, row.sample_id, turn) for row, epoch in planned for turn in self.loader.asked(row, epoch)
        ]
        return trainer.history

    def _require_images(self, rows: Iterable[ConversationRow]) -> None:
        if self._settings.projector_only and not any(row.images for row in rows):
            raise ModelError(
                "training: lora.projector_only trains nothing without images, and none of the rows has one that is "
                "readable; select rows with images, or switch it off"
            )

    def _restored(self, states: TrainingStates | None) -> Path | None:
        if states is None:
            return None
        found = states.restore(self._directory) if self._job.share.is_main else None
        return self._job.share.agreed(found)

    def _loss_device(self) -> str:
        return str(next(self.peft_model.parameters()).device)


def _of_peft_model(state: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix("peft_model."): value for name, value in state.items()}


def _report(
    run: _Run, history: History, rows: Sequence[ConversationRow], settings: LoraSettings, seconds: tuple[float, float]
) -> TrainingReport:
    first, last = epoch_means(history.loss, settings.epochs)
    planned = len(run.loader.plan.rows)
    # The first steps fill the caches.
    quick = slice(len(history.seconds) // 4, None)
    spent = max(fmean(history.seconds[quick]), 1e-9)
    earlier = sum(history.seconds[: run.resumed_at])
    return TrainingReport(
        steps=len(history.loss),
        rows=len(run.trained),
        n_skipped=len(rows) - len(run.loader.rows) + planned - len(run.trained),
        seconds=seconds[0] + earlier,
        training_seconds=seconds[1] + earlier,
        first_epoch_loss=first,
        last_epoch_loss=last,
        trainable_parameters=run.trainable_parameters,
        adapter_sha256="",
        rows_per_s=fmean(history.rows[quick]) / spent,
        tokens_per_s=fmean(history.tokens[quick]) / spent,
        resumed_at=run.resumed_at,
        n_questions=len(run.questions),
        prototypes=history.prototypes[-1] if history.prototypes else {},
        throughput=tuple(throughput(history)),
    )


@contextmanager
def _seeded(seed: int, device: str) -> Iterator[None]:
    """The random states of torch, numpy and Python set from `seed` inside (the Trainer sets them anyhow), and restored
    afterwards; so is what transformers writes to its log."""
    devices = [torch.device(device)] if device.startswith("cuda") else []
    python, numpy = random.getstate(), np.random.get_state()
    verbosity = transformers.logging.get_verbosity()
    try:
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        transformers.logging.set_verbosity(verbosity)
