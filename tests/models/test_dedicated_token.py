"""A token of its own for the virtual user, trained beside LoRA."""

import peft
import pytest
import torch
from tiny_llava import conversation, tiny_model, tiny_tokenizer

from vsel_platform.errors import ModelError
from vsel_platform.models.dedicated_token import add_dedicated_token
from vsel_platform.models.rendering import Renderer
from vsel_platform.models.templates import load_template
from vsel_platform.training.self_questioning import with_questions_asked


def test_the_embedding_starts_as_the_words_and_the_token_is_no_likely_answer():
    model, tokenizer = tiny_model(), tiny_tokenizer()
    words = tokenizer("VUSER:", add_special_tokens=False)["input_ids"]
    head = model.lm_head.weight.clone()
    number = add_dedicated_token(model, tokenizer)
    embeddings = model.get_input_embeddings().weight
    assert number == len(head) == len(embeddings) - 1
    assert tokenizer("a<vuser> b", add_special_tokens=False)["input_ids"].count(number) == 1
    torch.testing.assert_close(embeddings[number], embeddings[words].mean(0))
    torch.testing.assert_close(model.lm_head.weight[number], head.mean(0))
    torch.testing.assert_close(model.lm_head.weight[:number], head)


def test_spare_rows_are_used_before_the_matrices_grow():
    model, tokenizer = tiny_model(), tiny_tokenizer()
    model.resize_token_embeddings(len(tokenizer) + 8)
    before = model.lm_head.weight[: len(tokenizer)].clone()
    number = add_dedicated_token(model, tokenizer)
    assert number == len(before)
    assert len(model.lm_head.weight) == len(before) + 8


def test_a_token_that_is_there_already_is_refused():
    with pytest.raises(ModelError, match="'<image>' already"):
        add_dedicated_token(tiny_model(), tiny_tokenizer(), "<image>")


def test_only_its_row_learns_beside_lora_and_merging_keeps_it():
    model, tokenizer = tiny_model(), tiny_tokenizer()
    number = add_dedicated_token(model, tokenizer)
    before = model.get_input_embeddings().weight.clone()
    config = peft.LoraConfig(r=2, target_modules=r".*language_model.*q_proj", trainable_token_indices=[number])
    wrapped = peft.get_peft_model(model, config)
    template = load_template("vicuna_v1_sq").with_asker("<vuser>")
    image = tokenizer.convert_tokens_to_ids("<image>")
    renderer = Renderer(tokenizer, template, image_token_id=image, image_tokens=4, max_tokens=500)
    row = renderer.render(with_questions_asked(conversation("What?", "Red.", "How many?", "Two"), [2]), 0)
    assert number in row.input_ids
    assert row.answer_index[row.input_ids == number].tolist() == [-1]
    ids = torch.from_numpy(row.input_ids)[None]
    optimizer = torch.optim.SGD([p for p in wrapped.parameters() if p.requires_grad], lr=0.1)
    wrapped(input_ids=ids, labels=torch.from_numpy(row.labels)[None]).loss.backward()
    optimizer.step()
    after = wrapped.merge_and_unload().get_input_embeddings().weight
    changed = (after != before).any(1).nonzero().flatten().tolist()
    assert changed == [number]


def test_the_template_with_the_token_has_a_name_of_its_own():
    template = load_template("vicuna_v1_sq").with_asker("<vuser>")
    text = template.render([("vuser", "Why?"), ("assistant", "So.")], end="</s>").text
    assert text.endswith(" <vuser> Why?</s> ASSISTANT: So.</s>")
    assert repr(template) != repr(load_template("vicuna_v1_sq"))
