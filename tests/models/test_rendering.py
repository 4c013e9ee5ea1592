"""Rows to tokens."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_llava import IMAGE_TOKENS, conversation, tiny_tokenizer

from vsel_platform.errors import DataError
from vsel_platform.models.rendering import Renderer
from vsel_platform.models.templates import load_template

TOKENIZER = tiny_tokenizer()
IMAGE_ID = TOKENIZER.convert_tokens_to_ids("<image>")


def renderer(template="vicuna_v1", max_tokens=1000):
    return Renderer(
        TOKENIZER,
        load_template(template),
        image_token_id=IMAGE_ID,
        image_tokens=IMAGE_TOKENS,
        max_tokens=max_tokens,
    )


def answer_texts(row):
    """Decoded targets per answer; a first word may have the blank before it in the same token."""
    numbers = sorted(set(row.answer_index[row.answer_index >= 0].tolist()))
    return {n: TOKENIZER.decode(row.input_ids[row.answer_index == n]).lstrip(" ") for n in numbers}


def test_targets_are_the_answers_and_their_end_tokens():
    row = renderer().render(conversation("<image>\nWhat colour?", "It is red.", "How many?", "Two"), 1)
    assert answer_texts(row) == {0: "It is red.</s>", 1: "Two</s>"}
    assert row.n_cut == 0


def test_an_image_becomes_its_tokens():
    row = renderer().render(conversation("<image>\nand <image>", "A dog"), 2)
    assert int((row.input_ids == IMAGE_ID).sum()) == 2 * IMAGE_TOKENS
    assert not (row.answer_index[row.input_ids == IMAGE_ID] >= 0).any()


def test_tokens_are_those_of_the_whole_text():
    turns = conversation("<image>\nWhat?", "A cat", "Where?", "There")
    row = renderer().render(turns, 1)
    text = load_template("vicuna_v1").render(turns, end="</s>").text
    assert row.input_ids[row.input_ids != IMAGE_ID].tolist() == [
        i for i in TOKENIZER(text)["input_ids"] if i != IMAGE_ID
    ]


@pytest.mark.parametrize("marker", [" ASSISTANT: ", "</s>", "USER: ", "ASSISTANT:"])
def test_separators_inside_the_texts_do_not_move_the_targets(marker):
    row = renderer().render(conversation(f"Say{marker}twice", f"x{marker}y"), 0)
    assert answer_texts(row) == {0: f"x{marker}y</s>"}


def test_an_image_tag_inside_an_answer_is_an_image_and_no_target():
    row = renderer().render(conversation("hi", "see <image> there"), 1)
    assert (row.input_ids == IMAGE_ID).sum() == IMAGE_TOKENS
    assert answer_texts(row) == {0: "see  there</s>"}


def test_the_first_token_is_never_a_target():
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.post_processor = None
    own = Renderer(tokenizer, load_template("plain"), image_token_id=IMAGE_ID, image_tokens=IMAGE_TOKENS, max_tokens=99)
    row = own.render([("assistant", "cat and dog")], 0)
    assert row.answer_index[0] == -1
    assert row.n_targets == len(row) - 1


def test_a_long_row_is_cut_at_the_end_and_the_cut_is_counted():
    turns = conversation("<image>\nWhat?", "It is red. " * 20)
    whole = renderer().render(turns, 1)
    cut = renderer(max_tokens=60).render(turns, 1)
    assert len(cut) == 60
    assert cut.n_cut == len(whole) - 60
    np.testing.assert_array_equal(cut.labels, whole.labels[:60])


@pytest.mark.parametrize(("tags", "images"), [(0, 1), (1, 0), (2, 1)])
def test_tags_and_images_must_agree(tags, images):
    with pytest.raises(DataError, match=f"{tags} <image> tags in the turns, but {images} images"):
        renderer().render(conversation("<image>" * tags + "hi", "there"), images)


def test_a_blank_answer_has_no_targets():
    row = renderer().render(conversation("hi", "  ", "and?", "ok"), 0)
    assert answer_texts(row) == {1: "ok</s>"}


words = st.lists(
    st.sampled_from(["<image>", "red", " bus", "ASSISTANT: ", "</s>", "\n", "  ", "猫", "e\u0301", "."]), max_size=6
).map("".join)
answers = words.map(lambda text: text.replace("<image>", ""))


@given(st.lists(st.tuples(words, answers), min_size=1, max_size=3), st.sampled_from(["vicuna_v1", "plain"]))
def test_both_conditions_have_the_same_targets(pairs, template):
    turns = [turn for q, a in pairs for turn in (("user", q), ("assistant", a))]
    n_images = sum(q.count("<image>") for q, _ in pairs)
    make = renderer(template)
    full, bare = (make.render(turns, n_images, condition) for condition in ("full", "no_question"))
    assert full.labels[full.labels >= 0].tolist() == bare.labels[bare.labels >= 0].tolist()
    assert full.answer_index[full.answer_index >= 0].tolist() == bare.answer_index[bare.answer_index >= 0].tolist()


def question_text(row):
    """Decoded words of the user; a first word may have the blank before it in the same token."""
    return TOKENIZER.decode(row.input_ids[row.is_question])


def test_the_words_of_the_user_are_marked_and_nothing_else():
    turns = conversation("<image>\nWhat colour?", "It is red.", "How many?", "Two")
    row = renderer().render([("system", "Be brief."), *turns], 1)
    assert row.is_question.dtype == bool
    assert question_text(row) == "\nWhat colour? How many?"
    assert not row.is_question[row.input_ids == IMAGE_ID].any()
    assert not row.is_question[row.answer_index >= 0].any()


@pytest.mark.parametrize("marker", [" ASSISTANT: ", "</s>", "USER: ", "It is red."])
def test_separators_and_answers_inside_a_question_are_words_of_it(marker):
    row = renderer().render(conversation(f"Say{marker}twice", "It is red."), 0)
    assert question_text(row).lstrip() == f"Say{marker}twice"
    assert answer_texts(row) == {0: "It is red.</s>"}


def test_the_marks_of_a_cut_row_are_those_of_the_whole():
    turns = conversation("<image>\nWhat?", "It is red.", "How many people? " * 9, "Two")
    whole, cut = renderer().render(turns, 1), renderer(max_tokens=80).render(turns, 1)
    assert len(cut.is_question) == 80 < len(whole)
    assert cut.is_question.tolist() == whole.is_question[:80].tolist()


@pytest.mark.parametrize("template", ["vicuna_v1", "plain"])
def test_no_image_is_the_row_as_if_it_never_had_one(template):
    turns = conversation("<image>\nWhat colour?", "It is red.", "And <image>\nthis?", "A cat")
    words = conversation("What colour?", "It is red.", "And this?", "A cat")
    blind = renderer(template).render(turns, 2, "no_image")
    expected = renderer(template).render(words, 0)
    assert blind.input_ids.tolist() == expected.input_ids.tolist()
    assert blind.answer_index.tolist() == expected.answer_index.tolist()
    assert blind.is_question.tolist() == expected.is_question.tolist()
    assert not (blind.input_ids == IMAGE_ID).any()


def test_no_image_needs_the_tags_that_the_row_promises():
    with pytest.raises(DataError, match="1 <image> tags in the turns, but 2 images"):
        renderer().render(conversation("<image>", "yes"), 2, "no_image")


@given(st.lists(st.tuples(words, answers), min_size=1, max_size=3), st.sampled_from(["vicuna_v1", "plain"]))
def test_no_image_has_the_targets_of_the_full_row(pairs, template):
    turns = [turn for q, a in pairs for turn in (("user", q), ("assistant", a))]
    n_images = sum(q.count("<image>") for q, _ in pairs)
    full, blind = (renderer(template).render(turns, n_images, condition) for condition in ("full", "no_image"))
    assert full.labels[full.labels >= 0].tolist() == blind.labels[blind.labels >= 0].tolist()
    assert full.answer_index[full.answer_index >= 0].tolist() == blind.answer_index[blind.answer_index >= 0].tolist()


@given(st.lists(st.tuples(words, answers), min_size=1, max_size=3))
def test_questions_and_answers_share_no_token(pairs):
    turns = [turn for q, a in pairs for turn in (("user", q), ("assistant", a))]
    row = renderer().render(turns, sum(q.count("<image>") for q, _ in pairs))
    assert not (row.is_question & (row.answer_index >= 0)).any()
    assert not row.is_question[row.input_ids == IMAGE_ID].any()


@pytest.mark.parametrize("template", ["vicuna_v1", "plain"])
def test_a_prompt_is_the_row_up_to_its_answer(template):
    turns = conversation("<image>\nWhat colour?", "It is red.", "And <image>\nthis?", "A cat.")
    prompt = renderer(template).render_prompt(turns[:-1], 2)
    whole = renderer(template).render(turns, 2)
    assert prompt.input_ids.tolist() == whole.input_ids[: len(prompt)].tolist()
    assert TOKENIZER.decode(whole.input_ids[len(prompt) :]).lstrip(" ") == "A cat.</s>"
    assert answer_texts(prompt) == {0: "It is red.</s>"}
    assert question_text(prompt) == question_text(whole)
    assert (prompt.input_ids == IMAGE_ID).sum() == 2 * IMAGE_TOKENS


def test_a_prompt_has_no_targets_of_its_own_and_says_what_was_cut():
    turns = conversation("<image>\nHow many people?", "")[:1]
    whole, cut = renderer().render_prompt(turns, 1), renderer(max_tokens=50).render_prompt(turns, 1)
    assert (whole.n_targets, whole.n_cut) == (0, 0)
    assert (len(cut), cut.n_cut) == (50, len(whole) - 50)
    assert TOKENIZER.decode(whole.input_ids).endswith("ASSISTANT:")


@pytest.mark.parametrize(("tags", "images"), [(0, 1), (1, 0), (2, 1)])
def test_a_prompt_shows_the_images_that_it_promises(tags, images):
    with pytest.raises(DataError, match=f"{tags} <image> tags in the turns, but {images} images"):
        renderer().render_prompt([("user", "<image>" * tags + "hi")], images)


def test_a_prompt_of_an_unknown_role_is_an_error():
    with pytest.raises(DataError, match="role 'human'"):
        renderer().render_prompt([("human", "hi")], 0)
