"""A small store with rows in every table, for tests of the catalog, SQL and garbage collection."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa

from vsel_platform.storage.pointers import Pointer
from vsel_platform.storage.store import Store
from vsel_platform.storage.vectors import VectorStore

DATASET, RECIPE, BENCHMARK, ENCODER, MODEL = "demo", "presel15", "held_out", "e" * 20, "m" * 20
TASKS = ("caption", "colour", "count", "position")
SHARDS = ("demo-0000", "demo-0001")
ROWS = 40


def sample(number: int) -> str:
    """A sample id."""
    return f"{number:064x}"


def image(number: int) -> str:
    """An image id; two rows share an image."""
    return f"{1000 + number // 2:064x}"


FAILED = image(ROWS - 1)  # the one image that has no embedding


def task(number: int) -> str:
    """Task of a row."""
    return TASKS[number % len(TASKS)]


def shard(number: int) -> str:
    """Shard of a row."""
    return SHARDS[number * len(SHARDS) // ROWS]


def build(root: str, *, with_vectors: bool = True) -> Store:
    """Publish 40 rows of one dataset with signals, scores, a selection and an evaluation."""
    from synthetic_evaluation import publish_evaluation

    store = Store(root)
    inputs = [*_samples(store), _manifest(store), *_signals(store), *_scores(store)]
    if with_vectors:
        inputs += _vectors(store)
    _method_scores(store)
    _selection(store, inputs)
    publish_evaluation(store)
    return store


def _samples(store: Store) -> list[Pointer]:
    made = []
    for name in SHARDS:
        numbers = [n for n in range(ROWS) if shard(n) == name]
        turns = [["user", "<image>\nWhat?"], ["assistant", "This."]]
        samples = {
            "sample_id": [sample(n) for n in numbers],
            "conversation": [json.dumps(turns) for _ in numbers],
            "image_ids": [[image(n)] if n % 10 else [] for n in numbers],
            "n_turns": [2 for _ in numbers],
            "n_characters": [10 + n for n in numbers],
            "row_json": [json.dumps({"id": n, "task": task(n)}) for n in numbers],
            "turns_key": pa.nulls(len(numbers), pa.string()),
        }
        made.append(store.publish("samples", {"shard": name}, pa.table(samples), run_id="run-1"))
        ids = sorted({image(n) for n in numbers})
        images = {
            "image_id": ids,
            "path": [f"/images/{i[-4:]}.png" for i in ids],
            "source_path": [f"{i[-4:]}.png" for i in ids],
            "n_bytes": [1000 + n for n in range(len(ids))],
            "width": [64 for _ in ids],
            "height": [64 for _ in ids],
            "format": ["PNG" for _ in ids],
        }
        made.append(store.publish("images", {"shard": name}, pa.table(images), run_id="run-1"))
    return made


def _manifest(store: Store) -> Pointer:
    numbers = [*range(ROWS), 3]  # the last row repeats content
    table = {
        "position": list(range(len(numbers))),
        "sample_id": [sample(n) for n in numbers],
        "shard": [shard(n) for n in numbers],
        "task": [task(n) for n in numbers],
        "source_id": [json.dumps(f"row-{n}") for n in numbers],
        "is_duplicate": [n >= ROWS for n in range(len(numbers))],
        "row_json": pa.nulls(len(numbers), pa.string()),
    }
    quarantine = {
        "position": [41, 42, 43],
        "reason": ["image_missing", "image_missing", "roles_not_alternating"],
        "detail": ["no file a.png", "no file b.png", "turn 2 is user again"],
        "row_json": ["{}", "{}", None],
    }
    store.publish("quarantine", {"dataset": DATASET}, pa.table(quarantine), run_id="run-1")
    return store.publish("manifest", {"dataset": DATASET}, pa.table(table), run_id="run-1")


def _signals(store: Store) -> list[Pointer]:
    reference = [n for n in range(1, ROWS) if n % 10 and n % 7 == 1]
    subset = {
        "sample_id": [sample(n) for n in reference],
        "task": [task(n) for n in reference],
        "image_id": [image(n) for n in reference],
    }
    made = [store.publish("reference_subset", {"dataset": DATASET}, pa.table(subset), run_id="run-2")]
    for name in SHARDS:
        numbers = [n for n in reference if shard(n) == name]
        rows = [(n, condition) for n in numbers for condition in ("full", "no_question")]
        losses = {
            "sample_id": [sample(n) for n, _ in rows],
            "condition": [condition for _, condition in rows],
            "loss_sum": [None if n == 1 else (4.0 + n % 5) * (1 + (c == "no_question")) for n, c in rows],
            "loss_mean": [None if n == 1 else (1.0 + n % 5 / 4) * (1 + (c == "no_question")) for n, c in rows],
            "n_tokens": [0 if n == 1 else 4 for n, _ in rows],
            "entropy_mean": [None if n == 1 else 1.0 for n, _ in rows],
            "el2n_mean": [None if n == 1 else 0.5 for n, _ in rows],
        }
        key = {"fingerprint": MODEL, "shard": name}
        made.append(store.publish("losses", key, pa.table(losses), fingerprint=MODEL, run_id="run-2"))
        failed = {
            "content_id": [FAILED] if name == SHARDS[1] else [],
            "reason": ["unreadable"] if name == SHARDS[1] else [],
            "detail": ["truncated file"] if name == SHARDS[1] else [],
        }
        schema = pa.schema([(column, pa.string()) for column in failed])
        key = {"signal": "image_embeddings", "fingerprint": ENCODER, "shard": name}
        store.publish("signal_failures", key, pa.table(failed, schema=schema), run_id="run-2")
    return made


def _vectors(store: Store) -> list[Pointer]:
    vectors, made = VectorStore(store.files.root_url), []
    for name in SHARDS:
        ids = sorted({image(n) for n in range(ROWS) if shard(n) == name and image(n) != FAILED})
        matrix = np.random.default_rng(len(made)).normal(size=(len(ids), 4)).astype(np.float32)
        state = vectors.replace_shard("image_embeddings", ENCODER, name, ids, matrix)
        made.append(
            store.publish_pointer(
                "image_embeddings",
                {"fingerprint": ENCODER, "shard": name},
                rows=len(ids),
                data_version=f"v{state.version}",
                fingerprint=ENCODER,
                run_id="run-2",
                metadata={"lance_table": state.table, "lance_version": state.version, "dimension": 4},
            )
        )
    return made


def _scores(store: Store) -> list[Pointer]:
    key = {"dataset": DATASET, "mode": "default"}
    tasks = {
        "task": list(TASKS),
        "n_rows": [10] * 4,
        "n_reference": [2, 1, 2, 0],
        "n_relevance": [2, 1, 1, 0],
        "difficulty": [0.9, 0.5, 0.7, None],
    }
    scores = {
        "sample_id": [sample(n) for n in range(ROWS)],
        "task": [task(n) for n in range(ROWS)],
        "image_id": [image(n) if n % 10 else None for n in range(ROWS)],
        "is_reference": [bool(n % 10 and n % 7 == 1) for n in range(ROWS)],
        "relevance": [0.5 if n % 10 and n % 7 == 1 else None for n in range(ROWS)],
        "cluster": [n % 3 if n % 10 else None for n in range(ROWS)],
        "typicality": [(n * 37 % 100) / 100 if n % 10 else None for n in range(ROWS)],
    }
    return [
        store.publish("presel_tasks", key, pa.table(tasks), run_id="run-3"),
        store.publish("presel_scores", key, pa.table(scores), run_id="run-3"),
    ]


def _method_scores(store: Store) -> None:
    ids = range(ROWS)
    for score, column in {"vig": "gain", "perplexity": "perplexity"}.items():
        rows = {
            "sample_id": [sample(n) for n in ids],
            "task": [task(n) for n in ids],
            "image_id": [image(n) if n % 10 else None for n in ids],
            "value": [n / 10 if n % 10 else None for n in ids],
            "details": [json.dumps({column: n / 5}) for n in ids],
        }
        key = {"dataset": DATASET, "score": score, "variant": "default"}
        own = {"columns": [[column, "float64", "nat/token", "The score's own."]]}
        store.publish("method_scores", key, pa.table(rows), run_id="run-3", metadata=own)


def _selection(store: Store, inputs: list[Pointer]) -> None:
    chosen = [n for n in range(ROWS) if n % 10][:8]
    lineage = {"run_id": "run-4", "inputs": sorted(p.reference for p in inputs), "input_fingerprint": "i" * 20}
    subset = {
        "rank": list(range(1, 9)),
        "round": [1] * 8,
        "sample_id": [sample(n) for n in chosen],
        "position": chosen,
        "task": [task(n) for n in chosen],
        "stratum": ["image"] * 8,
        "reason": ["reference" if n % 7 == 1 else "typical" for n in chosen],
        "score": [n / 10 for n in range(8)],
        "cluster": [n % 3 for n in chosen],
    }
    tasks = {
        "task": list(TASKS),
        "n_available": [9] * 4,
        "n_reference": [2, 1, 2, 0],
        "difficulty": [0.9, 0.5, 0.7, None],
        "weight": [0.4, 0.2, 0.3, 0.1],
        "budget": [2, 1, 2, 1],
        "n_selected": [2, 1, 2, 1],
    }
    key = {"recipe": RECIPE}
    store.publish("selected_subset", key, pa.table(subset), **lineage)
    store.publish("selected_tasks", key, pa.table(tasks), **lineage)
    publish_manifest(store, lineage["inputs"])


def publish_manifest(store: Store, inputs: list[str]) -> Pointer:
    """Publish a selection's artifact with a manifest that names its inputs."""
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "manifest.json").write_text(json.dumps({"recipe": RECIPE, "inputs": inputs}))
        return store.publish_artifact("selection", {"recipe": RECIPE}, Path(name), run_id="run-4", inputs=inputs)
