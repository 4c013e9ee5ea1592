"""Arguments of transformers' Trainer: where a training runs and whom it tells."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
import transformers

from vsel_platform.config_training import LoraSettings, RuntimeSettings
from vsel_platform.errors import ConfigError
from vsel_platform.identity import fingerprint
from vsel_platform.ranks import Share, environment_of, forget_accelerate
from vsel_platform.training.sharding import configuration_of

LOG_EVERY = 10
WHOLE_STATES = "FULL_STATE_DICT"
KINDS: tuple[Literal["deepspeed", "fsdp"], ...] = ("deepspeed", "fsdp")


@contextmanager
def placed(device: str, share: Share, runtime: RuntimeSettings, name: str) -> Iterator[None]:
    """Inside, a Trainer of a process alone uses `device`, be it not the first one, and trackers write below
    `runtime.log_dir`; nothing of it is left behind.

    The device of a process in a group is given by its number. TensorBoard's files lie in a folder `name`. Where W&B
    and MLflow write is left to WANDB_DIR, WANDB_PROJECT and MLFLOW_TRACKING_URI, if they are set.
    """
    alone = share.world == 1
    changes = {"ACCELERATE_TORCH_DEVICE": device} if alone else {}
    if runtime.report_to:
        logs = Path(runtime.log_dir)
        if share.is_main:
            logs.mkdir(parents=True, exist_ok=True)
        changes["TENSORBOARD_LOGGING_DIR"] = str(logs / name)
        own = {
            "WANDB_DIR": str(logs),
            "WANDB_PROJECT": "vsel",
            "MLFLOW_TRACKING_URI": f"sqlite:///{logs.resolve()}/mlflow.db",
        }
        changes |= {variable: os.environ.get(variable, value) for variable, value in own.items()}
    with environment_of(changes):
        try:
            yield
        finally:
            if "wandb" in runtime.report_to and "wandb" in sys.modules:
                sys.modules["wandb"].finish()  # the next training is another run
            if alone:
                forget_accelerate()


def require_trackers(runtime: RuntimeSettings) -> None:
    """Raises ConfigError for a tracker that is not installed."""
    for tracker in runtime.report_to:
        if find_spec(tracker) is None:
            raise ConfigError(f"training.runtime.report_to: {tracker} is not installed; pip install {tracker}")


def training_arguments(
    settings: LoraSettings,
    runtime: RuntimeSettings,
    directory: Path,
    device: str,
    name: str,
    share: Share,
    *,
    layer: str,
) -> transformers.TrainingArguments:
    """Arguments for a run in `directory`, made inside `placed`. `layer`: class of the language model's layers, which
    FSDP shares out one by one. Raises ConfigError if a configuration file or DeepSpeed is missing, or if what shares a
    model out has no devices to do so."""
    options = _sharding(runtime, device, share, layer)
    try:
        arguments = transformers.TrainingArguments(
            output_dir=str(directory),
            run_name=name,
            per_device_train_batch_size=1,  # of whole steps: RowsTrainer cuts them
            num_train_epochs=1,
            max_grad_norm=settings.max_grad_norm,
            seed=settings.seed,
            save_strategy="no",  # training.callbacks.Observer decides
            logging_strategy="steps" if runtime.report_to else "no",
            logging_steps=LOG_EVERY,
            logging_first_step=bool(runtime.report_to),
            logging_nan_inf_filter=False,
            report_to=list(runtime.report_to) or "none",
            disable_tqdm=True,
            log_level="error",
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            ddp_find_unused_parameters=False,  # RowsLoss uses all
            use_cpu=device.startswith("cpu"),
            **options,
        )
    except (ImportError, ValueError) as error:
        raise ConfigError(f"training.runtime: {error}") from error
    if share.world == 1 and device.startswith("cuda"):
        # By default it is the first one, and all that are visible work; others may belong to somebody else.
        torch.cuda.set_device(device)
        arguments.__dict__["_setup_devices"] = torch.device(device)
        arguments._n_gpu = 1
    return arguments


def state_kind(runtime: RuntimeSettings, share: Share) -> str:
    """How a model is shared, as far as a training's states depend on it (`resume.TrainingStates`): with the number of
    processes and the configuration, where each process has a part of it. Reads the configuration."""
    for kind in KINDS:
        if getattr(runtime, kind):
            return f"{kind}-{share.world}-{fingerprint(configuration=configuration_of(runtime, kind))}"
    return "whole-model"


def _sharding(runtime: RuntimeSettings, device: str, share: Share, layer: str) -> dict[str, Any]:
    for kind in KINDS:
        if getattr(runtime, kind) is None:
            continue
        own = configuration_of(runtime, kind)
        if share.world == 1 or device.startswith("cpu"):
            raise ConfigError(
                f"training.runtime.{kind}: shares a model between CUDA devices; set compute.processes to their number, "
                f"or take the option out (now: {share.world} process(es) on {device})"
            )
    if runtime.deepspeed:
        if find_spec("deepspeed") is None:
            raise ConfigError("training.runtime.deepspeed: DeepSpeed is not installed; pip install deepspeed")
        return {"deepspeed": runtime.deepspeed}
    if not runtime.fsdp:
        return {}
    own = {"transformer_layer_cls_to_wrap": [layer], "state_dict_type": WHOLE_STATES} | own
    if own["state_dict_type"] != WHOLE_STATES:
        raise ConfigError(
            f"training.runtime.fsdp: state_dict_type {own['state_dict_type']!r}: a killed training can only be resumed "
            f"from {WHOLE_STATES}; leave it out"
        )
    return {"fsdp": True, "fsdp_config": own}
