"""Self-questioning of a tiny model: in batches, against the same steps one after the other."""

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from tiny_llava import picture, tiny_adapter, tiny_model

from vsel_platform.config_evaluation import AskingSettings
from vsel_platform.errors import DataError
from vsel_platform.evaluation.answering import QuestionRow, answer_questions
from vsel_platform.evaluation.own_questions import Proposal
from vsel_platform.evaluation.self_questioning import answer_with_self_questions, propose_questions
from vsel_platform.evaluation.self_questioning_prompts import (
    answering_turns,
    asking_turns,
    describing_turns,
    distinct_questions,
    final_turns,
)
from vsel_platform.evaluation.window_prompts import chances
from vsel_platform.models.sampling import Sampling
from vsel_platform.signals.windows import WindowOptions

MODEL = tiny_adapter(model=tiny_model(layers=2), template="plain", max_tokens=600)
ASKING = AskingSettings(questions=3, question_tokens=5, answer_tokens=4, seed=7)
MOST = 3


def image_row(name, image, question="What is it?", right=None):
    return QuestionRow(name, (("user", f"<image>\n{question}"),), (image,), right)


ROWS = [
    image_row("q0", "a", right="A bus"),
    image_row("q1", "b", "How many people are there?"),
    QuestionRow("text", (("user", "Where is the cat?"),), ()),
    image_row("q2", "a", "Is there a dog?"),
    QuestionRow("two", (("user", "<image> and <image>\nWhich one?"),), ("b", "a")),
]


def broken(image):
    if image == "broken":
        raise DataError("no such picture")
    return picture(image)


def answers(rows=ROWS, asking=ASKING, model=MODEL, options=None):
    windows = answer_with_self_questions(model, rows, broken, asking, max_new_tokens=MOST, options=options)
    return {answer.question_id: answer for window in windows for answer in window}


@pytest.fixture(scope="module")
def answered():
    """Answers to all rows with all defaults; nothing may change them."""
    return answers()


def assert_same(found, expected):
    """Equal answers; losses but for the rounding of other batches."""
    assert {n: replace(a, loss_sum=None) for n, a in found.items()} == {
        n: replace(a, loss_sum=None) for n, a in expected.items()
    }
    for name, answer in expected.items():
        assert found[name].loss_sum == (answer.loss_sum and pytest.approx(answer.loss_sum, rel=1e-5))


def plainly(rows):
    return {a.question_id: a for w in answer_questions(MODEL, rows, broken, max_new_tokens=MOST) for a in w}


@cache
def feature(image):
    with torch.inference_mode():
        return MODEL.project(MODEL.tower_features(MODEL.preprocess(picture(image))[None]))[0]


def said(row, kind, turns, n_tokens, uniform=None):
    """Text and tokens of one prompt alone."""
    prompt, shown = getattr(MODEL, kind)(turns, len(row.images)), [[feature(image) for image in row.images]]
    if uniform is None:
        (tokens,) = MODEL.answer([prompt], shown, max_tokens=n_tokens)
    else:
        sampling = Sampling(ASKING.temperature, ASKING.top_k, ASKING.top_p)
        (tokens,) = MODEL.sample([prompt], shown, sampling=sampling, uniform=uniform[None])
    return MODEL.text_of(tokens), len(tokens)


def step_by_step(row, asking=ASKING):
    """Description, own questions with answers, answer and all tokens, one prompt at a time."""
    n = len(row.images)
    description, total = None, 0
    if asking.describe:
        description, total = said(row, "render_prompt", describing_turns(n), asking.answer_tokens)
    drawn = [
        said(row, "render_question_prompt", asking_turns(description, n), asking.question_tokens,
             chances(asking.seed, "own questions", row.sample_id, number, asking.question_tokens))
        for number in range(asking.questions)
    ]  # fmt: skip
    total += sum(count for _, count in drawn)
    asked = []
    for question in distinct_questions([text for text, _ in drawn]):
        answer, count = said(row, "render_prompt", answering_turns(description, question, n), asking.answer_tokens)
        asked.append((question, answer))
        total += count
    answer, count = said(row, "render_prompt", final_turns(description, asked, row.turns[-1][1], n), MOST)
    return description, asked, answer, total + count


@pytest.mark.parametrize("describe", [True, False])
def test_batches_give_what_the_steps_give_one_after_the_other(describe):
    asking = ASKING.model_copy(update={"describe": describe})
    rows = [row for row in ROWS if row.images][-3:]
    found = answers(rows, asking)
    for row in rows:
        description, asked, text, total = step_by_step(row, asking)
        answer, trace = found[row.sample_id], json.loads(found[row.sample_id].trace)
        assert (answer.text, answer.n_tokens) == (text, total)
        assert (trace["description"] or {}).get("text") == description
        assert [(own["question"], own["answer"]) for own in trace["asked"]] == asked
        assert trace["shown"] == {"description": describe, "questions": len(asked)}
        assert asked, "the test needs questions"


def test_the_tokens_of_the_trace_add_up(answered):
    for answer in answered.values():
        if answer.trace is None:
            continue
        trace = json.loads(answer.trace)
        asked = sum(own["question_tokens"] + own["answer_tokens"] for own in trace["asked"])
        dropped = sum(own["n_tokens"] for own in trace["dropped"])
        assert len(trace["asked"]) + len(trace["dropped"]) == ASKING.questions
        assert answer.n_tokens == trace["description"]["n_tokens"] + asked + dropped + trace["answer"]["n_tokens"]
        assert answer.text == trace["answer"]["text"]


def test_a_text_only_question_is_answered_plainly(answered):
    answer, plain = answered["text"], plainly(ROWS)["text"]
    assert answer == plain
    assert answer.trace is None


def test_plain_answers_begin_with_the_greedy_one_and_take_no_more_tokens(answered):
    found, plain = answered, plainly(ROWS)
    for row in ROWS:
        if row.images:
            own = json.loads(found[row.sample_id].trace)["plain"]
            assert own[0] == {"text": plain[row.sample_id].text, "n_tokens": plain[row.sample_id].n_tokens}
            assert found[row.sample_id].n_tokens - MOST < sum(a["n_tokens"] for a in own)
            assert sum(a["n_tokens"] for a in own) <= found[row.sample_id].n_tokens


@pytest.mark.parametrize("change", ["reversed", "alone", "small windows", "small batches"])
def test_neither_order_nor_batches_change_an_answer(answered, change):
    options = {"small windows": WindowOptions(window_rows=2), "small batches": WindowOptions(batch_tokens=200)}
    rows = {"reversed": ROWS[::-1], "alone": ROWS[:1]}.get(change, ROWS)
    assert_same(answers(rows, options=options.get(change)), {row.sample_id: answered[row.sample_id] for row in rows})


def test_another_seed_asks_other_questions(answered):
    second = json.loads(answers(ROWS[:1], ASKING.model_copy(update={"seed": 8}))["q0"].trace)
    first = json.loads(answered["q0"].trace)
    assert first["description"] == second["description"]
    assert [own["question"] for own in first["asked"]] != [own["question"] for own in second["asked"]]


def test_a_broken_image_has_a_reason_and_disturbs_no_other(answered):
    found = answers([*ROWS, image_row("bad", "broken")])
    assert found["bad"].text is None
    assert found["bad"].trace is None
    assert "no such picture" in found["bad"].failure
    assert_same({name: answer for name, answer in found.items() if name != "bad"}, answered)


def test_own_questions_that_the_model_has_no_room_for_are_left_out_from_the_end():
    row = ROWS[0]
    description, asked, _, _ = step_by_step(row)
    assert len(asked) >= 2
    lengths = [len(MODEL.render_prompt(final_turns(description, asked[:n], row.turns[0][1]), 1)) for n in (0, 1, 2)]
    for limit, shown in ((lengths[2] - 1, 1), (lengths[1] - 1, 0)):
        model = tiny_adapter(model=MODEL.model, template="plain", max_tokens=limit)
        trace = json.loads(answers([row], model=model)["q0"].trace)
        assert trace["shown"] == {"description": True, "questions": shown}
        cut = model.render_prompt(final_turns(description, asked[:shown], row.turns[0][1]), 1)
        assert not cut.n_cut


def test_without_room_for_the_description_the_question_is_asked_plainly():
    row = image_row("q0", "a", "?")
    limit = len(MODEL.render_prompt(row.turns, 1))
    model = tiny_adapter(model=MODEL.model, template="plain", max_tokens=limit)
    answer = answers([row], model=model)["q0"]
    trace = json.loads(answer.trace)
    assert (trace["shown"], trace["asked"]) == ({"description": False, "questions": 0}, [])
    assert answer.text == plainly([row])["q0"].text


def test_the_loss_of_the_right_answer_is_that_behind_the_own_questions(answered):
    row, found = ROWS[0], answered["q0"]
    description, asked, _, _ = step_by_step(row)
    turns = [*final_turns(description, asked, row.turns[0][1]), ("assistant", row.right)]
    rendered = MODEL.render(turns, 1)
    pixels = torch.from_numpy(MODEL.preprocess(picture("a")))[None]
    with torch.inference_mode():
        logits = MODEL.model(input_ids=torch.from_numpy(rendered.input_ids)[None], pixel_values=pixels).logits[0]
    last = np.flatnonzero(rendered.answer_index == 1 + len(asked))  # behind the description and the own answers
    losses = -logits.log_softmax(-1)[last - 1, rendered.input_ids[last]]
    assert found.n_target_tokens == len(last)
    assert found.loss_sum == pytest.approx(float(losses.sum()), rel=1e-4)
    assert found.loss_sum != pytest.approx(plainly(ROWS)["q0"].loss_sum, rel=1e-3)


def test_a_system_turn_stays_in_front_and_earlier_turns_stand_before_the_question():
    turns = (("system", "Be short."), ("user", "<image>\nWhat?"), ("assistant", "A bus."), ("user", "Red?"))
    row = QuestionRow("s", turns, ("a",))
    shown = []
    render = MODEL.render_prompt
    model = tiny_adapter(model=MODEL.model, template="plain", max_tokens=600)
    model.render_prompt = lambda turns, *rest: shown.append(list(turns)) or render(turns, *rest)
    answers([row], model=model)
    assert all(turns[0] == ("system", "Be short.") for turns in shown)
    final = next(turns for turns in shown if len(turns) > 4 and turns[-1] == ("user", "Red?"))
    assert final[-3:] == [("user", "What?"), ("assistant", "A bus."), ("user", "Red?")]
    assert sum(text.count("<image>") for _, text in final) == 1


def test_proposals_are_what_answering_asks_itself(answered):
    rows = [*ROWS, image_row("bad", "broken")]
    proposals = {own.sample_id: own for window in propose_questions(MODEL, rows, broken, ASKING) for own in window}
    found = answered
    assert list(proposals) == [row.sample_id for row in rows]
    assert proposals["text"] == Proposal("text")
    assert "no such picture" in proposals["bad"].failure
    for name in ("q0", "q1", "q2", "two"):
        trace = json.loads(found[name].trace)
        assert {key: trace[key] for key in ("description", "asked", "dropped")} == proposals[name].to_dict()
        assert found[name].n_tokens == proposals[name].n_tokens + trace["answer"]["n_tokens"]
        assert Proposal.from_dict(name, json.loads(json.dumps(proposals[name].to_dict()))) == proposals[name]


def test_rows_of_one_image_are_described_once(monkeypatch):
    calls = []
    answer = MODEL.answer
    monkeypatch.setattr(
        MODEL, "answer", lambda prompts, *a, **k: calls.append(len(prompts)) or answer(prompts, *a, **k)
    )
    rows = [replace(ROWS[0], sample_id=f"row {i}") for i in range(4)]
    list(propose_questions(MODEL, rows, broken, ASKING.model_copy(update={"questions": 1})))
    assert calls[0] == 1
