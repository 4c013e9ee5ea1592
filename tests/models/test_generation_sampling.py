"""Drawn tokens of batches of prompts: each prompt gets what it gets alone."""

from functools import cache

import numpy as np
import pytest
import torch
from tiny_families import picture as family_picture
from tiny_families import tiny_family
from tiny_llava import picture, tiny_adapter, tiny_model

from vsel_platform.models.sampling import Sampling, drawn_tokens
from vsel_platform.models.vlm import ShownImage
from vsel_platform.selection.stable_hash import stable_uniform

pytestmark = pytest.mark.usefixtures("_prefixes")

STEPS = 6
SAMPLING = Sampling(1.2, 50, 0.95)
ADAPTER = tiny_adapter(model=tiny_model(layers=3))
ROWS = {
    "bus": ("<image>\nWhat colour is the bus?", ["image0"]),
    "dog": ("<image>\nDescribe the picture in detail. There is a dog on a mat.", ["image1"]),
    "bus again": ("<image>\nHow many?", ["image0"]),
    "text": ("Where is the cat?", []),
}


@cache
def features(image):
    with torch.inference_mode():
        return ADAPTER.project(ADAPTER.tower_features(ADAPTER.preprocess(picture(image))[None]))[0]


def prompt(name):
    text, images = ROWS[name]
    render = ADAPTER.render_question_prompt if images else ADAPTER.render_prompt
    return render([("user", text), ("assistant", "It is red.")] if images else [("user", text)], len(images))


def chance(name, number):
    return stable_uniform(0, [f"{name} {number} {step}" for step in range(STEPS)])


def sample(draws, sampling=SAMPLING):
    """Tokens of draws `(row, number)` in one batch."""
    prompts = {name: prompt(name) for name, _ in draws}
    found = ADAPTER.sample(
        [prompts[name] for name, _ in draws],
        [[features(image) for image in ROWS[name][1]] for name, _ in draws],
        sampling=sampling,
        uniform=np.stack([chance(*draw) for draw in draws]),
    )
    return [tokens.tolist() for tokens in found]


def expected(name, number):
    """Tokens of one draw, each from a whole pass over all that stands before it."""
    ids, tokens = prompt(name).input_ids, []
    pixels = [torch.from_numpy(ADAPTER.preprocess(picture(image))) for image in ROWS[name][1]]
    uniform = torch.from_numpy(chance(name, number))
    for step in range(STEPS):
        with torch.inference_mode():
            given = {"pixel_values": torch.stack(pixels)} if pixels else {}
            logits = ADAPTER.model(input_ids=torch.tensor([[*ids, *tokens]]), **given).logits[:, -1]
        tokens.append(int(drawn_tokens(logits, SAMPLING, uniform[step : step + 1])))
        if tokens[-1] == ADAPTER._end_token:
            break
    return tokens


DRAWS = [("bus", 0), ("dog", 0), ("bus", 1), ("text", 0), ("bus again", 0), ("bus", 2), ("text", 1), ("dog", 1)]


def test_every_draw_is_what_a_loop_over_single_tokens_draws():
    found = sample(DRAWS)
    assert found == [expected(*draw) for draw in DRAWS]
    assert len({tuple(tokens) for tokens in found}) > len(ROWS), "draws of one prompt differ"


def test_the_other_prompts_of_a_batch_make_no_difference():
    together = dict(zip(DRAWS, sample(DRAWS), strict=True))
    order = [DRAWS[i] for i in (5, 0, 7, 3)]
    assert sample(order) == [together[draw] for draw in order]
    assert [sample([draw])[0] for draw in DRAWS] == list(together.values())


def test_many_draws_of_one_prompt_stand_in_one_group(monkeypatch):
    widths = []
    inputs = ADAPTER.packed_inputs
    monkeypatch.setattr(
        ADAPTER, "packed_inputs", lambda groups, shown: widths.append([len(g) for g in groups]) or inputs(groups, shown)
    )
    draws = [("bus", number) for number in range(9)]
    found = sample(draws)
    assert widths == [[9]]
    assert found[7] == expected("bus", 7)


def test_a_low_temperature_gives_the_greedy_answer():
    names = ["bus", "dog", "text"]
    greedy = ADAPTER.answer(
        [prompt(name) for name in names],
        [[features(image) for image in ROWS[name][1]] for name in names],
        max_tokens=STEPS,
    )
    assert sample([(name, 0) for name in names], Sampling(1e-4, 400)) == [tokens.tolist() for tokens in greedy]


@pytest.mark.parametrize("model_type", ["qwen2_5_vl", "llava_next"])
def test_other_families_draw_too(model_type):
    adapter = tiny_family(model_type).adapter()
    image = adapter.preprocess(family_picture("p"))
    with torch.inference_mode():
        (feature,) = adapter.row_features([adapter.project(adapter.features([image])[0][None])[0]])
    shown = [ShownImage(len(feature), image.layout)]
    turns = [("user", "<image>\nDescribe the picture."), ("assistant", "A bus.")]
    asking = adapter.render_question_prompt(turns, 1, shown)
    uniform = np.stack([chance("family", number) for number in range(4)])
    together = adapter.sample([asking] * 4, [[feature]] * 4, sampling=SAMPLING, uniform=uniform)
    alone = [adapter.sample([asking], [[feature]], sampling=SAMPLING, uniform=own[None])[0] for own in uniform]
    assert [tokens.tolist() for tokens in together] == [tokens.tolist() for tokens in alone]
    assert len({tuple(tokens.tolist()) for tokens in together}) > 1
