import json
from pathlib import Path

import pytest
import torch

from vsel_platform.demo.alignment import alignment_rows
from vsel_platform.demo.dataset import PlannedRows
from vsel_platform.demo.tokens import train_tokenizer
from vsel_platform.demo.train_base import (
    BaseSettings,
    make_adapter,
    measure,
    model_row,
    new_model,
    save_base,
    train,
)
from vsel_platform.demo.vlm import BASE_DIR, load_base, make_processor
from vsel_platform.models.llava import LlavaAdapter

SETTINGS = BaseSettings(vocabulary=600, hidden=32, intermediate=64, layers=2, heads=2, epochs=6, warmup_steps=5)


@pytest.fixture(scope="module")
def trained(plan: PlannedRows) -> tuple[LlavaAdapter, dict]:
    rows = alignment_rows(plan.splits.alignment[:400:40], 0)
    processor = make_processor(train_tokenizer([text for row in rows for turn in row.turns for text in turn], 600))
    adapter = make_adapter(new_model(SETTINGS, processor), processor)
    adapter.processor = processor
    return adapter, train(adapter, rows, SETTINGS)


def test_training_lowers_the_loss_and_leaves_the_tower_alone(trained: tuple[LlavaAdapter, dict]) -> None:
    adapter, report = trained
    assert report["rows"] == 60
    assert report["pictures"] == 30
    assert report["mean_loss_of_last_200_steps"] < 6
    tower = load_base()[0].model.vision_tower.backbone.state_dict()
    found = adapter.model.model.vision_tower.backbone.state_dict()
    assert all(torch.equal(tower[name], found[name]) for name in tower)


def test_tower_channels_have_mean_zero_and_deviation_one_on_the_training_pictures(
    trained: tuple[LlavaAdapter, dict], plan: PlannedRows
) -> None:
    adapter, _ = trained
    rows = alignment_rows(plan.splits.alignment[:400:40], 0)
    pictures = {row.picture.path: row.picture for row in rows if row.picture}.values()
    import numpy as np

    tokens = adapter.tower_features(np.stack([adapter.preprocess(picture.draw()) for picture in pictures]))
    torch.testing.assert_close(tokens.mean(dim=(0, 1)), torch.zeros(768), atol=1e-3, rtol=0)
    torch.testing.assert_close(tokens.std(dim=(0, 1)), torch.ones(768), atol=1e-2, rtol=0)


def test_what_is_saved_is_loaded_again(trained: tuple[LlavaAdapter, dict], plan: PlannedRows, tmp_path: Path) -> None:
    adapter, _ = trained
    save_base(adapter.model, adapter.processor, tmp_path)
    model, processor = load_base(directory=tmp_path)
    for name, tensor in adapter.model.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], tensor, atol=1e-2, rtol=2e-3)
    scores = measure(model, processor, [row for row in plan.evaluation if row.task in ("name", "text")][:8])
    assert scores.keys() <= {"name", "text"}
    assert all(0 <= score["exact_match"] <= 1 for score in scores.values())


def test_a_row_without_a_question_is_the_image_alone(plan: PlannedRows) -> None:
    bare = next(row for row in alignment_rows(plan.splits.alignment[:5], 0) if row.turns[0][0] == "")
    assert model_row(bare, 0).turns[0] == ("user", "<image>")
    text = next(row for row in plan.pool if row.task == "text")
    assert model_row(text, 0).images == ()
    assert "<image>" not in model_row(text, 0).turns[0][1]


def test_the_card_of_the_shipped_base_is_of_these_settings() -> None:
    card = json.loads((BASE_DIR / "card.json").read_text("utf-8"))
    assert card["settings"] == json.loads(json.dumps(BaseSettings().__dict__))
    assert set(card["held_out"]) >= {"name", "caption", "count"}
    assert f"{card['training']['rows']:,} conversations" in (BASE_DIR / "README.md").read_text("utf-8")
