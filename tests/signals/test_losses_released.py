"""PreSel's losses as released."""

import math
import shutil

import numpy as np
import pytest
from tiny_llava import picture
from tiny_released import save_released, save_tokenizer

from vsel_platform.errors import DataError
from vsel_platform.models.llava_released import IMAGE_TOKEN, load_released_llava
from vsel_platform.models.released_tokenizer import ReleasedTokenizer
from vsel_platform.models.vlm import IGNORED_LABEL
from vsel_platform.signals.losses_released import (
    SYSTEM,
    released_ids,
    released_labels,
    released_losses,
    released_prompt,
    released_row,
    released_texts,
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return ReleasedTokenizer(save_tokenizer(tmp_path_factory.mktemp("tokenizer")))


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return save_released(tmp_path_factory.mktemp("released"))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for name in "ab":
        picture(name).save(folder / f"{name}.png")
    return folder


def turns(*texts):
    return [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(texts)]


def entry(unique_idx, *texts, image="a.png"):
    return {"unique_idx": unique_idx, "image": image, "conversations": turns(*texts)}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("<image>\nWhat?", "<image>\nWhat?"),
        ("What?\n<image>", "<image>\nWhat?"),
        ("<image>", "<image>"),
        (" <image> a <image> b ", "<image>\na  b"),
        ("  no tag ", "  no tag "),
    ],
)
def test_tags_move_to_the_front_of_their_turn(before, after):
    assert released_texts(turns(before)) == [after]


def test_the_prompt_drops_a_leading_answer_and_ends_answers_with_the_end_token():
    given = [{"from": "gpt", "value": "first"}, *turns("<image>\nWhat?", "A cat.", "Where?", "")]
    assert released_prompt(given) == f"{SYSTEM} USER: <image>\nWhat? ASSISTANT: A cat.</s>USER: Where? ASSISTANT:"


@pytest.mark.parametrize("given", [[], turns("a") * 2, turns("a", "b")[1:] * 2])
def test_roles_that_do_not_alternate_stop_the_released_code(given):
    with pytest.raises(DataError):
        released_prompt(given)


def test_an_unknown_role_is_an_error():
    with pytest.raises(DataError, match="turn 1 is from 'GPT', expected 'gpt'"):
        released_prompt([{"from": "human", "value": "a"}, {"from": "GPT", "value": "b"}])


def test_the_image_stands_between_separately_tokenised_chunks(tokenizer):
    before, after = tokenizer.encode("USER: "), tokenizer.encode("\nWhat?")
    assert released_ids("USER: <image>\nWhat?", tokenizer) == [*before, IMAGE_TOKEN, *after[1:]]


def labelled(prompt, tokenizer):
    ids, labels = released_labels(prompt, tokenizer)
    assert ((labels == IGNORED_LABEL) | (labels == ids)).all()
    return "".join(tokenizer._pieces.id_to_piece(int(i)) for i in labels if i != IGNORED_LABEL)


@pytest.mark.parametrize("legacy", [False, True])
def test_targets_are_the_answers_with_their_end_tokens(tmp_path, legacy):
    tokenizer = ReleasedTokenizer(save_tokenizer(tmp_path), legacy=legacy)
    prompt = released_prompt(turns("<image>\nWhat colour?", "Red and white.", "Where is it?", "On the street."))
    assert labelled(prompt, tokenizer).replace("▁", " ").split("</s>") == [" Red and white.", " On the street.", ""]


def test_a_separator_in_the_text_masks_the_whole_row(tokenizer):
    prompt = released_prompt(turns("<image>\nSay", "x ASSISTANT: y"))
    assert labelled(prompt, tokenizer) == ""


def test_an_unknown_token_counts_as_padding_and_masks_the_row(tokenizer):
    prompt = released_prompt(turns("<image>\nSay <unk>", "Two"))
    assert labelled(prompt, tokenizer) == ""


def test_masked_rows_are_nan_and_impossible_rows_are_failures(model_dir, images):
    given = [
        entry(7, "<image>\nWhat colour is the bus?", "Red and white."),
        entry(3, "<image>\nSay", "x ASSISTANT: y"),
        entry(9, "<image>\nWhat?", "Two", image="missing.png"),
        entry(11, "<image>", "A", "<image>", "B"),
        entry(12, "<image>\nWhat?", "Two people", image="b.png"),
    ]
    result = released_losses(given, model_dir, images, device="cpu")
    assert [value["unique_idx"] for value in result.values] == [7, 3, 12]
    assert math.isnan(result.values[1]["loss"])
    assert math.isnan(result.values[1]["perplexity"])
    for value in (result.values[0], result.values[2]):
        assert value["perplexity"] == pytest.approx(math.exp(value["loss"]))
    assert [(f.content_id, f.reason) for f in result.failures] == [("9", "image_missing"), ("11", "row_not_renderable")]


def test_batches_do_not_change_the_losses(model_dir, images):
    given = [entry(i, "<image>\nWhere is the bus?" * (i + 1), "On the street.") for i in range(4)]
    together, apart = (
        [v["loss"] for v in released_losses(given, model_dir, images, device="cpu", batch_tokens=n).values]
        for n in (8192, 1)
    )
    np.testing.assert_allclose(together, apart, atol=1e-5)


def test_rows_are_cut_at_the_models_length(model_dir, tmp_path):
    shutil.copytree(model_dir.parent, tmp_path / "copy")
    model = load_released_llava(tmp_path / "copy" / "llava", device="cpu")
    whole = released_row(turns("<image>\nWhat?", "Two people"), model)
    model.max_positions = len(whole) - 2
    cut = released_row(turns("<image>\nWhat?", "Two people"), model)
    assert len(cut) == len(whole) - 2
    assert cut.n_targets == whole.n_targets - 2
