"""A model that two processes share out by FSDP learns what one process does."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fsdp_program import ROWS, SETTINGS
from safetensors.torch import load_file
from tiny_llava import picture, save_tiny

from vsel_platform.config import VlmSettings
from vsel_platform.training.lora import TrainingJob, train_lora

ROOT = Path(__file__).parents[2]


def run(directory, kill_after=0):
    """Both processes to their end; how the first ended."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")])
    own = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "PYTHONPATH": path}
    own |= {"OMP_NUM_THREADS": "1", "ACCELERATE_TORCH_DEVICE": "cpu"}
    command = [sys.executable, str(ROOT / "tests" / "support" / "fsdp_program.py"), str(directory), str(kill_after)]
    processes = [
        subprocess.Popen(
            command, env={**os.environ, **own, "RANK": str(rank), "LOCAL_RANK": str(rank)}, stderr=subprocess.DEVNULL
        )
        for rank in range(2)
    ]
    try:
        return processes[0].wait(120)
    finally:
        if kill_after:
            processes[1].kill()
        processes[1].wait(60)


def losses(directory):
    return json.loads((directory / "losses.json").read_text())["loss"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    made = tmp_path_factory.mktemp("fsdp")
    save_tiny(made / "base")
    return made


def test_a_killed_group_resumes_to_what_one_process_learns(directory):
    base = VlmSettings(model=str(directory / "base"), dtype="bfloat16")
    train_lora(base, ROWS, SETTINGS, picture, directory / "alone", TrainingJob(device="cpu"))
    assert run(directory, kill_after=3) == 9
    assert not (directory / "shared").exists()
    stored = [file.relative_to(directory) for file in (directory / "store").rglob("*") if file.is_file()]
    assert {"trainable.safetensors", "optimizer.bin"} <= {file.name for file in stored}
    assert not [file for file in stored if "pytorch_model" in str(file)]
    assert run(directory) == 0
    assert [(directory / f"resumed-{rank}").read_text() for rank in range(2)] == ["2", "2"]
    assert losses(directory / "shared") == pytest.approx(losses(directory / "alone"), rel=1e-3)
    alone, shared = (load_file(directory / name / "adapter_model.safetensors") for name in ("alone", "shared"))
    assert shared.keys() == alone.keys()
    for name, value in alone.items():
        assert shared[name].shape == value.shape
        torch.testing.assert_close(shared[name], value, rtol=0, atol=5e-3, msg=name)
