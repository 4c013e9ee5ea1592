import json
from pathlib import Path

from vsel_platform.demo.base_card import write_card


def test_the_card_holds_what_was_done_and_measured(tmp_path: Path) -> None:
    write_card(
        tmp_path,
        "python -m some.script",
        settings={"vocabulary": 2500, "batch_rows": 16, "learning_rate": 0.003},
        report={
            "trained_parameters": 1234567,
            "rows": 10,
            "pictures": 5,
            "steps": 20,
            "train_seconds": 30.4,
            "feature_seconds": 2.0,
            "threads": 2,
        },
        scores={"name": {"answers": 60, "exact_match": 0.125, "loss": 3.456}},
        packages={"pillow": "1.0"},
    )
    card = json.loads((tmp_path / "card.json").read_text("utf-8"))
    assert card["settings"]["vocabulary"] == 2500
    assert card["packages"]["pillow"] == "1.0"
    text = (tmp_path / "README.md").read_text("utf-8")
    assert "| name | 60 | 0.125 | 3.46 |" in text
    assert "python -m some.script" in text
    assert "1,234,567 trained parameters" in text
