"""10,000 fuzzed rows: no crash, every row accepted or refused with a reason."""

import copy
import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vsel_platform.config import DatasetSettings, ImageSettings
from vsel_platform.samples.ingest import ingest
from vsel_platform.samples.sample import REASONS, Reason

FORMATS = ("llava", "sharegpt", "vision_flan", "huggingface")
EXAMPLES, ROWS_EACH = 200, 50

SCALARS: list[Any] = [None, True, 0, -1, 1.5, 2**70, math.nan, math.inf, "", "x", "\ud800", "é\0", "a" * 5_000]
PATHS: list[Any] = ["ok.png", "../up.png", "/etc/passwd", "a\0b", "http://x/y.png", "link.png", "text.png", "gone.png"]
MORE: list[Any] = [".", "<image>", "ok.png/x", " "]


def good_row(rng: random.Random, form: str, number: int) -> dict[str, Any]:
    chat = form in ("sharegpt", "huggingface")
    role, text, users = ("role", "content", ("user", "assistant")) if chat else ("from", "value", ("human", "gpt"))
    has_image = rng.random() < 0.7
    turns = []
    for i in range(2 * rng.randint(1, 3)):
        tag = "<image>\n" if has_image and i == 0 else ""
        turns.append({role: users[i % 2], text: f"{tag}text {number} {i}"})
    row: dict[str, Any] = {"id": number, "messages" if chat else "conversations": turns, "task_name": "t"}
    if has_image:
        row["images" if chat else "image"] = ["ok.png"] if chat else "ok.png"
    return row


def junk(rng: random.Random, depth: int = 0) -> Any:
    kind = rng.random()
    if kind < 0.6 or depth > 3:
        return rng.choice(SCALARS + PATHS + MORE)
    if kind < 0.8:
        return [junk(rng, depth + 1) for _ in range(rng.randint(0, 3))]
    return {rng.choice(["id", "from", "value", "role", "path", "bytes", "é"]): junk(rng, depth + 1) for _ in range(2)}


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a value."""
    found: list[tuple[Any, Any]] = []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found.append((value, key))
        found.extend(places(item))
    return found


def mutate(rng: random.Random, row: Any) -> Any:
    row = copy.deepcopy(row)
    for _ in range(rng.randint(1, 3)):
        found = places(row)
        if not found:
            break
        container, key = rng.choice(found)
        action = rng.random()
        if action < 0.4:
            container[key] = junk(rng)
        elif action < 0.6:
            del container[key]
        elif action < 0.8 and isinstance(container, list):
            container.insert(rng.randint(0, len(container)), copy.deepcopy(rng.choice(container)))
        elif isinstance(container, dict):
            container[rng.choice(["image", "images", "conversations", "messages", "texts", "id"])] = junk(rng)
    return row


def damage(rng: random.Random, text: str) -> str:
    """One row's text with characters changed, nested too deep, or cut."""
    kind = rng.random()
    if kind < 0.3:
        return "[" * 5_000
    if kind < 0.6:
        return text[: rng.randint(1, len(text))]
    at = rng.randrange(len(text))
    return text[:at] + rng.choice('{}[]",:\\x\x01') + text[at + 1 :]


def fuzzed_row(rng: random.Random, form: str, number: int) -> str:
    row = good_row(rng, form, number)
    kind = rng.random()
    if kind < 0.2:
        return json.dumps(row)
    if kind < 0.8:
        return json.dumps(mutate(rng, row))
    return json.dumps(junk(rng)) if kind < 0.9 else damage(rng, json.dumps(row)).replace("\n", "")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from PIL import Image

    folder = tmp_path_factory.mktemp("images")
    Image.new("RGB", (2, 2)).save(folder / "ok.png")
    (folder / "text.png").write_text("no image")
    (folder / "link.png").symlink_to("/etc/passwd")
    return folder


@settings(max_examples=EXAMPLES, deadline=None)
@given(seed=st.integers(0, 2**32), form=st.sampled_from(FORMATS), check=st.sampled_from(["header", "none"]))
def test_fuzzed_lines_are_all_accounted_for(
    images: Path, new_sink: Callable[[], Any], seed: int, form: str, check: str
) -> None:
    rng = random.Random(seed)
    texts = [fuzzed_row(rng, form, number) for number in range(ROWS_EACH)]
    (images / "rows.jsonl").write_text("\n".join(texts), "utf-8", "surrogatepass")
    sink = new_sink()
    report = ingest(source_settings(images / "rows.jsonl", form, check), sink, dataset="d", workers=0)
    assert report.n_rows == ROWS_EACH
    check_everything(report, sink)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32), form=st.sampled_from(FORMATS))
def test_fuzzed_arrays_lose_no_good_row(images: Path, new_sink: Callable[[], Any], seed: int, form: str) -> None:
    rng = random.Random(seed)
    good = [rng.random() < 0.5 for _ in range(20)]
    rows = [good_row(rng, form, number) for number in range(20)]
    texts = [json.dumps(row if ok else mutate(rng, row)) for row, ok in zip(rows, good, strict=True)]
    broken = rng.randrange(1, 19)
    texts[broken] = damage(rng, json.dumps(good_row(rng, form, 99)))
    (images / "rows.json").write_text("[" + ", ".join(texts) + "]", "utf-8")
    sink = new_sink()
    report = ingest(source_settings(images / "rows.json", form, "none"), sink, dataset="d", workers=0)
    check_everything(report, sink)
    ids = {row["source_id"] for row in sink.manifest_rows}
    assert [n for n in range(20) if good[n] and abs(n - broken) > 1 and str(n) not in ids] == []


def source_settings(path: Path, form: str, check: str) -> DatasetSettings:
    images = ImageSettings.model_validate({"check": check})
    return DatasetSettings.model_validate({"source": str(path), "format": form, "images": images, "shard_rows": 7})


def check_everything(report: Any, sink: Any) -> None:
    """Every position is in the manifest or in quarantine, once, and every reason has a meaning."""
    accepted = [row["position"] for row in sink.manifest_rows]
    refused = [row["position"] for row in sink.quarantine_rows]
    assert sorted(accepted + refused) == list(range(report.n_rows))
    assert report.n_accepted + report.n_rejected == report.n_rows
    for row in sink.quarantine_rows:
        assert REASONS[Reason(row["reason"])]
        assert row["detail"]
    for row in sink.manifest_rows:
        assert row["sample_id"] in sink.sample_rows
        assert json.loads(row["row_json"] or sink.sample_rows[row["sample_id"]]["row_json"])
