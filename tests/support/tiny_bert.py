"""A tiny random BERT as a checkpoint directory."""

from pathlib import Path

WORDS = ["what", "is", "the", "name", "colour", "count", "say", "number", "where", "."]


def save_tiny_bert(directory: Path, *, seed: int = 0) -> Path:
    """BERT of width 16 and two layers with a word-piece vocabulary of a few words and the digits."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    directory.mkdir(parents=True, exist_ok=True)
    digits = [*"0123456789", *(f"##{digit}" for digit in range(10))]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "?", *WORDS, *digits]
    BertTokenizer(vocab={token: i for i, token in enumerate(tokens)}).save_pretrained(directory)
    config = BertConfig(
        vocab_size=len(tokens), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        initializer_range=0.3,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        BertModel(config).save_pretrained(directory)
    return directory
