"""Images of training steps."""

import threading
from collections import Counter

import pytest
import torch
from tiny_families import picture as family_picture
from tiny_families import tiny_family
from tiny_llava import IMAGE_TOKENS, picture, tiny_adapter

from vsel_platform.training.step_images import StepImages

GIB = 2**30


class Counted:
    """Pictures, and how often each was asked for; "gone" is not there."""

    def __init__(self, picture=picture):
        self.asked = Counter()
        self.picture = picture
        self.threads = set()

    def __call__(self, image_id):
        self.asked[image_id] += 1
        self.threads.add(threading.current_thread().name)
        if image_id == "gone":
            raise FileNotFoundError(image_id)
        return self.picture(image_id)


@pytest.fixture
def made():
    """Makes loaders and closes them."""
    loaders = []

    def make(images, model=None, *, trained=False, keep_bytes=GIB):
        loaders.append(StepImages(model or tiny_adapter(), images, trained=trained, keep_bytes=keep_bytes))
        return loaders[-1]

    yield make
    for loader in loaders:
        loader.close()


def test_a_frozen_towers_images_are_loaded_once_overall(made):
    images = Counted()
    loader = made(images)
    first = loader.load(["a", "b", "a"])
    loader.ahead(["a", "c", "c"])
    second = loader.load(["c", "a"])
    assert images.asked == {"a": 1, "b": 1, "c": 1}
    assert first.features.keys() == {"a", "b"}
    assert not first.pixels
    torch.testing.assert_close(first.features["a"], second.features["a"])
    assert {image.n_tokens for image in second.shown.values()} == {IMAGE_TOKENS}


@pytest.mark.parametrize("trained", [True, False])
def test_without_a_cache_images_are_loaded_once_per_step(made, trained):
    images = Counted()
    loader = made(images, trained=trained, keep_bytes=0)
    for number in range(3):
        loader.ahead(["a", "b"])
        found = loader.load(["a", "b", "a"])
        assert images.asked == {"a": number + 1, "b": number + 1}
        assert (found.pixels if trained else found.features).keys() == {"a", "b"}


def test_images_of_the_next_step_are_decoded_beside_the_model(made):
    images = Counted()
    loader = made(images)
    loader.ahead(["a", "b"])
    loader.load(["a", "b"])
    assert all(name.startswith("training-images") for name in images.threads)


def test_what_was_loaded_ahead_for_nobody_is_forgotten(made):
    images = Counted()
    loader = made(images)
    loader.ahead(["x"])
    loader.load(["a"])
    loader.load(["x"])
    assert images.asked["x"] == 2


@pytest.mark.parametrize("trained", [True, False])
def test_broken_images_are_reported_beside_the_others(made, trained):
    found = made(Counted(), trained=trained).load(["a", "gone"])
    assert {name: failure.reason for name, failure in found.failed.items()} == {"gone": "image_missing"}
    assert found.shown.keys() == {"a"}


@pytest.mark.parametrize("family", ["qwen2_vl", "llava_next", "idefics3"])
def test_prompts_learn_the_same_of_images_whether_the_tower_is_trained_or_not(made, family):
    shown = []
    for trained in (True, False):
        model = tiny_family(family).adapter()
        model.tower_gradients = trained
        shown.append(dict(made(Counted(family_picture), model, trained=trained).load(["p", "q", "r"]).shown))
    assert shown[0] == shown[1]


def test_measuring_a_trained_tower_takes_no_random_numbers_and_no_gradient(made):
    model = tiny_family("qwen2_vl").adapter()
    model.tower_gradients = True
    model.model.model.visual.merger.mlp.append(torch.nn.Dropout(0.5))
    model.model.train()
    loader = made(Counted(family_picture), model, trained=True)
    before = torch.get_rng_state()
    loader.load(["p", "q"])
    assert torch.equal(torch.get_rng_state(), before)
    assert model.model.training
