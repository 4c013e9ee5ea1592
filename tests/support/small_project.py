"""A small project for tests of the whole spine: drawn pictures, a tiny random encoder and LLaVA."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from vsel_platform.config import Project, load_project

TASKS = ("name", "colour", "count")


def draw(path: Path, seed: int) -> None:
    """A 32 x 32 picture: a coloured disc on a coloured ground."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:32, :32]
    pixels = np.empty((32, 32, 3), np.uint8)
    pixels[:] = rng.integers(0, 255, 3)
    pixels[(x - rng.integers(8, 24)) ** 2 + (y - rng.integers(8, 24)) ** 2 < rng.integers(20, 90)] = rng.integers(
        0, 255, 3
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def row(index: int, *, task: str | None = None) -> dict[str, Any]:
    """A LLaVA row about picture `index`, of two turns."""
    task = task or TASKS[index % len(TASKS)]
    return {
        "id": f"row-{index}",
        "image": f"{task}/{index}.png",
        "task": task,
        "conversations": [
            {"from": "human", "value": f"<image>\nWhat is the {task}?"},
            {"from": "gpt", "value": f"It is {task} {index % 7}."},
        ],
    }


def text_row(index: int) -> dict[str, Any]:
    """A text-only row."""
    return {
        "id": f"text-{index}",
        "task": "text",
        "conversations": [
            {"from": "human", "value": f"Say the number {index}."},
            {"from": "gpt", "value": f"{index}"},
        ],
    }


def bad_rows() -> list[Any]:
    """Rows that must be quarantined."""
    return [{"id": "bad-1", "conversations": []}, {**row(0), "id": "bad-2", "image": "../outside.png"}, 17]


def write_models(directory: Path) -> tuple[Path, Path]:
    """A tiny random DINOv2 with its image processor, and a tiny random LLaVA."""
    import torch
    from tiny_llava import save_tiny
    from transformers import Dinov2Config, Dinov2Model
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    encoder, vlm = directory / "encoder", directory / "vlm"
    if not encoder.exists():
        torch.manual_seed(0)
        config = Dinov2Config(hidden_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14)
        Dinov2Model(config).save_pretrained(encoder)
        CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}).save_pretrained(
            encoder
        )
        save_tiny(vlm)
    return encoder, vlm


def project_values(directory: Path, models: Path, **changes: Any) -> dict[str, Any]:
    """The project file's values; `changes` replace top-level keys."""
    encoder, vlm = write_models(models)
    lora = {"rank": 4, "alpha": 8, "learning_rate": 1e-3, "projector_learning_rate": 0, "batch_rows": 8}
    values: dict[str, Any] = {
        "name": "small",
        "store": str(directory / "store"),
        "datasets": {
            "shapes": {
                "source": str(directory / "rows.json"),
                "image_root": str(directory / "images"),
                "task": {"column": "task"},
                "shard_rows": 40,
                "max_quarantine_rate": 0.2,
            }
        },
        "image_encoder": {"name": "huggingface", "model": str(encoder)},
        "vlm": {"model": str(vlm), "dtype": "float32", "max_tokens": 256},
        "reference": {"fraction": 0.2, "lora": lora},
        "recipes": {
            "presel": {"dataset": "shapes", "budget": {"rows": 30}},
            "random": {"dataset": "shapes", "method": "random", "budget": {"percent": 25}},
        },
        "training": {"lora": lora},
        "benchmarks": {
            "held_out": {
                "format": "rows",
                "questions": str(directory / "held_out.json"),
                "image_root": str(directory / "images"),
                "max_new_tokens": 6,
            }
        },
        # The tiny encoder knows no shapes: all of their pictures look alike to it.
        "evaluation": {"resamples": 200, "leakage": {"near_duplicate": 1.0}},
        "compute": {"backend": "in_process", "device": "cpu"},
    }
    return values | changes


def small_rows(n_rows: int = 90, n_text: int = 6) -> list[Any]:
    """Rows with pictures, text-only rows, and broken ones."""
    return [*(row(i) for i in range(n_rows)), *(text_row(i) for i in range(n_text)), *bad_rows()]


def write_rows(directory: Path, rows: list[Any], name: str = "rows.json") -> Path:
    """Write rows as a JSON array, drawing the pictures that they show."""
    for value in rows:
        image = value.get("image") if isinstance(value, dict) else None
        if image and ".." not in image and not (directory / "images" / image).exists():
            draw(directory / "images" / image, seed=int(Path(image).stem))
    path = directory / name
    path.write_text(json.dumps(rows, indent=1))
    return path


def write_small_project(directory: Path, models: Path, **changes: Any) -> Path:
    """The whole project in `directory`; tiny models are shared in `models`. Returns the project file."""
    directory.mkdir(parents=True, exist_ok=True)
    write_rows(directory, small_rows())
    write_rows(directory, [row(i) for i in range(200, 212)], "held_out.json")
    file = directory / "vsel.yaml"
    file.write_text(yaml.safe_dump(project_values(directory, models, **changes)))
    return file


def small_project(directory: Path, models: Path, **changes: Any) -> Project:
    """Write the project and load it."""
    return load_project(write_small_project(directory, models, **changes))
