"""Arguments of transformers' Trainer: where a training runs and whom it tells."""

from pathlib import Path
from typing import Any

import transformers

from vsel_platform.config_training import LoraSettings, RuntimeSettings
from vsel_platform.errors import ConfigError

LOG_EVERY = 10


def training_arguments(
    settings: LoraSettings, runtime: RuntimeSettings, directory: Path, device: str, name: str
) -> transformers.TrainingArguments:
    """Arguments for a run in `directory`. Raises ConfigError if a configuration file or a tracker is missing."""
    options: dict[str, Any] = {}
    for kind in ("deepspeed", "fsdp"):
        file = getattr(runtime, kind)
        if file is not None and not Path(file).is_file():
            raise ConfigError(f"training.runtime.{kind}: no file {file}")
    if runtime.deepspeed:
        options["deepspeed"] = runtime.deepspeed
    if runtime.fsdp:
        options |= {"fsdp": "full_shard auto_wrap", "fsdp_config": runtime.fsdp}
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
            logging_nan_inf_filter=False,
            report_to=list(runtime.report_to) or "none",
            disable_tqdm=True,
            log_level="error",
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            use_cpu=device.startswith("cpu"),
            **options,
        )
    except (ImportError, ValueError) as error:
        raise ConfigError(f"training.runtime: {error}") from error
    # One process, one device: more that are visible belong to others.
    arguments._n_gpu = min(1, arguments.n_gpu)
    return arguments
