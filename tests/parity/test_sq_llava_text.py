"""SQ-LLaVA's texts (labels, templates, self-questioning) against the recorded runs of the released code."""

import json
import random
import re
from dataclasses import replace

import pytest
from char_tokenizer import CharTokenizer, PieceTokenizer, pieces, supervised_spans
from parity_cases import step_dir

from vsel_platform.evaluation import self_questioning_released as inference
from vsel_platform.models.templates import ASKER, load_template
from vsel_platform.training import labels_released as labels

ROLES = {"USER": "user", "ASSISTANT": "assistant", "VUSER": ASKER}


def folder(step):
    return step_dir("sq_llava", step)


def read(step, name="fixture.json"):
    file = folder(step) / name
    return json.loads(file.read_text("utf-8")) if file.is_file() else None


def cases(step, items, name=lambda i, item: str(i)):
    return [pytest.param(item, id=f"sq_llava/{step}-{name(i, item)}") for i, item in enumerate(items or [])]


def whole(step):
    return [pytest.param(step, id=f"sq_llava/{step}")] if folder(step).is_dir() else []


CHARS = read("label_masking", "char_tokenizer.json") or {"cases": []}
PIECES = read("label_masking", "sentencepiece_tokenizer.json") or {"cases": []}
TEMPLATES = read("conversation_templates") or {}


def named(i, case):
    seed = f"-r{case['sq_r']}-seed{case['seed']}" if "sq_r" in case else ""
    return f"{case['fn']}-{case['case']}{seed}"


def labelled(case, tokenizer):
    """(turns after clean-up, flips, draws, prompt, labels) of a case."""
    has_image, draws = case["has_image"], []
    turns = labels.released_conversation(case["source"]) if has_image else list(case["source"])
    if case["fn"] == "preprocess_plain":
        prompt = labels.released_plain_prompt(turns)
        return turns, [], draws, prompt, labels.released_plain_labels(prompt, tokenizer)
    if case["fn"] == "preprocess_v1":
        prompt, rounds = labels.released_vicuna_prompt(turns, TEMPLATES["v1"]["system"]), labels.VICUNA
        return turns, [], draws, prompt, labels.released_round_labels(prompt, tokenizer, rounds, has_image=has_image)
    source = random.Random(case["seed"])

    def draw():
        draws.append(source.random())
        return draws[-1]

    flips = labels.released_flips(turns, case["sq_r"], draw) if has_image else []
    prompt = labels.released_sq_prompt(turns, TEMPLATES["v1_sq"]["system"], flips)
    found = labels.released_round_labels(prompt, tokenizer, labels.VICUNA_SQ, has_image=has_image)
    return turns, flips, draws, prompt, found


@pytest.mark.parametrize("case", cases("label_masking", CHARS["cases"], named))
def test_labels_of_characters_are_those_of_the_released_code(case):
    tokenizer = CharTokenizer(CHARS["tokenizer"]["alphabet"], add_bos=CHARS["tokenizer"]["add_bos"])
    turns, flips, draws, prompt, found = labelled(case, tokenizer)
    assert turns == case.get("after_preprocess_multimodal", turns)
    assert (flips, draws) == (case.get("flipped", []), case.get("draws", []))
    system = TEMPLATES[case["template"]]["system"] or "\0"
    assert "<s>" + prompt.replace(system, "{system}") == case["prompt"]
    assert found.ids.tolist() == case["input_ids"]
    assert found.labels.tolist() == case["labels"]
    assert found.warning == case["warning"]
    assert supervised_spans(found.labels, tokenizer.decode) == case["supervised_spans"]


@pytest.mark.parametrize("case", cases("label_masking", PIECES["cases"], lambda i, c: f"pieces-{named(i, c)}"))
def test_labels_of_pieces_are_those_of_the_released_code(case):
    tokenizer = PieceTokenizer(folder("label_masking") / "tokenizer.json")
    _, flips, _, _, found = labelled(case, tokenizer)
    assert flips == case["flipped"]
    assert found.ids.tolist() == case["input_ids"]
    assert found.labels.tolist() == case["labels"]
    assert found.warning == case["warning"]
    assert supervised_spans(found.labels, tokenizer.decode) == case["supervised_spans"]


def messages_of(prompt):
    """(role, text or None) of a recorded prompt without its system sentence."""
    _, *parts = re.split(r"(?:(?<= )|(?<=</s>))(VUSER|USER|ASSISTANT):", prompt.removeprefix("{system}"))
    texts = [text.removeprefix(" ") for text in parts[1::2]]
    return [(role, text.rstrip(" ").removesuffix("</s>") or None) for role, text in zip(parts[::2], texts, strict=True)]


PROMPTS = [
    {"template": name, "prompt": key} for name, entry in TEMPLATES.items() for key in entry if key.startswith("prompt_")
]


@pytest.mark.parametrize(
    "case",
    cases("conversation_templates", PROMPTS, lambda i, c: f"{c['template']}-{c['prompt'].removeprefix('prompt_')}"),
)
def test_prompts_are_those_of_the_released_templates(case):
    entry = TEMPLATES[case["template"]]
    expected = entry[case["prompt"]]
    messages = messages_of(expected)
    assert {role for role, _ in messages} <= set(entry["roles"])
    released = [(role, text + "</s>" if role == "VUSER" and text else text) for role, text in messages]
    system = entry["system"]
    assert labels.released_two_prompt(released, system).replace(system, "{system}") == expected
    template = replace(load_template("vicuna_v1_sq"), system=system)
    *closed, (last, text) = [(ROLES[role], text) for role, text in messages]
    if text is not None:
        found = template.render([*closed, (last, text)], end=entry["sep2"])
    elif last == ASKER:
        found = template.question_prompt(closed, end=entry["sep2"])
    else:
        found = template.prompt(closed, end=entry["sep2"])
    assert found.text.replace(system, "{system}") == expected


@pytest.mark.parametrize("step", whole("conversation_templates"))
def test_system_texts_are_those_of_the_released_templates(step):
    assert load_template("vicuna_v1").system == TEMPLATES["v1"]["system"]
    assert load_template("vicuna_v1_sq").system == TEMPLATES["v1_sq"]["system"]
    assert TEMPLATES["plain"]["roles"] == ["", ""]
    assert TEMPLATES["plain"]["sep"] == labels.released_plain_prompt([{"value": "<image>"}, {"value": ""}])[-1]


TRANSCRIPTS = read("sq_inference", "transcripts.json") or {}


def replayed(calls, replies):
    """(calls made, error or None) of a released script that is given the recorded replies."""
    made, reply = [], None
    try:
        while True:
            made.append(calls.send(reply))
            reply = replies[len(made) - 1] if len(made) <= len(replies) else ""
    except StopIteration:
        return made, None
    except (AttributeError, ValueError) as error:
        return made, f"{type(error).__name__}: {error}"


def script_of(name, recorded):
    """The released script of a transcript."""
    system, published = "{system}", name.endswith("as_published")
    calls = recorded.get("calls", [])
    asked = sum(call["generate_kwargs"]["do_sample"] for call in calls)
    if name.startswith("demo"):
        return inference.demo_calls(system, n_questions=asked or 1, repaired=not published)
    script = inference.SCIENCE if name.startswith("science") else inference.VQA_LOADER
    # The real question is only on record as the last one of the last prompt.
    question = messages_of(calls[-1]["prompt"].removeprefix("<s>"))[-2][1] if calls else ""
    question = question.removesuffix(script.letter)
    collated = name.startswith("vqa_loader") and "both_repairs" not in name
    return inference.benchmark_calls(
        script, system, pieces, (question,) if collated else question, n_questions=asked, repaired=not published
    )


@pytest.mark.parametrize("name", cases("sq_inference", list(TRANSCRIPTS), lambda i, name: name))
def test_transcripts_are_those_of_the_released_scripts(name):
    recorded = TRANSCRIPTS[name]
    expected = recorded.get("calls", [])
    replies = [call["reply"] for call in expected]
    made, error = replayed(script_of(name, recorded), replies)
    assert error == recorded["error"]
    assert len(made) == recorded.get("calls_made", len(expected))
    for call, own in zip(expected, made, strict=bool(expected)):
        assert own.prompt == call["prompt"]
        assert own.arguments == call["generate_kwargs"]
    if "stdout" in recorded:
        assert inference.demo_output(replies[1:]) == recorded["stdout"]
    for answer in recorded.get("answers", []):
        question = messages_of(expected[-1]["prompt"].removeprefix("<s>"))[-2][1]
        found = inference.answer_row(answer["question_id"], question, replies[-1], answer["model_id"])
        assert found == {key: value for key, value in answer.items() if key != "answer_id"}
