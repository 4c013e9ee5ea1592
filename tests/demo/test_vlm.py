import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from vsel_platform.config import VlmSettings
from vsel_platform.demo.dataset import PlannedRows
from vsel_platform.demo.vlm import BASE_DIR, PUBLISHED_PREFIX, TEMPLATE, base_weights_hash, load_base
from vsel_platform.errors import ModelError
from vsel_platform.models.llava import LlavaAdapter, load_llava
from vsel_platform.models.safety import weight_files

SETTINGS = VlmSettings(model="embedded:demo", template=TEMPLATE, dtype="float32", max_tokens=256)


@pytest.fixture(scope="module")
def adapter() -> LlavaAdapter:
    return load_llava(SETTINGS, "cpu")


def test_the_shipped_checkpoint_is_small_and_safetensors_only() -> None:
    files = [file for file in BASE_DIR.iterdir() if file.is_file()]
    assert {file.name for file in files} == {
        "README.md",
        "card.json",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    }
    assert [file.name for file in weight_files(BASE_DIR)] == ["model.safetensors"]
    assert sum(file.stat().st_size for file in files) < 6_000_000


def test_the_shipped_file_leaves_the_published_tower_out() -> None:
    weights = load_file(BASE_DIR / "model.safetensors")
    assert not [name for name in weights if name.startswith(PUBLISHED_PREFIX)]
    assert {"model.vision_tower.token_mean", "model.vision_tower.token_std"} <= set(weights)
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())


def test_loading_gives_the_same_weights_each_time() -> None:
    first, _ = load_base()
    second, _ = load_base()
    states = first.state_dict(), second.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not first.training
    assert {tensor.dtype for tensor in states[0].values()} == {torch.float32}
    assert first.lm_head.weight is first.get_input_embeddings().weight


def test_every_answer_of_the_demo_can_be_written(adapter: LlavaAdapter, plan: PlannedRows) -> None:
    _, processor = load_base()
    tokenizer = processor.tokenizer
    answers = {answer for row in [*plan.pool, *plan.evaluation, *plan.later] for _, answer in row.turns}
    for answer in sorted(answers):
        assert tokenizer.decode(tokenizer.encode(answer, add_special_tokens=False)) == answer


def test_images_are_prepared_as_the_encoder_does(adapter: LlavaAdapter, plan: PlannedRows) -> None:
    from vsel_platform.demo.efficientnet import to_pixels

    picture = next(row.picture for row in plan.pool if row.picture).draw()
    np.testing.assert_allclose(adapter.preprocess(picture), to_pixels(picture), atol=1e-5)


def test_rows_render_with_sixteen_image_tokens(adapter: LlavaAdapter) -> None:
    turns = [("user", "<image>\nName it."), ("assistant", "pizza")]
    full, bare = adapter.render(turns, 1), adapter.render(turns, 1, "no_question")
    _, processor = load_base()
    image = processor.tokenizer.convert_tokens_to_ids("<image>")
    assert (full.input_ids == image).sum() == (bare.input_ids == image).sum() == 16
    assert full.n_targets == bare.n_targets > 1
    assert len(full) > len(bare)


def test_the_base_has_learned_what_its_drawings_are_called(adapter: LlavaAdapter, plan: PlannedRows) -> None:
    """On drawings of its training it prefers the right name to another one."""
    from vsel_platform.demo.alignment import alignment_rows
    from vsel_platform.demo.train_base import model_row
    from vsel_platform.evaluation.exact_match import evaluate

    rows = [row for row in alignment_rows(plan.splits.alignment[::120], 0) if len(row.turns) == 2]
    pictures = {row.picture.path: row.picture for row in rows if row.picture}
    shifted = [type(row)(row.task, row.picture, other.turns) for row, other in zip(rows, rows[3:], strict=False)]
    losses = []
    for chosen in (rows, shifted):
        ready = [model_row(row, number) for number, row in enumerate(chosen)]
        losses.append(evaluate(adapter, ready, lambda path: pictures[path].draw())[0].loss_mean)
    assert losses[0] + 1 < losses[1]


def test_the_weights_hash_follows_weights_and_tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = base_weights_hash()
    assert base_weights_hash() == before
    changed = Path(shutil.copytree(BASE_DIR, tmp_path / "base"))
    monkeypatch.setattr("vsel_platform.demo.vlm.BASE_DIR", changed)
    assert base_weights_hash() == before
    (changed / "tokenizer.json").write_text("{}")
    assert base_weights_hash() != before


def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    broken = Path(shutil.copytree(BASE_DIR, tmp_path / "base"))
    weights = load_file(broken / "model.safetensors")
    del weights["model.vision_tower.token_mean"]
    save_file({**weights, "surplus": torch.zeros(1)}, broken / "model.safetensors")
    with pytest.raises(ModelError, match=r"token_mean.*surplus.*install the package again"):
        load_base(directory=broken)
