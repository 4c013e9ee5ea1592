import re
from pathlib import Path

from vsel_platform.config import load_project

EXAMPLE = Path(__file__).parents[2] / "examples" / "llava_665k.yaml"


def test_the_real_world_example_is_presel_as_published() -> None:
    project = load_project(EXAMPLE)
    assert project.image_encoder.model == "facebook/dinov2-base"
    assert project.vlm.model == "llava-hf/llava-1.5-7b-hf"
    assert project.vlm.template == "vicuna_v1"
    assert project.recipe("presel_15").budget.percent == 15
    assert project.reference.fraction == 0.05
    lora = project.reference.lora
    assert (lora.rank, lora.alpha, lora.learning_rate, lora.batch_rows) == (128, 256, 2e-4, 64)


def test_the_rule_names_the_source_of_an_image() -> None:
    task = load_project(EXAMPLE).dataset("llava_665k").task
    paths = {
        "coco/train2017/000000033471.jpg": "coco",
        "ocr_vqa/images/140031996X.jpg": "ocr_vqa",
        "vg/VG_100K/2331508.jpg": "vg",
    }
    for path, name in paths.items():
        match = re.search(task.rule or "", path)
        assert match
        assert match[1] == name
