"""ScalSelect's extraction against recorded runs of the released code; beside it what the default does instead."""

import json
import re
from functools import cache

import numpy as np
import pytest
from parity_cases import step_dir
from PIL import Image

from vsel_platform.config import VlmSettings
from vsel_platform.models.llava import load_llava
from vsel_platform.models.templates import IMAGE_TAG, count_images
from vsel_platform.signals.losses import LossRow
from vsel_platform.signals.vision_representations import instruction_places, vision_representations
from vsel_platform.signals.vision_representations_released import released_representations
from vsel_platform.signals.windows import WindowOptions

FOLDER = step_dir("scalselect", "tiny_llava_extract")
CHECKPOINT = FOLDER / "tiny-llava-hf"
STEP = "scalselect/tiny_llava_extract"
TOLERANCE = 1e-4


def read(name):
    path = FOLDER / name
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}


def batch_sizes():
    found = (re.search(r"_bs(\d+)_float32", path.name) for path in FOLDER.glob("all_representations_*.npz"))
    return sorted(int(match[1]) for match in found if match)


BATCH_SIZES = [pytest.param(size, id=f"{STEP}-batch{size}") for size in batch_sizes()]
ITEMS = [pytest.param(item, id=f"{STEP}-{item['key']}") for item in read("internals.json").get("items", [])]


def rows():
    """Entries with an id, as rows of the default."""
    found = {}
    for entry in read("dataset.json"):
        images = [entry["images"]] if isinstance(entry["images"], str) else entry["images"]
        if entry.get("id") is not None:
            turns = [(message["role"], message["content"]) for message in entry["messages"]]
            found[str(entry["id"])] = LossRow(str(entry["id"]), turns, images)
    return found


def has_its_tags(item):
    row = rows()[item["key"].split("_id", 1)[1]]
    return count_images(row.turns) == len(row.images)


# The default refuses rows whose tags and images differ in number.
TAGGED = [param for param in ITEMS if has_its_tags(*param.values)]


@cache
def extracted(batch_size):
    return released_representations(
        CHECKPOINT, read("dataset.json"), FOLDER / "images", batch_size=batch_size, device="cpu"
    )


def released_row(key):
    """(row, vector) of an item such as `bs4_id16`."""
    size, sample_id = re.fullmatch(r"bs(\d+)_id(.*)", key).groups()
    result = extracted(int(size))
    number = result.ids.index(sample_id)
    return result.rows[number], result.vectors[number]


@pytest.mark.parametrize("size", BATCH_SIZES)
def test_vectors_are_those_of_the_released_script(size):
    result = extracted(size)
    with np.load(FOLDER / f"all_representations_bs{size}_float32.npz") as recorded:
        assert result.ids == recorded["sample_ids"].tolist()
        assert result.vectors.dtype == recorded["representations"].dtype
        np.testing.assert_allclose(result.vectors, recorded["representations"], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("item", ITEMS)
def test_tokens_positions_and_choice_are_those_of_the_released_code(item):
    row, vector = released_row(item["key"])
    with np.load(FOLDER / "internals.npz") as recorded:
        assert row.input_ids.tolist() == recorded[f"{item['key']}_input_ids"].tolist()
        labels = np.full(len(row.input_ids), -100)
        labels[row.assistant] = row.input_ids[row.assistant]
        assert labels.tolist() == recorded[f"{item['key']}_assistant_labels"].tolist()
        np.testing.assert_allclose(vector, recorded[f"{item['key']}_repr"], rtol=0, atol=TOLERANCE)
    assert row.text == item["text"]
    assert row.vision.tolist() == item["vision_indices"]
    assert row.user.tolist() == item["user_indices"]
    assert row.attended.tolist() == item["selected_relative"]


@pytest.mark.parametrize("size", BATCH_SIZES)
def test_every_entry_that_the_released_script_drops_has_a_reason(size):
    result, entries = extracted(size), read("dataset.json")
    assert len(result.ids) + len(result.failures) == len(entries)
    reasons = {failure.content_id: failure.reason for failure in result.failures}
    for number, entry in enumerate(entries):
        if entry.get("id") is None:
            assert reasons[f"entry {number}"] == "no_id"
        elif not entry["messages"]:
            assert reasons[str(entry["id"])] == "no_messages"
        elif not entry["images"]:
            assert reasons[str(entry["id"])] == "no_image"


@cache
def default_model():
    settings = VlmSettings(model=str(CHECKPOINT), template="vicuna_v1", dtype="float32", max_tokens=4096)
    return load_llava(settings, "cpu")


@cache
def tokenizer():
    import transformers

    return transformers.AutoTokenizer.from_pretrained(CHECKPOINT)


def words(row, role):
    return squeezed("".join(text for who, text in row.turns if who == role).replace(IMAGE_TAG, ""))


def default_row(sample_id):
    """A row and its tokens as the default sees them."""
    row = rows()[sample_id]
    return row, default_model().render(row.turns, len(row.images))


def decoded(ids):
    return tokenizer().decode(ids)


def squeezed(text):
    """The text without blanks, which tokenizers move around."""
    return "".join(text.split())


@pytest.mark.parametrize("item", TAGGED)
def test_default_takes_an_answer_for_the_answer_even_if_a_question_holds_its_words(item):
    released, _ = released_row(item["key"])
    row, rendered = default_row(released.sample_id)
    question, answer = rendered.input_ids[rendered.is_question], rendered.input_ids[rendered.answer_index >= 0]
    assert squeezed(decoded(question)) == words(row, "user")
    assert squeezed(decoded(answer).replace("</s>", "")) == words(row, "assistant")
    before_answer = released.text.split("ASSISTANT:")[0]
    n_before = len(tokenizer()(before_answer.replace(IMAGE_TAG, IMAGE_TAG * default_model().image_tokens))["input_ids"])
    padding = int((released.input_ids == tokenizer().pad_token_id).sum())
    misplaced = released.assistant[released.assistant < padding + n_before]
    assert set(released.input_ids[misplaced]) <= set(question)


@pytest.mark.parametrize("item", TAGGED)
def test_default_counts_neither_markers_nor_padding(item):
    released, _ = released_row(item["key"])
    row, rendered = default_row(released.sample_id)
    vision = default_model().image_places(rendered)
    assert "USER" in decoded(released.input_ids[released.user])
    behind = np.arange(len(rendered)) > vision[0]
    if (rendered.is_question & behind).any():
        instruction = instruction_places(rendered, vision)
        assert instruction.tolist() == np.flatnonzero(rendered.is_question & behind).tolist()
        assert squeezed(decoded(rendered.input_ids[instruction])) in words(row, "user")
    padding = np.flatnonzero(released.input_ids == tokenizer().pad_token_id)
    assert set(padding) <= set(released.vision)
    assert len(vision) == len(released.vision) - len(padding)


def default_representations(batch_tokens):
    """Vectors and reasons by id."""
    batches = list(
        vision_representations(
            default_model(),
            list(rows().values()),
            lambda name: Image.open(FOLDER / "images" / name),
            options=WindowOptions(batch_tokens=batch_tokens),
        )
    )
    vectors = {value.sample_id: value.vector for batch in batches for value in batch.values}
    return vectors, {failure.content_id: failure.reason for batch in batches for failure in batch.failures}


@pytest.mark.parametrize("size", BATCH_SIZES)
def test_default_has_a_vector_or_a_reason_for_every_row_and_no_batch_changes_them(size):
    (vectors, reasons), (alone, _) = default_representations(4096), default_representations(1)
    result = extracted(size)
    assert sorted([*vectors, *reasons]) == sorted(rows())
    assert set(vectors) <= set(result.ids)
    for sample_id in set(result.ids) - set(vectors):
        assert reasons[sample_id].startswith(("image_", "row_not_renderable"))
    for sample_id, vector in vectors.items():
        np.testing.assert_allclose(vector, alone[sample_id], rtol=0, atol=1e-5)
