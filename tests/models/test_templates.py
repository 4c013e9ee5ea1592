"""Conversations as text."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsel_platform.errors import ConfigError, DataError
from vsel_platform.models.templates import count_images, load_template, without_images, without_questions

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions."
)
TURNS = [("user", "<image>\nWhat?"), ("assistant", "A cat."), ("user", "Where?"), ("assistant", " On a mat ")]


def answers(rendered):
    return [rendered.text[start:end] for start, end in rendered.answers]


def questions(rendered):
    return [rendered.text[start:end] for start, end in rendered.questions]


def test_vicuna_is_the_prompt_of_llava():
    rendered = load_template("vicuna_v1").render(TURNS, end="</s>")
    assert rendered.text == (
        f"{SYSTEM} USER: <image>\nWhat? ASSISTANT: A cat.</s>USER: Where? ASSISTANT:  On a mat </s>"
    )
    assert answers(rendered) == ["A cat.</s>", " On a mat </s>"]


def test_plain_has_neither_roles_nor_system_text():
    rendered = load_template("plain").render(TURNS, end="<eos>")
    assert rendered.text == "<image>\nWhat?\nA cat.<eos>Where?\n On a mat <eos>"
    assert answers(rendered) == ["A cat.<eos>", " On a mat <eos>"]


@pytest.mark.parametrize("name", ["vicuna_v1", "plain"])
def test_a_system_turn_replaces_the_system_text(name):
    rendered = load_template(name).render([("system", "Be brief."), *TURNS], end="</s>")
    assert rendered.text.startswith("Be brief.")
    assert SYSTEM not in rendered.text
    assert answers(rendered) == ["A cat.</s>", " On a mat </s>"]


def test_an_empty_question_leaves_no_double_blank():
    text = load_template("vicuna_v1").render([("user", ""), ("assistant", "Yes")], end="</s>").text
    assert text == f"{SYSTEM} USER: ASSISTANT: Yes</s>"


def test_a_prompt_ends_where_the_answer_begins():
    prompt = load_template("vicuna_v1").prompt([("user", "<image>\nWhat?")], end="</s>")
    assert prompt.text == f"{SYSTEM} USER: <image>\nWhat? ASSISTANT:"
    assert (answers(prompt), questions(prompt)) == ([], ["<image>\nWhat?"])
    plain = load_template("plain").prompt([*TURNS, ("user", "Why?")], end="<eos>")
    assert plain.text == "<image>\nWhat?\nA cat.<eos>Where?\n On a mat <eos>Why?\n"
    assert questions(plain) == ["<image>\nWhat?", "Where?", "Why?"]


@pytest.mark.parametrize("turns", [[("human", "hi")], [("user", "hi"), ("system", "late")]])
def test_a_prompt_of_unknown_roles_or_a_late_system_turn_is_an_error(turns):
    with pytest.raises(DataError, match="a turn has the role"):
        load_template("vicuna_v1").prompt(turns, end="</s>")


@pytest.mark.parametrize("blank", ["", "  ", "\n"])
def test_a_blank_answer_has_an_empty_range(blank):
    ((start, end),) = load_template("plain").render([("user", "q"), ("assistant", blank)], end="</s>").answers
    assert start == end


@pytest.mark.parametrize("turns", [[("human", "hi")], [("user", "hi"), ("system", "late")]])
def test_unknown_roles_and_late_system_turns_are_errors(turns):
    with pytest.raises(DataError, match="a turn has the role"):
        load_template("vicuna_v1").render(turns, end="</s>")


def test_an_unknown_template_lists_the_known_ones():
    with pytest.raises(ConfigError, match="unknown template 'chatml'; known: vicuna_v1, plain"):
        load_template("chatml")


def test_without_questions_keeps_tags_and_answers():
    turns = [("system", "s"), ("user", "a <image> b <image>"), ("assistant", "see <image>"), ("user", "more")]
    assert without_questions(turns) == [
        ("system", "s"),
        ("user", "<image>\n<image>"),
        ("assistant", "see <image>"),
        ("user", ""),
    ]


pieces = st.lists(st.sampled_from(["<image>", "ASSISTANT: ", "</s>", "USER:", " ", "cat", "é", "\n"]), max_size=6)
texts = pieces.map("".join)
conversations = st.lists(st.tuples(texts, texts), min_size=1, max_size=4).map(
    lambda pairs: [turn for q, a in pairs for turn in (("user", q), ("assistant", a))]
)


@given(conversations, st.sampled_from(["vicuna_v1", "plain"]))
def test_answer_ranges_hold_the_answers_whatever_the_texts_contain(turns, name):
    rendered = load_template(name).render(turns, end="</s>")
    words = [text for role, text in turns if role == "assistant"]
    assert answers(rendered) == [text + "</s>" if text.strip() else "" for text in words]


@given(conversations, texts, st.sampled_from(["vicuna_v1", "plain"]))
def test_the_answer_goes_on_where_the_prompt_ends(turns, question, name):
    turns = [*turns, ("user", question)]
    prompt = load_template(name).prompt(turns, end="</s>")
    whole = load_template(name).render([*turns, ("assistant", "Yes")], end="</s>")
    assert whole.text.startswith(prompt.text)
    assert whole.text[len(prompt.text) :].lstrip(" ") == "Yes</s>"
    assert prompt.questions == whole.questions
    assert prompt.answers == whole.answers[:-1]


@given(conversations)
def test_removing_questions_keeps_the_number_of_images_and_is_idempotent(turns):
    bare = without_questions(turns)
    assert count_images(bare) == count_images(turns)
    assert without_questions(bare) == bare


@given(conversations, st.sampled_from(["vicuna_v1", "plain"]))
def test_question_ranges_hold_the_words_of_the_user(turns, name):
    rendered = load_template(name).render([("system", "Be brief."), *turns], end="</s>")
    assert questions(rendered) == [text for role, text in turns if role == "user"]
    spans = sorted([*rendered.questions, *rendered.answers])
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<image>\nWhat?", "What?"),
        ("What?\n<image>", "What?"),
        ("a <image> b", "a  b"),
        ("one\n<image>\ntwo", "one\ntwo"),
        ("<image>\n<image>\nWhat?", "What?"),
        ("<image>\n\nWhat?", "\nWhat?"),
        ("<image>", ""),
        ("no picture", "no picture"),
    ],
)
def test_without_images_a_tag_goes_with_one_line_break(text, expected):
    turns = [("system", "s"), ("user", text), ("assistant", "yes\n")]
    assert without_images(turns) == [("system", "s"), ("user", expected), ("assistant", "yes\n")]


@given(conversations)
def test_removing_images_takes_tags_and_line_breaks_alone(turns):
    blind = without_images(turns)
    assert [role for role, _ in blind] == [role for role, _ in turns]
    assert count_images(blind) == 0
    for (_, text), (_, bare) in zip(turns, blind, strict=True):
        assert bare.replace("\n", "") == text.replace("<image>", "").replace("\n", "")


def test_a_virtual_users_question_has_its_end_and_a_blank_before_the_answer():
    turns = [*TURNS[:2], ("vuser", "Where?"), ("assistant", "On a mat")]
    rendered = load_template("vicuna_v1_sq").render(turns, end="</s>")
    assert rendered.text.endswith("A cat.</s>VUSER: Where?</s> ASSISTANT: On a mat</s>")
    assert [rendered.text[start:end] for start, end in rendered.asked] == ["Where?</s>"]
    assert questions(rendered) == ["<image>\nWhat?"]
    assert answers(rendered) == ["A cat.</s>", "On a mat</s>"]


def test_a_question_prompt_is_the_text_in_front_of_the_blank_before_the_question():
    template = load_template("vicuna_v1_sq")
    prompt = template.question_prompt(TURNS[:2], end="</s>").text
    assert prompt.endswith("A cat.</s>VUSER:")
    assert template.render([*TURNS[:2], ("vuser", "Where?")], end="</s>").text.startswith(prompt + " Where?</s>")


def test_llava_plain_is_the_image_and_the_caption():
    turns = [("user", "<image>\nDescribe it briefly."), ("assistant", "A red bus.")]
    rendered = load_template("llava_plain").render(turns, end="</s>")
    assert rendered.text == "<image>A red bus.\n"
    assert rendered.answers == ((7, 18),)
    assert load_template("llava_plain").prompt(turns[:1], end="</s>").text == "<image>"
