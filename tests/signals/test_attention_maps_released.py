"""Free2DS's attention maps as released."""

import numpy as np
import pytest
from tiny_llava import picture
from tiny_released import save_released

from vsel_platform.errors import DataError
from vsel_platform.models.llava_released import IMAGE_TOKEN, load_released_llava
from vsel_platform.signals import attention_maps_released as module
from vsel_platform.signals.attention_maps_released import released_attention, released_attention_ids

STEPS = 5
P = 4


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return save_released(tmp_path_factory.mktemp("released"))


@pytest.fixture(scope="module")
def model(model_dir):
    return load_released_llava(model_dir, device="cpu")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for name in "ab":
        picture(name).save(folder / f"{name}.png")
    return folder


def turns(*texts):
    return [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(texts)]


def entry(unique_id, *texts, image="a.png"):
    return {"unique_id": unique_id, "image": image, "conversations": turns(*texts)}


ENTRIES = [
    entry(7, "<image>\nWhat colour is the bus?", "Red"),
    entry(3, "<image>\nWhere?", "On the street.", "And now?", "There.", image="b.png"),
    entry(11, "How many people are there? " * 3 + "<image>", "Two"),
    entry(12, "Where is the cat?", "On the mat"),
]


def run(entries, model_dir, images, **options):
    return released_attention(entries, model_dir, images, device="cpu", **{"max_new_tokens": STEPS, **options})


def test_entries_are_in_order_and_have_a_map_for_all_but_the_last_token(model_dir, images):
    result = run(ENTRIES, model_dir, images)
    assert [value.unique_id for value in result.values] == [7, 3, 11, 12]
    assert (result.skipped, result.failures) == ([], [])
    for value in result.values:
        assert value.attention.shape == value.relative.shape == (STEPS - 1, P)
        assert value.attention.dtype == value.relative.dtype == np.float32
        assert value.token_ids.dtype == np.int64
        assert value.vision[1] - value.vision[0] == P
        np.testing.assert_allclose(value.relative.sum(axis=1), 1, rtol=1e-5)


def test_the_first_question_alone_is_asked(model_dir, images):
    one, other = entry(1, "<image>\nWhere?", "Red"), entry(1, "<image>\nWhere?", "No.", "What?", "Red")
    (first,), (second,) = (run([e], model_dir, images).values for e in (one, other))
    np.testing.assert_array_equal(first.attention, second.attention)
    assert (
        released_attention([entry(1, "<image>\nWhy?", "Red")], model_dir, images, device="cpu", max_new_tokens=STEPS)
        .values[0]
        .attention.tolist()
        != first.attention.tolist()
    )


@pytest.mark.parametrize("batch_tokens", [1, 400])
def test_batches_do_not_change_the_maps(model_dir, images, batch_tokens):
    together, apart = run(ENTRIES, model_dir, images), run(ENTRIES[::-1], model_dir, images, batch_tokens=batch_tokens)
    for value, other in zip(together.values, apart.values[::-1], strict=True):
        assert value.unique_id == other.unique_id
        assert value.token_ids.tolist() == other.token_ids.tolist()
        np.testing.assert_allclose(value.relative, other.relative, atol=1e-5)


def test_tokens_begin_with_bos_and_go_on_with_the_answer(model_dir, images, model):
    short, long = (run(ENTRIES, model_dir, images, max_new_tokens=n).values for n in (STEPS, STEPS + 1))
    for value, other in zip(short, long, strict=True):
        assert value.token_ids[0] == model.tokenizer.bos_id
        assert other.token_ids[:-1].tolist() == value.token_ids.tolist()
        np.testing.assert_allclose(other.attention[: STEPS - 1], value.attention, atol=1e-6)


def test_the_end_token_ends_an_answer_and_one_token_has_no_map(model_dir, images, monkeypatch):
    whole = run(ENTRIES[:1], model_dir, images, max_new_tokens=STEPS + 1).values[0]
    loaded = module.load_released_llava

    def ending(token):
        def load(*args, **options):
            found = loaded(*args, **options)
            found.tokenizer.end_id = int(token)
            return found

        return load

    monkeypatch.setattr(module, "load_released_llava", ending(whole.token_ids[3]))
    cut = run(ENTRIES[:1], model_dir, images).values[0]
    ends = whole.token_ids[1:].tolist().index(int(whole.token_ids[3]))
    assert len(cut.token_ids) == len(cut.relative) == ends
    monkeypatch.setattr(module, "load_released_llava", ending(whole.token_ids[1]))
    empty = run(ENTRIES[:1], model_dir, images).values[0]
    assert (len(empty.token_ids), empty.attention.shape, empty.relative.shape) == (0, (0, P), (0, P))


def test_an_entry_without_an_image_is_skipped(model_dir, images):
    without = {"unique_id": 5, "conversations": turns("Write a poem.", "Red")}
    result = run([without, ENTRIES[0], {**without, "unique_id": 6, "image": ""}], model_dir, images)
    assert result.skipped == [5, 6]
    assert [value.unique_id for value in result.values] == [7]
    assert result.failures == []


def test_what_ends_the_released_chunk_is_a_reported_failure(model_dir, images):
    bad = [
        entry(1, "<image>\nWhat?", "Red", image="none.png"),
        entry(2, "<image>\nWhat?"),
        entry(4, "<image> and <image>", "Red"),
        ENTRIES[0],
    ]
    result = run(bad, model_dir, images)
    assert [(f.content_id, f.reason) for f in result.failures] == [
        ("1", "image_missing"),
        ("2", "row_not_renderable"),
        ("4", "row_not_renderable"),
    ]
    assert [value.unique_id for value in result.values] == [7]


def test_an_entry_without_an_id_is_refused(model_dir, images):
    with pytest.raises(DataError, match="entry 1 has no unique_id; add ids first"):
        run([ENTRIES[0], {"image": "a.png", "conversations": []}], model_dir, images)


def test_the_templates_differ_in_the_system_text_alone(model, model_dir, images):
    human, user = (released_attention_ids(ENTRIES[0]["conversations"], model, t) for t in ("llava_v1", "vicuna_v1"))
    assert human.tolist() != user.tolist()
    start, other = (int(np.flatnonzero(ids == IMAGE_TOKEN)[0]) for ids in (human, user))
    assert human[start - 2 :].tolist() == user[other - 2 :].tolist()
    (value,) = run(ENTRIES[:1], model_dir, images, template="vicuna_v1").values
    assert value.vision == (other, other + P)


def test_a_long_prompt_is_cut_and_without_its_image_a_failure(model, model_dir, images, monkeypatch):
    ids = released_attention_ids(ENTRIES[0]["conversations"], model)
    place = int(np.flatnonzero(ids == IMAGE_TOKEN)[0])
    monkeypatch.setattr(module, "MAX_LENGTH", place + 3)
    assert released_attention_ids(ENTRIES[0]["conversations"], model).tolist() == ids[: place + 3].tolist()
    assert len(run(ENTRIES[:1], model_dir, images).values) == 1
    monkeypatch.setattr(module, "MAX_LENGTH", place)
    assert run(ENTRIES[:1], model_dir, images).failures[0].reason == "row_not_renderable"


def test_an_image_behind_the_model_s_positions_is_a_failure(model, model_dir, images, monkeypatch):
    place = int(np.flatnonzero(released_attention_ids(ENTRIES[0]["conversations"], model) == IMAGE_TOKEN)[0])
    monkeypatch.setattr(module, "load_released_llava", lambda *_, **__: model)
    monkeypatch.setattr(model, "max_positions", place + P)
    assert run(ENTRIES[:1], model_dir, images).values[0].vision == (place, place + P)
    monkeypatch.setattr(model, "max_positions", place + P - 1)
    assert run(ENTRIES[:1], model_dir, images).failures[0].reason == "prompt_too_long"
