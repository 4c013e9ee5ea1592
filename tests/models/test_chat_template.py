"""Words between a chat template's own pieces."""

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsel_platform.errors import DataError, ModelError
from vsel_platform.models.chat_template import ChatTemplate

CHATML = (
    "{% for m in messages %}<|s|>{{ m.role }}\n{% for p in m.content %}"
    "{% if p.type == 'image' %}[img]{% else %}{{ p.text }}{% endif %}{% endfor %}<|e|>\n{% endfor %}"
    "{% if prompt %}<|s|>assistant\n{% endif %}"
)


def template(source=CHATML):
    compiled = jinja2.Environment(keep_trailing_newline=True).from_string(source)
    return ChatTemplate(lambda messages, prompt: compiled.render(messages=messages, prompt=prompt), "[img]", ["<|e|>"])


def words(rendered, ranges):
    return [rendered.text[start:end] for start, end in ranges]


def test_answers_have_their_end_token_and_questions_have_none():
    turns = [("system", "Be kind."), ("user", "<image>\nWhat?"), ("assistant", "Red."), ("user", "Why?")]
    found = template().render(turns, ["<11>"])
    assert found.text == (
        "<|s|>system\nBe kind.<|e|>\n<|s|>user\n<11>What?<|e|>\n<|s|>assistant\nRed.<|e|>\n<|s|>user\nWhy?<|e|>\n"
    )
    assert words(found, found.answers) == ["Red.<|e|>"]
    assert words(found, found.questions) == ["What?", "Why?"]


def test_a_prompt_ends_where_the_answer_begins():
    assert template().render([("user", "Why?")], prompt=True).text.endswith("<|e|>\n<|s|>assistant\n")


def test_images_stand_where_their_tags_stood_each_with_its_own_text():
    found = template().render([("user", "A <image> and\n<image>\nb"), ("assistant", "c")], ["<1>", "<22>"])
    assert "A <1> and<22>b" in found.text
    assert words(found, found.questions) == ["A ", " and", "b"]


def test_an_empty_answer_has_an_empty_range_and_an_empty_question_is_written():
    found = template().render([("user", ""), ("assistant", "  ")])
    assert words(found, found.answers) == [""]
    assert "<|s|>user\n<|e|>" in found.text


text = st.text(st.characters(exclude_categories=["Cs", "Co"]), max_size=12).filter(lambda t: "<image>" not in t)


@given(st.lists(st.tuples(text, text), min_size=1, max_size=4))
def test_ranges_hold_the_words_whatever_they_are(pairs):
    turns = [turn for question, answer in pairs for turn in (("user", question), ("assistant", answer))]
    found = template().render(turns)
    expected = [f"{answer}<|e|>" if answer.strip() else "" for _, answer in pairs]
    assert words(found, found.answers) == expected
    assert words(found, found.questions) == [question for question, _ in pairs]


def test_a_template_that_trims_gets_trimmed_words():
    trims = CHATML.replace("{{ p.text }}", "{{ p.text | trim }}")
    found = template(trims).render([("user", " What? "), ("assistant", "Red.\n")])
    assert words(found, found.answers) == ["Red.<|e|>"]
    assert words(found, found.questions) == ["What?"]


def test_a_template_that_changes_words_refuses_the_row_and_one_that_drops_turns_is_no_template():
    upper = template(CHATML.replace("{{ p.text }}", "{{ p.text | upper }}"))
    with pytest.raises(DataError, match="changes the words"):
        upper.render([("user", "What?")])
    drops = template(CHATML.replace("in messages", "in messages[:1]"))
    with pytest.raises(ModelError, match="every text of a conversation once"):
        drops.render([("user", "What?"), ("assistant", "Red.")])


def test_what_the_template_refuses_and_unknown_roles_are_errors_of_the_row():
    strict = template("{{ raise_it(messages) }}")
    with pytest.raises(DataError, match="cannot write the row"):
        strict.render([("user", "What?")])
    with pytest.raises(DataError, match="role 'tool'"):
        template().render([("tool", "x")])


def test_images_that_the_template_does_not_show_are_an_error():
    blind = template(CHATML.replace("[img]", ""))
    with pytest.raises(DataError, match="0 images where the row has 1"):
        blind.render([("user", "<image>\nWhat?")], ["<1>"])


def test_an_image_token_in_the_words_is_not_an_image():
    found = template().render([("user", "<image>\nis [img] a token?")], ["<1>"])
    assert "<1>is [img] a token?" in found.text


INST = CHATML.replace("<|s|>{{ m.role }}\n", "[INST] ").replace("<|e|>", "")
UPPER = CHATML.replace("<|s|>{{ m.role }}\n", "{{ m.role.upper() }}: ").replace("<|e|>", "")
ASKED = [("user", "Who?"), ("assistant", "It."), ("vuser", "Why? user USER"), ("assistant", "So.")]


def test_a_virtual_user_has_a_header_and_an_end_of_its_own():
    found = template().render(ASKED)
    assert found.text.startswith("<|s|>user\nWho?<|e|>")
    assert "<|s|>vuser\nWhy? user USER<|e|>\n<|s|>assistant" in found.text
    assert words(found, found.asked) == ["Why? user USER<|e|>"]
    assert words(found, found.questions) == ["Who?"]
    assert words(found, found.answers) == ["It.<|e|>", "So.<|e|>"]


def test_a_question_of_a_template_without_end_gets_the_end_token():
    compiled = jinja2.Environment(keep_trailing_newline=True).from_string(UPPER)
    own = ChatTemplate(lambda m, prompt: compiled.render(messages=m, prompt=prompt), "[img]", ["</s>"], end="</s>")
    found = own.render(ASKED)
    assert "VUSER: Why? user USER</s>\nASSISTANT: So." in found.text
    assert words(found, found.asked) == ["Why? user USER</s>"]


def test_a_token_can_stand_for_the_virtual_user():
    compiled = jinja2.Environment(keep_trailing_newline=True).from_string(CHATML)
    own = ChatTemplate(
        lambda m, prompt: compiled.render(messages=m, prompt=prompt), "[img]", ["<|e|>"], asker="<vuser>"
    )
    assert "<|s|><vuser>\nWhy? user USER<|e|>" in own.render(ASKED).text


def test_a_question_prompt_ends_where_the_question_begins():
    found = template().question_prompt(ASKED[:2])
    assert found.text == "<|s|>user\nWho?<|e|>\n<|s|>assistant\nIt.<|e|>\n<|s|>vuser\n"
    assert found.asked == ()
    assert words(found, found.answers) == ["It.<|e|>"]


def test_a_template_that_names_no_user_cannot_ask():
    with pytest.raises(ModelError, match="names no user"):
        template(INST).render(ASKED)
    assert template(INST).render([turn for turn in ASKED if turn[0] != "vuser"]).asked == ()
