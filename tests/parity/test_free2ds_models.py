"""Free2DS's attention stage against a recorded run of the released code; beside each fault what the default does."""

import json

import numpy as np
import pytest
from parity_cases import step_dir
from PIL import Image
from tiny_llava import tiny_adapter

from vsel_platform.methods.free2ds_released_data import ONE_WORD_SUFFIX, first_question, one_word_message
from vsel_platform.models.llava_released import load_released_llava
from vsel_platform.signals import attention_maps as default
from vsel_platform.signals.attention_maps_released import released_attention, released_attention_ids
from vsel_platform.signals.losses import LossRow

STEP = step_dir("free2ds", "tiny_llava_attention")
MODEL = step_dir("presel", "loss_labels")
ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
CASES = [
    pytest.param(file, id=f"free2ds/tiny_llava_attention-{file.stem}")
    for file in sorted(STEP.glob("chunk_*.json"))
    if (STEP / "generate_variant.npz").is_file()
]


def read(path):
    return json.loads(path.read_text("utf-8"))


def recorded():
    """What the released routine made of every entry, by unique_id, and the arrays of it."""
    found = {case["unique_id"]: case for case in read(STEP / "generate_variant.json")}
    with np.load(STEP / "generate_variant.npz") as arrays:
        return found, dict(arrays)


def maps(entries):
    cases, _ = recorded()
    steps = max(case["maps"][0] for case in cases.values() if "maps" in case) + 1
    return released_attention(
        entries,
        MODEL / "llava-tiny-legacy0",
        MODEL / "images",
        vision_tower=MODEL / "clip-tiny",
        max_new_tokens=steps,
        device="cpu",
    )


def default_maps(entries):
    """Ids of the maps and reasons of failure by default, under a model with a fast tokenizer, and the rows."""
    rows = [
        LossRow(
            str(entry["unique_id"]),
            [(ROLES[turn["from"].lower()], turn["value"]) for turn in entry["conversations"]],
            [entry["image"]] if "image" in entry else [],
        )
        for entry in entries
    ]
    batches = list(default.attention_maps(tiny_adapter(), rows, lambda name: Image.open(MODEL / "images" / name)))
    values = [value.sample_id for batch in batches for value in batch.values]
    return values, {f.content_id: f.reason for batch in batches for f in batch.failures}, rows


@pytest.mark.parametrize("file", CASES)
def test_prompts_are_those_of_the_released_code(file):
    model = load_released_llava(MODEL / "llava-tiny-legacy0", vision_tower=MODEL / "clip-tiny", device="cpu")
    cases, arrays = recorded()
    entries = [entry for entry in read(file) if "maps" in cases.get(entry["unique_id"], {})]
    assert entries
    for entry in entries:
        ids = released_attention_ids(entry["conversations"], model)
        assert ids.tolist() == arrays[f"u{entry['unique_id']}_input_ids"].tolist()


@pytest.mark.parametrize("file", CASES)
def test_maps_are_those_of_the_released_routine(file):
    cases, arrays = recorded()
    entries = [entry for entry in read(file) if entry["unique_id"] in cases]
    result = maps(entries)
    assert not result.failures
    assert result.skipped == [e["unique_id"] for e in entries if "skipped" in cases[e["unique_id"]]]
    assert [v.unique_id for v in result.values] == [e["unique_id"] for e in entries if "maps" in cases[e["unique_id"]]]
    for value in result.values:
        name, case = f"u{value.unique_id}", cases[value.unique_id]
        assert list(value.vision) == case["vision"]
        assert list(value.attention.shape) == case["maps"]
        assert value.token_ids.tolist() == arrays[f"{name}_token_ids"].tolist()
        np.testing.assert_allclose(value.attention, arrays[f"{name}_attention"], rtol=0, atol=1e-5)
        np.testing.assert_allclose(value.relative, arrays[f"{name}_relative"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("file", CASES)
def test_where_the_released_script_fails_for_every_image_there_are_maps(file):
    error = read(STEP / "expected_error.json")
    assert error["samples_failed"] == error["samples_with_image"]
    assert error["files_saved"] == 0
    with_image = [entry for entry in read(file) if "image" in entry]
    assert len(maps(with_image).values) == len(with_image)
    values, failures, _ = default_maps(with_image)
    assert values
    assert len(values) + len(failures) == len(with_image)
    assert set(failures.values()) <= {"no_relative_attention"}  # an answer of one token


@pytest.mark.parametrize("file", CASES)
def test_an_entry_without_an_image_is_left_out_silently_and_by_default_a_reported_failure(file):
    entries = read(file)
    without = [entry["unique_id"] for entry in entries if "image" not in entry]
    assert maps(entries).skipped == without
    _, failures, _ = default_maps(entries)
    assert [name for name, reason in failures.items() if reason == "no_image"] == [str(i) for i in without]


@pytest.mark.parametrize("file", CASES)
def test_the_released_prompt_ends_in_a_blank_and_by_default_where_the_answer_begins(file):
    released = load_released_llava(MODEL / "llava-tiny-legacy0", vision_tower=MODEL / "clip-tiny", device="cpu")
    blank, marker = (released.tokenizer.encode(text)[-1] for text in ("a ", "ASSISTANT:"))
    adapter = tiny_adapter()
    *_, rows = default_maps(read(file))
    for entry, row in zip(read(file), rows, strict=True):
        ids = released_attention_ids(entry["conversations"], released)
        assert ids[-1] == blank != marker
        question, _ = default.first_question(row.turns)
        prompt = adapter.render_prompt([("user", question)], 1)
        assert adapter._renderer._tokenizer.decode(prompt.input_ids).endswith(" ASSISTANT:")


@pytest.mark.parametrize("file", CASES)
def test_a_question_that_asks_for_one_word_is_told_so_twice_and_by_default_once(file):
    *_, rows = default_maps(read(file))
    for entry, row in zip(read(file), rows, strict=True):
        question = first_question(entry["conversations"])
        asks = question.rstrip().lower().endswith(default.BRIEF)
        message, (corrected, _) = one_word_message(question), default.first_question(row.turns)
        assert message.lower().count(default.BRIEF) == 1 + asks
        assert corrected.lower().count(default.BRIEF) == 1
        assert message == (corrected + ONE_WORD_SUFFIX if asks else corrected)


@pytest.mark.parametrize("file", CASES)
def test_the_released_token_beside_a_map_is_the_one_before_it(file):
    """The sequence begins with BOS, so the last token that has a map is never named."""
    model = load_released_llava(MODEL / "llava-tiny-legacy0", vision_tower=MODEL / "clip-tiny", device="cpu")
    for value in maps(read(file)).values:
        assert value.token_ids[0] == model.tokenizer.bos_id
        np.testing.assert_allclose(value.relative.sum(axis=1), 1, atol=1e-5)
        assert len(value.token_ids) == len(value.relative) == len(value.attention)
