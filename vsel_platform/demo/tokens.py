"""The demo's tokenizer: byte-level BPE, trained on the demo's texts."""

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from vsel_platform.demo.vlm import BOS, EOS, IMAGE, PAD


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """A BPE tokenizer over bytes, so that it can write every text; a row begins with `<s>`.

    Every line begins with a space for the tokenizer: a word has one token whether it starts an answer or not.
    """
    tokenizer = Tokenizer(models.BPE())
    # The stubs of tokenizers know these attributes as read-only properties.
    lines = pre_tokenizers.Split(Regex("\n"), "isolated")
    words = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([lines, words])  # type: ignore[assignment]
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, BOS, EOS, IMAGE],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((f"{text}\n" for text in texts), trainer)
    start = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, tokenizer.token_to_id(BOS))])
    tokenizer.post_processor = start  # type: ignore[assignment]
    return tokenizer
