"""Model cards."""

import yaml

from vsel_platform.config import VlmSettings
from vsel_platform.config_training import LoraSettings
from vsel_platform.identity import hash_ids
from vsel_platform.training.model_card import model_card


def card(**changes):
    given = {
        "base_fingerprint": "f00d",
        "sample_ids": ["b", "a"],
        "n_skipped": 3,
        "first_epoch_loss": 2.5,
        "last_epoch_loss": 1.25,
        "origin": {},
        **changes,
    }
    return model_card(VlmSettings(model="org/base", revision="abc"), LoraSettings(rank=7), **given)


def test_the_card_says_what_the_adapter_was_made_from():
    text = card()
    for fact in ("org/base (revision: abc)", "f00d", hash_ids(["a", "b"]), "| rank | 7 |", "2.5000", "1.2500", "| 3 |"):
        assert fact in text
    assert "licence of the base" in text


def test_the_header_is_valid_metadata():
    header = yaml.safe_load(card().split("---")[1])
    assert header == {
        "base_model": "org/base",
        "library_name": "peft",
        "tags": ["lora", "visual-instruction-tuning"],
    }


def test_the_order_of_ids_does_not_matter():
    assert card() == card(sample_ids=["a", "b"])


def test_the_card_says_where_the_rows_come_from():
    text = card(origin={"recipe": "mine|\nyours", "hash of the selection": "beef"})
    assert "| recipe | mine\\| yours |\n| hash of the selection | beef |\n| rows trained on | 2 |" in text
