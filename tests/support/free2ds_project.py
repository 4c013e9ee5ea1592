"""Settings of the small project for Free2DS: two tiny VLMs, a tiny text encoder, recipes of both modes."""

from pathlib import Path
from typing import Any

SCORES = {"dataset": "shapes", "method": "free2ds", "budget": {"rows": 20}}


def free2ds_settings(models: Path) -> dict[str, Any]:
    """Changes of the project file, by dotted key; the second VLM and the text encoder are saved in `models`."""
    from tiny_bert import save_tiny_bert
    from tiny_llava import save_tiny

    second, bert = models / "second_vlm", models / "bert"
    if not bert.exists():
        save_tiny(second, seed=5)
        save_tiny_bert(bert)
    return {
        "second_vlm": {"model": str(second), "dtype": "float32", "max_tokens": 256},
        "text_encoder": {"name": "huggingface", "model": str(bert)},
        "signals": {"answer_tokens": 4, "attention_grid": 4},
        "recipes": {"free2ds": SCORES, "released": SCORES | {"mode": "released"}},
    }
