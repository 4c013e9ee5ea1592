"""A token of its own for the virtual user, in place of the words "VUSER:".

The token only ever stands in a header, which is never a target: so only its row of the input embeddings has to learn,
and LoRA can leave all other rows frozen (`trainable_token_indices` of peft's LoraConfig). The row of an
output layer of its own is set to the mean of all rows, so that the untrained token is never a likely answer.
An adapter that was trained with the token says so (`models.lora_adapter.AdapterExtras`).
"""

from typing import Any

from vsel_platform.errors import ModelError

VIRTUAL_USER = "<vuser>"
WORDS = "VUSER:"


def add_dedicated_token(model: Any, tokenizer: Any, token: str = VIRTUAL_USER) -> int:
    """Add `token` to tokenizer and model, in place; its id, for `LoraConfig(trainable_token_indices=[id])`.

    The embedding starts as the mean of those of `WORDS`: training begins from what the words mean. Spare rows that
    many checkpoints have behind their vocabulary are used before the matrices grow. A model that was trained with the
    token needs the same call before its adapter is loaded. Raises ModelError if the tokenizer has the token already.
    """
    import torch
    from tokenizers import AddedToken

    if token in tokenizer.get_vocab():
        raise ModelError(f"self-questioning: the tokenizer has a token {token!r} already; name another")
    words = tokenizer(WORDS, add_special_tokens=False)["input_ids"]
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False)], special_tokens=True)
    number = int(tokenizer.convert_tokens_to_ids(token))
    rows = model.get_input_embeddings().weight.shape[0]
    if number >= rows:
        model.resize_token_embeddings(number + 1, mean_resizing=False)
    inputs, outputs = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    with torch.no_grad():
        if outputs is not inputs:
            outputs[number] = outputs[:rows].float().mean(dim=0).to(outputs.dtype)
        inputs[number] = inputs[words].float().mean(dim=0).to(inputs.dtype)
    return number
