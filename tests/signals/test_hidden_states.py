"""Pooled hidden states against a whole forward pass of each row alone."""

import numpy as np
import pytest
import torch
from tiny_families import picture as family_picture
from tiny_families import tiny_family
from tiny_llava import conversation, picture, tiny_adapter, tiny_model

from vsel_platform.errors import ConfigError
from vsel_platform.signals.hidden_states import chosen_layers, hidden_states_fingerprint, pooled_hidden_states
from vsel_platform.signals.losses import LossRow
from vsel_platform.signals.windows import WindowOptions

ADAPTER = tiny_adapter(model=tiny_model(layers=3))
ROWS = [
    *(
        LossRow(f"r{i}", conversation("<image>\nWhat?" + " And why?" * i, "It is red."), [f"image{i % 2}"])
        for i in range(5)
    ),
    LossRow("double", conversation("<image> and <image>\nwhich one?", "The dog."), ["image0", "image7"]),
    LossRow("text", conversation("What is a bus?", "A car.")),
]


def computed(rows=ROWS, model=ADAPTER, images=picture, layers=(), **options):
    """Vectors and reasons of failure by id."""
    batches = list(pooled_hidden_states(model, rows, images, layers=layers, options=WindowOptions(**options)))
    vectors = {value.sample_id: value.vector for batch in batches for value in batch.values}
    return vectors, {failure.content_id: failure.reason for batch in batches for failure in batch.failures}


def oracle(row, layers):
    """The vector of one row: all layers of the whole model, means in plain Python."""
    rendered = ADAPTER.render(row.turns, len(row.images))
    inputs = {"input_ids": torch.from_numpy(rendered.input_ids)[None]}
    if row.images:
        inputs["pixel_values"] = torch.from_numpy(np.stack([ADAPTER.preprocess(picture(i)) for i in row.images]))
    with torch.no_grad():
        states = ADAPTER.model(**inputs, output_hidden_states=True).hidden_states
    places = set(ADAPTER.image_places(rendered).tolist())
    parts = []
    for layer in layers:
        for of_image in (True, False):
            own = [states[layer][0, i].numpy() for i in range(len(rendered)) if (i in places) == of_image]
            mean = np.mean(own, axis=0) if own else np.zeros(states[layer].shape[-1])
            parts.append(mean / max(np.linalg.norm(mean), 1e-12))
    return np.concatenate(parts)


@pytest.mark.parametrize("layers", [(), (1,), (1, 2)])
def test_vectors_are_the_means_of_a_whole_pass(layers):
    found, failures = computed(layers=layers)
    assert failures == {}
    for row in ROWS:
        np.testing.assert_allclose(found[row.sample_id], oracle(row, layers or (2,)), atol=2e-5)


def test_the_image_part_of_a_text_row_is_zero_and_all_other_parts_have_length_one():
    found, _ = computed(layers=(1, 2))
    parts = {name: np.linalg.norm(vector.reshape(4, -1), axis=1) for name, vector in found.items()}
    np.testing.assert_allclose(parts.pop("text"), [0, 1, 0, 1], atol=1e-6)
    np.testing.assert_allclose(list(parts.values()), 1, atol=1e-6)


def test_values_do_not_depend_on_batches_and_windows():
    whole, _ = computed()
    small, _ = computed(batch_tokens=30, window_rows=2)
    for name, vector in whole.items():
        np.testing.assert_allclose(small[name], vector, atol=1e-6)


def test_layers_behind_the_deepest_chosen_one_do_not_run():
    ran = []
    handles = [
        layer.register_forward_hook(lambda *_, number=number: ran.append(number))
        for number, layer in enumerate(ADAPTER.decoder.layers, 1)
    ]
    try:
        computed(layers=(1,))
    finally:
        for handle in handles:
            handle.remove()
    assert set(ran) == {1}


def test_broken_images_and_rows_that_cannot_be_rendered_are_failures():
    def images(name):
        if name == "gone":
            raise FileNotFoundError(name)
        return picture(name)

    rows = [
        ROWS[0],
        LossRow("gone", conversation("<image>\nWhat?", "Red."), ["gone"]),
        LossRow("tags", conversation("<image>\n<image>\nWhat?", "Red."), ["image0"]),
    ]
    found, failures = computed(rows, images=images)
    assert list(found) == ["r0"]
    assert failures == {"gone": "image_missing", "tags": "row_not_renderable"}


def test_states_that_are_not_finite_are_failures():
    model = tiny_model(layers=2)
    with torch.no_grad():
        model.model.language_model.layers[0].mlp.down_proj.weight.fill_(float("inf"))
    found, failures = computed(ROWS[:2], model=tiny_adapter(model=model))
    assert found == {}
    assert set(failures.values()) == {"non_finite_states"}


def test_models_of_other_families_are_pooled_alike():
    adapter = tiny_family("qwen3_vl").adapter()
    found, failures = computed(ROWS, model=adapter, images=family_picture, layers=(1, 3))
    assert failures == {}
    assert {len(vector) for vector in found.values()} == {4 * 32}


def test_layers_are_checked_sorted_and_in_the_fingerprint():
    assert chosen_layers(ADAPTER, []) == [2]
    assert chosen_layers(ADAPTER, [3, 1, 3]) == [1, 3]
    with pytest.raises(ConfigError, match=r"signals.hidden_layers: 4 is asked for, but .* has 3"):
        chosen_layers(ADAPTER, [4])
    assert hidden_states_fingerprint(ADAPTER, [1]) != hidden_states_fingerprint(ADAPTER, [2])
