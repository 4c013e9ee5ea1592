"""Schedules, groups, targets and batches of the released code; its quirks stay visible."""

import pytest
from named_modules import module_of, module_with_linears

from vsel_platform.training import released

PARAMETERS = [
    {"name": name, "shape": shape, "requires_grad": trained}
    for name, shape, trained in (
        ("q.weight", [2, 2], True), ("q.bias", [2], True), ("norm.weight", [2], True),
        ("mm_projector.c.weight", [2, 2], True), ("vision_tower.fc.weight", [2, 2], True),
        ("frozen.weight", [2, 2], False),
    )
]  # fmt: skip


def groups(**changes):
    options = {"learning_rate": 1.0, "weight_decay": 0.1, "mm_projector_lr": None}
    return released.optimizer_groups(module_of(PARAMETERS), **(options | changes))


def summary(found):
    return [(group["lr"], group["weight_decay"], group["params"]) for group in found]


def test_norms_and_biases_do_not_decay_and_frozen_weights_are_in_no_group():
    decayed = ["q.weight", "mm_projector.c.weight", "vision_tower.fc.weight"]
    assert summary(groups()) == [(1.0, 0.1, decayed), (1.0, 0.0, ["q.bias", "norm.weight"])]


def test_a_projector_rate_of_zero_is_a_rate_in_llava_and_unset_in_sq_llava():
    assert [group["lr"] for group in groups(mm_projector_lr=0.0)] == [1.0, 1.0, 0.0, 0.0]
    assert len(groups(mm_projector_lr=0.0, sq_llava=True)) == 2


def test_the_towers_rate_counts_only_beside_the_projectors_and_only_in_sq_llava():
    both = {"mm_projector_lr": 0.5, "vision_tower_lr": 0.2}
    assert [group["lr"] for group in groups(**both, sq_llava=True)] == [1.0, 0.2, 1.0, 0.2, 0.5, 0.5]
    assert len(groups(**both)) == 4
    assert len(groups(vision_tower_lr=0.2, sq_llava=True)) == 2


def test_the_cosine_begins_and_ends_at_zero():
    settings = {"total_steps": 10, "warmup_steps": 2, "base_lr": 1.0}
    rates = [released.cosine_rate(step, **settings) for step in range(11)]
    assert rates[:3] == [0.0, 0.5, 1.0]
    assert rates[6] == pytest.approx(0.5)
    assert rates[10] == pytest.approx(0.0)
    assert released.warmup_steps(34, 0.03) == 2


def test_a_warm_up_longer_than_an_epoch_starts_again_in_minigpt():
    settings = {"max_epoch": 4, "iters_per_epoch": 10, "init_lr": 1.0, "min_lr": 0.0}
    long = settings | {"warmup_steps": 15, "warmup_start_lr": 0.1}
    assert released.minigpt_rate(1, 0, **long) == released.minigpt_rate(0, 0, **long) == 0.1
    assert released.minigpt_rate(1, 5, **long) < 1.0
    none = settings | {"warmup_steps": 5, "warmup_start_lr": -1.0}
    assert released.minigpt_rate(0, 0, **none) == 1.0
    assert released.minigpt_rate(2, 0, **none) == pytest.approx(0.5)


def test_lora_targets_are_names_of_linear_layers_outside_tower_and_projector():
    model = module_with_linears(["model.layers.0.q_proj", "model.vision_tower.fc1", "crossA_layer.kv", "lm_head"])
    assert released.lora_targets(model) == ["kv", "q_proj"]
    assert released.lora_targets(model, released.NOT_LANGUAGE_SQ) == ["q_proj"]


def test_batches_are_padded_before_they_are_cut_and_the_mask_follows_the_padding_id():
    ids, labels, mask = released.collate([[1, 0, 5, 6], [1]], [[-100, 0, 5, 6], [-100]], pad_id=0, max_length=3)
    assert ids.tolist() == [[1, 0, 5], [1, 0, 0]]
    assert labels.tolist() == [[-100, 0, 5], [-100, -100, -100]]
    assert mask.tolist() == [[True, False, True], [True, False, False]]


def test_a_prompt_that_fills_the_window_leaves_no_target():
    def encode(text):
        return [ord(character) for character in text]

    ids, targets = released.vqa_targets(["abcd", "ab"], ["ab", "a"], encode, pad_id=0, max_length=3)
    assert ids.tolist() == [[97, 98, 99], [97, 98, 0]]
    assert targets.tolist() == [[-100, -100, 99], [-100, 98, -100]]
    assert (released.vqa_targets(["abcd"], ["abcd"], encode, pad_id=0, max_length=3)[1] == -100).all()
