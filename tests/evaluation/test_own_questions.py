"""What a model asked itself: which questions are kept, and the record of them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_llava import picture, tiny_adapter

from vsel_platform.config_evaluation import AskingSettings
from vsel_platform.evaluation.answering import QuestionRow
from vsel_platform.evaluation.own_questions import Asked, Proposal, leading_system, own_questions
from vsel_platform.evaluation.window_prompts import Generated
from vsel_platform.signals.windows import WindowOptions, windows

ASKING = AskingSettings(questions=4, question_tokens=6, answer_tokens=4)
ROW = QuestionRow("q", (("user", "<image>\nWhat?"),), ("image",))
said = st.builds(Generated, st.text(max_size=8), st.integers(1, 9))


def asked_of(texts, monkeypatch, max_tokens=600):
    """The proposal of a model whose drawn questions are given."""
    model, left = tiny_adapter(template="plain", max_tokens=max_tokens), list(texts)
    text_of = model.text_of
    monkeypatch.setattr(model, "sample", lambda prompts, *args, **options: [[0]] * len(prompts))
    monkeypatch.setattr(model, "text_of", lambda tokens: left.pop(0) if list(tokens) == [0] else text_of(tokens))
    (window,) = windows(model, [ROW], picture, WindowOptions())
    window.load_images([0])
    return own_questions(model, window, ASKING)[0]


def test_blank_and_repeated_questions_are_dropped_in_the_order_drawn(monkeypatch):
    found = asked_of(["How many?", "", "how  many", "Where?"], monkeypatch)
    assert [own.question.text for own in found.asked] == ["How many?", "Where?"]
    assert [own.text for own in found.dropped] == ["", "how  many"]


def test_an_image_tag_that_the_model_writes_is_taken_out(monkeypatch):
    found = asked_of(["What is <image> this?", "<image>", "b?", "c?"], monkeypatch)
    assert [own.question.text for own in found.asked] == ["What is  this?", "b?", "c?"]
    assert [own.text for own in found.dropped] == [""]


def test_a_question_too_long_to_be_answered_is_dropped(monkeypatch):
    found = asked_of(["a?", "Describe " * 40, "b?", "c?"], monkeypatch, max_tokens=60)
    assert [own.question.text for own in found.asked] == ["a?", "b?", "c?"]
    assert [own.text for own in found.dropped] == [("Describe " * 40).strip()]


@given(
    st.none() | said,
    st.lists(st.builds(Asked, said, said), max_size=3).map(tuple),
    st.lists(said, max_size=3).map(tuple),
)
def test_the_record_of_a_proposal_reads_back(description, asked, dropped):
    proposal = Proposal("s", description, asked, dropped)
    assert Proposal.from_dict("s", json.loads(json.dumps(proposal.to_dict()))) == proposal
    parts = [*(part for own in asked for part in own), *dropped, *([description] if description else [])]
    assert proposal.n_tokens == sum(part.n_tokens for part in parts)


@pytest.mark.parametrize(
    ("turns", "system"),
    [([("system", "s"), ("user", "u")], [("system", "s")]), ([("user", "u")], []), ([], [])],
)
def test_the_system_turn_is_the_first_one_if_any(turns, system):
    assert leading_system(turns) == system
