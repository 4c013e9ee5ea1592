"""A Trainer whose states hold what is trained, what was measured and which rows failed, of all processes."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import orjson
import torch
import transformers
from accelerate.utils import gather_object, save_fsdp_optimizer
from safetensors.torch import load_file, save_file
from transformers.trainer import SCHEDULER_NAME

from vsel_platform.models.images import ContentFailure
from vsel_platform.training.history import History

TRAINABLE_FILE = "trainable.safetensors"
HISTORY_FILE = "history.json"
T = TypeVar("T")


class ResumableTrainer(transformers.Trainer):  # type: ignore[misc]  # transformers has no types
    """What `RowsTrainer` keeps: `history`, of all processes, and `failed`, by id this process's rows that cannot be
    learned from after all. The first process takes over what the others had found when a state was saved."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.history = History()
        self.failed: dict[str, ContentFailure] = {}
        self._logged = 0

    def failed_of_all(self) -> dict[str, ContentFailure]:
        """The failed rows of all processes, by id, which the first process takes over, so that a row counts once; all
        have to call it together."""
        found = {failure.content_id: failure for failure in self._everyone(list(self.failed.values()))}
        self._take_over(found)
        return found

    def _take_over(self, failed: dict[str, ContentFailure]) -> None:
        self.failed = dict(failed) if self.accelerator.is_main_process else {}

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Tell the trackers; what transformers measures itself are values of this process."""
        if "loss" in logs and len(self.history.loss) > self._logged:  # else it is the summary at the end
            logs |= self.history.means(self._logged)
            self._logged = len(self.history.loss)
        super().log(logs, start_time)

    def recall(self, directory: Path) -> None:
        """Take up the history that lies with a state."""
        stored, failed = orjson.loads((directory / HISTORY_FILE).read_bytes())
        self._take_over({failure["content_id"]: ContentFailure(**failure) for failure in failed})
        self._logged = len(stored["loss"])
        for name, values in stored.items():
            setattr(self.history, name, [math.nan if value is None else value for value in values])

    def _together(self, values: Sequence[float]) -> list[float]:
        """Sums over all processes."""
        if self.accelerator.num_processes == 1:
            return list(values)
        mine = torch.tensor([list(values)], dtype=torch.float64, device=self.args.device)
        return [float(value) for value in self.accelerator.gather(mine).sum(dim=0)]

    def _everyone(self, items: list[T]) -> list[T]:
        """The items of all processes."""
        return items if self.accelerator.num_processes == 1 else list(gather_object(items))

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Of the model only what is trained, the rest is the base model's; and the history.

        DeepSpeed writes a state of its own besides, and needs it, in which the base model is contained.
        """
        failed = self.failed_of_all()
        if not self.args.should_save:
            return
        state = self.model.state_dict() if state_dict is None else state_dict
        trained = {name for name, p in self.model.named_parameters() if p.requires_grad}
        directory = Path(output_dir or str(self.args.output_dir))
        directory.mkdir(parents=True, exist_ok=True)
        save_file({n: t.contiguous() for n, t in state.items() if n in trained}, directory / TRAINABLE_FILE)
        kept = [asdict(self.history), [asdict(failed[name]) for name in sorted(failed)]]
        (directory / HISTORY_FILE).write_bytes(orjson.dumps(kept))

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """Under FSDP without the whole model that transformers would write besides: nothing reads it."""
        if not self.is_fsdp_enabled:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        plugin = self.accelerator.state.fsdp_plugin
        save_fsdp_optimizer(plugin, self.accelerator, self.optimizer, self.model, output_dir)
        if self.args.should_save:
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER_NAME)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        directory = Path(resume_from_checkpoint)
        state = load_file(directory / TRAINABLE_FILE)
        if self.is_fsdp_enabled:
            from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

            set_model_state_dict(model, state, options=StateDictOptions(full_state_dict=True, strict=False))
        else:
            self.model.load_state_dict(state, strict=False)
