"""A small published store for tests of reports: every table that they read, and vectors that lie in memory."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from vsel_platform.config import parse_project
from vsel_platform.config_evaluation import BASE
from vsel_platform.evaluation.benchmark import Judgement
from vsel_platform.evaluation.metric_rows import metric_rows
from vsel_platform.pipeline.benchmarks import read_benchmark
from vsel_platform.pipeline.context import Context
from vsel_platform.pipeline.losses import partition as loss_partition
from vsel_platform.pipeline.measured import stored_measures
from vsel_platform.pipeline.models import embedding_fingerprint
from vsel_platform.reports.html import selection_page
from vsel_platform.reports.selection_report import selection_report
from vsel_platform.tables import TABLES

PROJECT = """
name: reports
store: store
datasets: {shapes: {source: rows.json}, spare: {source: spare.json}}
recipes:
  typical: {dataset: shapes, budget: {percent: 25}}
  drawn: {dataset: shapes, method: random, budget: {rows: 12}}
  waiting: {dataset: spare}
benchmarks: {held_out: {format: rows, questions: held_out.json}}
evaluation: {resamples: 200}
"""
TASKS = ("colour", "count", "<b>side|way</b>")
SHARDS = ("one", "two")
N_IMAGES = 48
NASTY = '<script>alert("$5")</script>'


class FakeVectors:
    """Vectors by image id, read as from the vector store; `requested` counts the ids asked for."""

    def __init__(self, vectors: dict[str, np.ndarray]) -> None:
        self.vectors = vectors
        self.requested = 0

    def read(self, signal: str, fingerprint: str, ids: Sequence[str] | None) -> tuple[list[str], np.ndarray]:
        assert signal == "image_embeddings"
        assert fingerprint
        wanted = list(self.vectors) if ids is None else [i for i in ids if i in self.vectors]
        self.requested += len(wanted)
        matrix = np.array([self.vectors[i] for i in wanted[::-1]], np.float32)
        return wanted[::-1], matrix if wanted else np.empty((0, 0), np.float32)


NO_ENTROPY = {"entropy_mean": None, "el2n_mean": None}


def sha(text: str) -> str:
    """An identity as the store has them."""
    return hashlib.sha256(text.encode()).hexdigest()


def rows_of(name: str) -> pa.Schema:
    """Schema of a table."""
    return TABLES[name].arrow_schema()


def content(index: int) -> dict[str, Any]:
    """Row `index`: every image has one row, every sixth image a second one; the last four rows are text only."""
    text_only = index >= N_IMAGES + N_IMAGES // 6
    image = index if index < N_IMAGES else (index - N_IMAGES) * 6
    question = f"{NASTY} what is number {index}?"
    turns = [["user", question if text_only else f"<image>\n{question}"], ["assistant", f"It is {index}."]]
    return {
        "sample_id": sha(f"row {index}"),
        "task": "text" if text_only else TASKS[image % len(TASKS)],
        "image_ids": [] if text_only else [sha(f"image {image}")],
        "shard": SHARDS[image % len(SHARDS)],
        "conversation": json.dumps(turns),
        "position": index,
        "typicality": None if text_only else ((image * 7) % 50) / 50,
    }


def contents() -> list[dict[str, Any]]:
    """All rows."""
    return [content(index) for index in range(N_IMAGES + N_IMAGES // 6 + 4)]


def publish(ctx: Context, table: str, partition: dict[str, str], rows: list[dict[str, Any]], **lineage: Any) -> None:
    """Publish rows; columns that a row lacks are NULL."""
    names = TABLES[table].column_names
    filled = [{name: row.get(name) for name in names} for row in rows]
    ctx.store.publish(table, partition, pa.Table.from_pylist(filled, schema=rows_of(table)), **lineage)


def report_context(directory: Path) -> Context:
    """A project in `directory` with an empty store and no vectors."""
    ctx = Context(parse_project(PROJECT, base_dir=str(directory)))
    ctx.__dict__["vectors"] = FakeVectors({})
    return ctx


def publish_content(ctx: Context, directory: Path) -> None:
    """Manifest, quarantine, samples, images, embeddings. The picture of image 0 cannot be read."""
    rows = contents()
    manifest = [row | {"is_duplicate": False} for row in rows]
    manifest += [row | {"position": 100 + i, "is_duplicate": True} for i, row in enumerate(rows[:3])]
    publish(ctx, "manifest", {"dataset": "shapes"}, manifest)
    refused = [
        {"position": 200 + i, "reason": "image_missing" if i % 3 else "bad|reason", "detail": f"{NASTY} | row {i}"}
        for i in range(30)
    ]
    publish(ctx, "quarantine", {"dataset": "shapes"}, refused[::-1])
    name = embedding_fingerprint(ctx.project.image_encoder)
    for number, shard in enumerate(SHARDS):
        here = [
            row | {"n_turns": 2, "n_characters": 9, "row_json": "{}", "turns_key": None}
            for row in rows
            if row["shard"] == shard
        ]
        publish(ctx, "samples", {"shard": shard}, here)
        images = []
        for index in range(number, N_IMAGES, len(SHARDS)):
            path = directory / f"{index}.png"
            Image.new("RGB", (24, 16), (5 * index, 120, 255 - 5 * index)).save(path)
            images.append({"image_id": sha(f"image {index}"), "path": str(path), "source_path": path.name})
        publish(ctx, "images", {"shard": shard}, images)
        ctx.store.publish_pointer(
            "image_embeddings", {"fingerprint": name, "shard": shard}, rows=len(images), data_version="1"
        )
    (directory / "0.png").write_bytes(b"not a picture")
    rng = np.random.default_rng(0)
    centres = {task: rng.normal(size=8) * 3 for task in TASKS}
    ctx.__dict__["vectors"] = FakeVectors(
        {sha(f"image {i}"): centres[TASKS[i % len(TASKS)]] + rng.normal(size=8) for i in range(N_IMAGES)}
    )


def publish_scores(ctx: Context) -> None:
    """Reference subset (12 rows), reference model with its training report, losses of its rows, PreSel's tables."""
    reference = [row | {"image_id": row["image_ids"][0]} for row in contents()[:12]]
    publish(ctx, "reference_subset", {"dataset": "shapes"}, reference)
    adapter = Path(ctx.store.files.url("")).parent / "adapter"
    adapter.mkdir()
    (adapter / "losses.json").write_text(json.dumps([4.0 - 0.05 * step for step in range(40)]))
    ctx.store.publish_artifact("reference_model", {"dataset": "shapes"}, adapter, metadata={"steps": 40})
    for shard in SHARDS:
        rows = []
        for row in [row for row in contents()[:12] if row["shard"] == shard]:
            for condition, loss in (("full", 1.0 + row["position"] / 10), ("no_question", 2.0)):
                missing = row["position"] == 3 and condition == "full"
                value = None if missing else loss
                losses = {"loss_sum": value, "loss_mean": value, "n_tokens": 4}
                rows.append(row | {"condition": condition} | losses | NO_ENTROPY)
        publish(ctx, "losses", loss_partition(ctx, "shapes", shard), rows)
    partition = {"dataset": "shapes", "mode": "default"}
    scores = [
        row | {"image_id": row["image_ids"][0] if row["image_ids"] else None, "is_reference": row["position"] < 12}
        for row in contents()
    ]
    publish(ctx, "presel_scores", partition, scores)
    tasks = [
        {"task": task, "n_rows": 18, "n_reference": 4, "n_relevance": 4 - i, "difficulty": 0.5 + i / 4}
        for i, task in enumerate(TASKS)
    ]
    tasks.append({"task": "text", "n_rows": 4, "n_reference": 0, "n_relevance": 0, "difficulty": None})
    publish(ctx, "presel_tasks", partition, tasks)


def publish_selection(ctx: Context, directory: Path, recipe: str = "typical") -> None:
    """Selection of 14 rows in rank order (one text-only), its budgets (one is short), its files."""
    ranked = sorted(contents(), key=lambda row: (-(row["typicality"] or 0), row["sample_id"]))[:13]
    ranked.append(contents()[-1])
    rows = [
        row
        | {
            "rank": rank,
            "round": 1,
            "stratum": "image" if row["image_ids"] else "text",
            "reason": "typical" if row["image_ids"] else "text",
            "score": row["typicality"],
        }
        for rank, row in enumerate(ranked, start=1)
    ]
    publish(ctx, "selected_subset", {"recipe": recipe}, rows)
    names = [*TASKS, "text"]
    taken = {name: sum(row["task"] == name for row in rows) for name in names}
    budgets = [
        {
            "task": name,
            "n_available": 14,
            "n_reference": 0,
            "difficulty": None if name == "text" else 0.5,
            "weight": 0.25,
            "budget": taken[name] + (2 if name == "count" else 0),
            "n_selected": taken[name],
        }
        for name in names
    ]
    publish(ctx, "selected_tasks", {"recipe": recipe}, budgets)
    files = directory / f"files-{recipe}"
    files.mkdir()
    for name in ("manifest.json", "selected.json"):
        (files / name).write_text(name)
    tables = (
        ctx.store.read_partition(name, {"recipe": recipe}, TABLES[name].column_names)
        for name in ("selected_subset", "selected_tasks")
    )
    (files / "page.html").write_text(selection_page(selection_report(ctx, recipe, *tables)))
    ctx.store.publish_artifact("selection", {"recipe": recipe}, files)


def publish_evaluation(ctx: Context, recipe: str = "typical") -> None:
    """A checkpoint of the present selection and its evaluation: one task learned, one not, one worse."""
    selection = ctx.store.pointer("selected_subset", {"recipe": recipe})
    checkpoint = ctx.store.publish_pointer(
        "finetuned_checkpoint",
        {"recipe": recipe},
        rows=0,
        data_version="1",
        inputs=[selection.reference] if selection else [],
        metadata={"rows": selection.rows if selection else 0},
    )
    publish_answers(ctx, BASE, {"colour": (10, 1.5), "count": (50, 1.5), "side": (70, 1.5)})
    tuned = {"colour": (80, 1.0), "count": (52, 1.0), "side": (30, 1.0)}
    publish_answers(ctx, recipe, tuned, inputs=[checkpoint.reference])


def publish_answers(ctx: Context, recipe: str, results: dict[str, tuple[int, float]], **lineage: Any) -> None:
    """Answers of a model to the held-out questions, 100 of every task, and their metrics.

    `results`: right answers, and the loss of a right answer [nat/token], of every task. The first ones are right.
    """
    rows = [
        {
            "id": f"{task}-{number}",
            "task": task,
            "conversations": [{"from": "human", "value": f"{task}?"}, {"from": "gpt", "value": str(number)}],
        }
        for task in results
        for number in range(100)
    ]
    Path(ctx.project.resolve("held_out.json")).write_text(json.dumps(rows))
    benchmark = read_benchmark(ctx, "held_out")
    answers = []
    for number, question in enumerate(benchmark.questions):
        right, loss = results[question.category]
        text = question.answers[0] if number % 100 < right else "wrong"
        score = float(number % 100 < right)
        answers.append(
            {
                "question_id": question.question_id,
                "category": question.category,
                "cluster": question.cluster,
                "prompt": question.turns[-1][1],
                "right_answers": list(question.answers),
                "answer": text,
                "parsed": text,
                "score": score,
                "n_tokens": 3,
                "loss_sum": 2 * loss,
                "n_target_tokens": 2,
            }
        )
    partition = {"recipe": recipe, "benchmark": "held_out"}
    publish(ctx, "answers", partition, answers, **lineage)
    measures = stored_measures(ctx, benchmark, recipe)
    judgements = [Judgement(answer["parsed"], answer["score"]) for answer in answers]
    metrics = metric_rows(benchmark.questions, judgements, measures, resamples=200, seed=0)
    publish(ctx, "evaluation", partition, metrics, **lineage)


def full_context(directory: Path) -> Context:
    """A context with everything published."""
    ctx = report_context(directory)
    publish_content(ctx, directory)
    publish_scores(ctx)
    publish_selection(ctx, directory)
    publish_evaluation(ctx)
    return ctx
