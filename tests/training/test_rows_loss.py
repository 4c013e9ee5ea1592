"""The weighted loss of rows."""

import numpy as np
import pytest
import torch
from tiny_families import picture as family_picture
from tiny_families import tiny_family
from tiny_llava import conversation, picture, tiny_adapter

from vsel_platform.config_training import LoraSettings, PrototypeSettings, VisionLoraSettings
from vsel_platform.models.vlm import ShownImage
from vsel_platform.training.adapter import add_lora
from vsel_platform.training.examples import Example
from vsel_platform.training.rows_loss import Part, RowsLoss

SETTINGS = LoraSettings(rank=2, alpha=4, dropout=0.0)


def made(model=None, *, joined=False, **options):
    """An adapter with LoRA layers and its loss."""
    model = model or tiny_adapter()
    settings = SETTINGS.model_copy(update=options)
    return model, RowsLoss(model, add_lora(model.model, model.parts, settings, base_name="x"), joined=joined)


def example(model, name, images, *texts):
    turns = conversation("<image>\n" * len(images) + "What?", *texts)
    shown = [ShownImage(model.image_tokens)] * len(images)
    return Example(name, model.render(turns, len(images), "full", shown), tuple(images))


def part(model, rows, weights=None):
    ids = dict.fromkeys(image for row in rows for image in row.images)
    with torch.no_grad():
        features = {i: model.features([model.preprocess(picture(i))])[0] for i in ids}
    ones = [np.ones(row.rendered.n_targets, np.float32) for row in rows]
    return Part(rows, weights or ones, features, {})


def rows_of(model):
    return [
        example(model, "a", ["p"], "It is red."),
        example(model, "b", ["q", "p"], "It is white and red.", "Sure?", "Yes."),
        example(model, "c", [], "There is a cat."),
    ]


def test_the_loss_of_rows_is_that_of_each_alone():
    model, loss = made()
    rows = rows_of(model)
    total, nll = loss(part(model, rows))
    alone = [loss(part(model, [row]))[1] for row in rows]
    torch.testing.assert_close(nll, torch.cat(alone), rtol=1e-4, atol=1e-4)
    assert total.item() == pytest.approx(float(nll.sum()), rel=1e-5)
    assert not nll.requires_grad


def test_the_loss_is_that_of_transformers():
    model, loss = made()
    (row,) = rows_of(model)[2:]
    _, nll = loss(part(model, [row]))
    ids = torch.from_numpy(row.rendered.input_ids)[None]
    labels = torch.from_numpy(row.rendered.labels)[None]
    with torch.no_grad():
        expected = model.model(input_ids=ids, labels=labels).loss
    assert float(nll.mean()) == pytest.approx(float(expected), rel=1e-5)


def test_targets_count_as_much_as_they_weigh():
    model, loss = made()
    row = rows_of(model)[0]
    weights = np.linspace(0, 1, row.rendered.n_targets).astype(np.float32)
    total, nll = loss(part(model, [row], [weights]))
    assert total.item() == pytest.approx(float((nll * torch.from_numpy(weights)).sum()), rel=1e-5)


def test_an_image_in_two_rows_is_projected_once(monkeypatch):
    model, loss = made()
    seen = []
    project = model.project
    monkeypatch.setattr(model, "project", lambda features: (seen.append(len(features)), project(features))[1])
    loss(part(model, rows_of(model)))
    assert sum(seen) == 2


@pytest.mark.parametrize("texts_only", [False, True])
def test_in_a_group_every_tensor_takes_part_in_every_step(texts_only):
    model, loss = made(joined=True)
    rows = rows_of(model)[2:] if texts_only else []
    total, nll = loss(part(model, rows))
    total.backward()
    assert all(p.grad is not None for p in loss.parameters() if p.requires_grad)
    assert len(nll) == sum(row.rendered.n_targets for row in rows)
    if not rows:
        assert total.item() == 0


@pytest.mark.parametrize("joined", [False, True])
def test_only_what_rows_reach_is_seen_as_reached(joined):
    model = tiny_adapter()
    model.tower_gradients = True
    vision = VisionLoraSettings(rank=2, targets=r".*q_proj")
    model, loss = made(model, joined=joined, projector_learning_rate=1e-3, vision=vision)
    rows = rows_of(model)
    pixels = {i: model.preprocess(picture(i)) for i in ("p", "q")}
    found = {}
    for name, own in (("texts", rows[2:]), ("images", rows)):
        found[name] = set()
        with loss.gradients_watched(found[name]):
            loss(Part(own, [np.ones(row.rendered.n_targets, np.float32) for row in own], {}, pixels))
    trained = {name for name, p in loss.named_parameters() if p.requires_grad}
    # Features are what comes out of the first of the tower's two layers.
    deepest = {name for name in trained if "vision_tower" in name and ".layers.1." in name}
    assert deepest and trained - found["images"] == deepest
    assert all("language_model" in name for name in found["texts"]) and found["texts"] < found["images"]


def test_alone_what_a_step_does_not_use_gets_no_gradient():
    model, loss = made()
    loss(part(model, rows_of(model)[2:]))[0].backward()
    assert all(p.grad is None for name, p in loss.named_parameters() if "projector" in name)


def test_a_trained_tower_gets_its_gradient_from_pixels():
    model = tiny_family("qwen2_vl").adapter()
    model.tower_gradients = True
    model, loss = made(model, projector_learning_rate=1e-3)
    image = model.preprocess(family_picture("p"))
    shown = ShownImage(len(model.features([image])[0]), image.layout)
    row = Example("a", model.render(conversation("<image>\nWhat?", "Red."), 1, "full", [shown]), ("p",))
    weights = [np.ones(row.rendered.n_targets, np.float32)]
    loss(Part([row], weights, {}, {"p": image}))[0].backward()
    grads = [p.grad for name, p in loss.named_parameters() if "merger" in name and p.requires_grad]
    assert grads and all(grad.abs().sum() > 0 for grad in grads)


def test_how_prototypes_group_tokens_is_seen_while_it_is_watched():
    model, loss = made(prototypes=PrototypeSettings(prototypes=2))
    usage = []
    with loss.prototypes_watched(usage):
        loss(part(model, rows_of(model)))
    assert sum(images for images, _ in usage) == 2
    assert all(1 <= own.used <= 2 for _, own in usage)
    loss(part(model, rows_of(model)))
    assert sum(images for images, _ in usage) == 2
