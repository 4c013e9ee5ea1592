"""The released extraction on a tiny checkpoint: what it takes for image, answer and instruction."""

import shutil

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny_llava import IMAGE_TOKENS, conversation, picture, save_tiny, tiny_image_processor, tiny_tokenizer

from vsel_platform.config import VlmSettings
from vsel_platform.errors import ModelError
from vsel_platform.models.llava import load_llava
from vsel_platform.signals.vision_representations_released import answer_positions, released_representations

TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    "{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}{{ '<image>\n' }}{% else %}{{ content['text'] + ' ' }}{% endif %}"
    "{% endfor %}{% endfor %}"
)
TOKENIZER = tiny_tokenizer()
IMAGE_ID = TOKENIZER.convert_tokens_to_ids("<image>")


def save_checkpoint(directory, tokenizer):
    """The tiny model with a processor."""
    from transformers import LlavaProcessor

    LlavaProcessor(
        tiny_image_processor(),
        tokenizer,
        patch_size=14,
        num_additional_image_tokens=1,
        vision_feature_select_strategy="default",
        chat_template=TEMPLATE,
    ).save_pretrained(save_tiny(directory))
    return directory


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    from transformers import PreTrainedTokenizerFast

    # The released code knows an image token by this name, or by an id behind the vocabulary.
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=TOKENIZER.backend_tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        extra_special_tokens={"image_token": "<image>"},
    )
    return save_checkpoint(tmp_path_factory.mktemp("checkpoint"), tokenizer)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for name in "abc":
        picture(name).save(folder / f"{name}.png")
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


def entry(entry_id, *texts, images=("a.png",)):
    messages = [{"role": role, "content": text} for role, text in conversation(*texts)]
    return {"id": entry_id, "messages": messages, "images": images if isinstance(images, str) else list(images)}


ENTRIES = [
    entry(1, "<image>\nWhat colour is the bus?", "It is red."),
    entry("2", "<image>\nanswer: red red", "red", "How many people?", "red", images="b.png"),
    entry(3, "<image> and <image>", "A dog.", images=("a.png", "c.png")),
    entry(4, "Describe the picture in detail.\n<image>", "There is a dog on a mat, and a cat."),
    entry(5, "<image>\nWhere?", "  On the street. \n", images=("c.png",)),
]


def run(checkpoint, images, entries=ENTRIES, **options):
    return released_representations(checkpoint, entries, images, device="cpu", **options)


@pytest.fixture(scope="module")
def result(checkpoint, images):
    return run(checkpoint, images)


def naive(checkpoint, images, row, names, threshold=0.9):
    """Vector of one row by all layers and maps, as the released code takes it."""
    model = load_llava(VlmSettings(model=str(checkpoint), template="plain", dtype="float32"), "cpu")
    model.model.set_attn_implementation("eager")
    pixels = [model.preprocess(Image.open(images / name)) for name in names]
    with torch.inference_mode():
        output = model.model(
            input_ids=torch.from_numpy(row.input_ids)[None],
            pixel_values=torch.from_numpy(np.stack(pixels)),
            output_attentions=True,
            output_hidden_states=True,
        )
    shares = output.attentions[0][0].mean(0)[row.user][:, row.vision].mean(0)
    ordered, order = (shares / shares.sum()).sort(descending=True)
    count = min(int((ordered.cumsum(0) <= threshold).sum()) + 1, len(row.vision))
    return output.hidden_states[1][0][torch.from_numpy(row.vision)[order[:count]]].mean(0), count


def test_vectors_are_those_of_all_layers_and_maps(checkpoint, images, result):
    assert result.ids == ["1", "2", "3", "4", "5"]
    assert (result.vectors.shape, result.vectors.dtype) == ((5, 32), np.float32)
    for row, vector, given_entry in zip(result.rows, result.vectors, ENTRIES, strict=True):
        names = given_entry["images"] if isinstance(given_entry["images"], list) else [given_entry["images"]]
        expected, count = naive(checkpoint, images, row, names)
        assert len(row.attended) == count
        np.testing.assert_allclose(vector, expected, atol=1e-5)


def test_every_position_is_image_or_answer_or_instruction(result):
    for row in result.rows:
        together = np.concatenate([row.vision, row.user, row.assistant])
        assert sorted(together.tolist()) == list(range(len(row.input_ids)))
        assert set(row.input_ids[row.vision]) == {IMAGE_ID}
        assert len(row.vision) == IMAGE_TOKENS * row.text.count("<image>")
        assert set(row.attended) <= set(range(len(row.vision)))


def test_tags_move_to_the_front(result):
    assert result.rows[3].text.startswith("USER: <image>\nDescribe the picture")
    assert result.rows[2].text.startswith("USER: <image>\n<image>\nand")


def test_markers_and_answers_that_are_not_found_count_as_instruction(result):
    row = result.rows[0]
    assert "ASSISTANT" in TOKENIZER.decode(row.input_ids[row.user])
    # "It" stands behind a blank in the prompt, which is another token than at the start of the answer.
    assert row.assistant.tolist() == []


def test_the_words_of_a_question_are_taken_for_the_answer_that_they_repeat(checkpoint, images):
    """The default takes the answer from the template instead."""
    given_entry = entry(1, "<image>\nIs it x? no:x", "x")
    (row,) = run(checkpoint, images, [given_entry]).rows
    question = row.text.split("ASSISTANT")[0].replace("<image>", "<image>" * IMAGE_TOKENS)
    assert TOKENIZER.decode(row.input_ids[row.assistant]) == "x"
    assert row.assistant[0] < len(TOKENIZER(question)["input_ids"])
    turns = [(message["role"], message["content"]) for message in given_entry["messages"]]
    default = load_llava(VlmSettings(model=str(checkpoint), dtype="float32"), "cpu").render(turns, 1)
    assert TOKENIZER.decode(default.input_ids[default.answer_index == 0]).strip() == "x</s>"
    assert TOKENIZER.decode(default.input_ids[default.is_question]) == "\nIs it x? no:x"


@pytest.mark.parametrize("batch_size", [2, 3, 9])
def test_batches_pad_on_the_left_and_change_no_vector(checkpoint, images, result, batch_size):
    batched = run(checkpoint, images, batch_size=batch_size)
    np.testing.assert_allclose(batched.vectors, result.vectors, atol=1e-5)
    for row, alone in zip(batched.rows, result.rows, strict=True):
        lead = len(row.input_ids) - len(alone.input_ids)
        assert set(row.input_ids[:lead]) <= {TOKENIZER.pad_token_id}
        assert (row.assistant - lead).tolist() == alone.assistant.tolist()
        assert [row.vision[i] - lead for i in row.attended] == [alone.vision[i] for i in alone.attended]
    for start in range(0, len(ENTRIES), batch_size):
        assert len({len(row.input_ids) for row in batched.rows[start : start + batch_size]}) == 1


def test_dropped_entries_have_a_reason_and_those_after_them_a_vector(checkpoint, images, result):
    dropped = [
        {"messages": ENTRIES[0]["messages"], "images": ["a.png"]},
        {"id": 7, "messages": [], "images": ["a.png"]},
        entry(8, "hi", "there", images=()),
        entry(9, "<image>", "x", images=("nothing.png",)),
        entry(10, "<image>", "x", images="broken.png"),
    ]
    found = run(checkpoint, images, [*dropped, ENTRIES[0]])
    assert [(f.content_id, f.reason) for f in found.failures] == [
        ("entry 0", "no_id"),
        ("7", "no_messages"),
        ("8", "no_image"),
        ("9", "no_image"),
        ("10", "no_image"),
    ]
    assert "FileNotFoundError" in found.failures[3].detail
    assert found.ids == ["1"]
    np.testing.assert_allclose(found.vectors, result.vectors[:1], atol=1e-6)


def test_of_several_images_those_that_open_are_used(checkpoint, images):
    found = run(checkpoint, images, [entry(1, "<image><image>hi", "x", images=("broken.png", "b.png"))])
    assert found.rows[0].text.count("<image>") == 1
    assert not found.failures


def test_an_entry_that_cannot_be_processed_takes_its_batch_with_it(checkpoint, images):
    bad = {"id": 6, "messages": [{"content": "no role"}], "images": ["a.png"]}
    found = run(checkpoint, images, [ENTRIES[0], bad, ENTRIES[2]], batch_size=2)
    assert found.ids == ["3"]
    assert [(f.content_id, f.reason) for f in found.failures] == [("1", "batch_failed"), ("6", "batch_failed")]
    assert "KeyError: 'role'" in found.failures[0].detail


def test_a_row_cut_inside_its_image_is_dropped(checkpoint, images):
    found = run(checkpoint, images, ENTRIES[:1], max_length=6)
    assert (found.ids, found.vectors.shape) == ([], (0, 32))
    assert "Mismatch in `image` token count" in found.failures[0].detail


def test_a_template_without_image_tags_is_noticed(checkpoint, images, tmp_path):
    copy = shutil.copytree(checkpoint, tmp_path / "copy")
    (copy / "chat_template.jinja").write_text("{% for m in messages %}{{ m['role'] }} {% endfor %}", "utf-8")
    found = run(copy, images, ENTRIES[:1])
    assert [f.reason for f in found.failures] == ["batch_failed"]


def test_an_image_token_that_the_released_code_does_not_know_drops_the_row(images, tmp_path):
    found = run(save_checkpoint(tmp_path, tiny_tokenizer()), images, ENTRIES[:1])
    assert [(f.content_id, f.reason) for f in found.failures] == [("1", "no_positions")]
    assert found.ids == []


def test_a_checkpoint_without_processor_is_named(images, tmp_path):
    with pytest.raises(ModelError, match="the processor"):
        run(save_tiny(tmp_path), images)


def test_no_entries_give_no_vectors(checkpoint, images):
    assert run(checkpoint, images, []).vectors.shape == (0, 32)


@pytest.mark.parametrize(
    ("ids", "answers", "start", "expected"),
    [
        ([1, 2, 3, 2, 3], [[2, 3]], 0, [1, 2]),
        ([1, 2, 3, 2, 3], [[2, 3]], 2, [3, 4]),
        ([1, 2, 3, 2, 3], [[2, 3], [2, 3]], 0, [1, 2, 3, 4]),
        ([1, 2, 3], [[3], [2]], 0, [2]),
        ([1, 2, 3], [[9], [2]], 0, [1]),
        ([1, 2, 3], [[], [1]], 0, [0]),
        ([1], [[1, 2]], 0, []),
        ([1, 1, 1], [[1, 1], [1]], 0, [0, 1, 2]),
    ],
)
def test_answers_are_found_one_behind_the_other(ids, answers, start, expected):
    assert answer_positions(ids, answers, start).tolist() == expected


tokens = st.lists(st.integers(0, 3), max_size=6)


@given(st.lists(st.tuples(tokens, tokens), max_size=4))
def test_answers_that_occur_nowhere_else_are_found_where_they_are(pairs):
    ids, expected, answers = [], [], []
    for turn, (question, answer) in enumerate(pairs, start=1):
        answers.append([100 * turn + token for token in answer])
        ids += question
        expected += range(len(ids), len(ids) + len(answer))
        ids += answers[-1]
    assert answer_positions(ids, answers).tolist() == expected
