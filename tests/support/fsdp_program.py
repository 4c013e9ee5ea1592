"""One process of a training whose model is shared out by FSDP, on CPUs: `python fsdp_program.py DIRECTORY KILL_AFTER`.

accelerate shares models out between GPUs alone; here it takes this process's CPU for one.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import DistributedType
from tiny_llava import conversation, picture

from vsel_platform.config import VlmSettings
from vsel_platform.config_training import LoraSettings, RuntimeSettings
from vsel_platform.ranks import Share
from vsel_platform.signals.losses import LossRow
from vsel_platform.storage.files import FileStore
from vsel_platform.training import runtime
from vsel_platform.training.lora import TrainingJob, train_lora
from vsel_platform.training.resume import TrainingStates

SETTINGS = LoraSettings(
    rank=4, alpha=8, dropout=0.0, epochs=2.0, batch_rows=4, learning_rate=1e-2, projector_learning_rate=1e-3
)
ROWS = [
    LossRow(f"r{i:02}", conversation("<image>\nWhat?", "red", "Sure?", "Yes"), [f"i{i % 2}"])
    if i % 3
    else LossRow(f"r{i:02}", conversation("hi", "there"))
    for i in range(12)
]


def main(directory: Path, kill_after: int) -> None:
    """Train as this process of two; end without a word after so many steps (0: never)."""
    config = json.loads((Path(__file__).parents[2] / "examples" / "fsdp.json").read_text())
    config["transformer_layer_cls_to_wrap"] = ["LlamaDecoderLayer"]
    runtime._sharding = lambda *_: {"fsdp": True, "fsdp_config": config}

    def prepared(state: Any, cpu: bool, sagemaker: bool, backend: Any) -> tuple[str, DistributedType]:
        return "gloo", DistributedType.MULTI_GPU

    PartialState._prepare_backend = prepared
    state = PartialState()
    base = VlmSettings(model=str(directory / "base"), dtype="bfloat16")
    job = TrainingJob(
        device="cpu",
        share=Share(int(os.environ["RANK"]), 2),
        states=TrainingStates(FileStore(str(directory / "store")), "training"),
        runtime=RuntimeSettings(checkpoint_minutes=0),
        on_step=lambda step, total: os._exit(9) if step == kill_after else None,
    )
    report = train_lora(base, ROWS, SETTINGS, picture, directory / "shared", job)
    (directory / f"resumed-{job.share.rank}").write_text(str(report.resumed_at))
    state.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
