"""The tokenizer of a vision-language model, without its weights."""

from typing import Any

from vsel_platform.config import VlmSettings

EMBEDDED = "embedded:"


def load_tokenizer(settings: VlmSettings) -> Any:
    """Fast tokenizer of the model that the settings name. Raises OSError if the model is not there."""
    if settings.model.startswith(EMBEDDED):
        from vsel_platform.demo.vlm import embedded_directory, load_base

        return load_base("cpu", embedded_directory(settings.model))[1].tokenizer
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(settings.place, revision=settings.revision)
