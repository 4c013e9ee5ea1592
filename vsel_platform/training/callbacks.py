"""What happens beside the steps of a training: progress, and states that a killed one resumes from."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import transformers

from vsel_platform.ranks import Share
from vsel_platform.training.resume import TrainingStates


class Observer(transformers.TrainerCallback):  # type: ignore[misc]  # transformers has no types
    """Tells about every step, and has a state saved when the last one is `minutes` old (0: after every step)."""

    def __init__(
        self,
        states: TrainingStates | None,
        minutes: float,
        share: Share,
        on_step: Callable[[int, int], None] | None,
    ) -> None:
        self._states = states
        self._seconds = 60 * minutes
        self._share = share
        self._on_step = on_step
        self._saved = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """After an optimiser step."""
        if self._on_step is not None and self._share.is_main:
            self._on_step(state.global_step, state.max_steps)
        if state.global_step == state.max_steps:
            control.should_log = bool(args.report_to)
        if self._states is not None and state.global_step < state.max_steps:
            # Clocks differ; all processes save or none.
            control.should_save = self._share.agreed(time.monotonic() - self._saved >= self._seconds)
        return control

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """After a state was written to the local directory."""
        local = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        self._share.together(list)  # every process has written its own part
        if self._states is not None and self._share.is_main:
            self._states.save(state.global_step, local)
            shutil.rmtree(local)
        self._share.together(list)
        self._saved = time.monotonic()
