"""Answers, metrics and what compares them, for the small store of `synthetic_store`."""

from typing import Any

import pyarrow as pa
from synthetic_store import BENCHMARK, DATASET, RECIPE, TASKS, image, sample

from vsel_platform.storage.store import Store
from vsel_platform.tables import TABLES


def _rows(name: str, rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=TABLES[name].arrow_schema())


def publish_evaluation(store: Store) -> None:
    """Answers of the base model and of the recipe to ten questions of every task, and what is made from them."""
    lineage = {"run_id": "run-5", "inputs": [store.require("selected_subset", {"recipe": RECIPE}).reference]}
    for recipe, right in {"base": (1, 2, 1, 4), RECIPE: (2, 8, 4, 3)}.items():
        key = {"recipe": recipe, "benchmark": BENCHMARK}
        store.publish("answers", key, _rows("answers", _answers(right)), **lineage)
        metrics = [
            _metric("exact_match", 0, "", 100 * sum(right) / 40, 40),
            *(_metric("exact_match", 1 + i, name, 10.0 * right[i], 10) for i, name in enumerate(TASKS)),
        ]
        store.publish("evaluation", key, _rows("evaluation", metrics), **lineage)
    _comparisons(store, lineage)


def _answers(right: tuple[int, ...]) -> list[dict[str, Any]]:
    return [
        {
            "question_id": f"{name}-{number}",
            "category": name,
            "cluster": f"{number}.png",
            "prompt": f"What is the {name}?",
            "right_answers": ["yes"],
            "answer": None if number == 9 else "yes" if number < right[place] else "no",
            "parsed": None if number == 9 else "yes" if number < right[place] else "no",
            "score": float(number < right[place]),
            "n_tokens": 0 if number == 9 else 2,
            "loss_sum": None if number == 9 else 1.5,
            "n_target_tokens": 0 if number == 9 else 2,
            "failure": "image_missing: no file 9.png" if number == 9 else None,
            "trace": None,
        }
        for place, name in enumerate(TASKS)
        for number in range(10)
    ]


def _metric(measure: str, position: int, category: str, value: float, n_questions: int) -> dict[str, Any]:
    return {
        "measure": measure,
        "category": category,
        "position": position,
        "value": value,
        "low": max(0.0, value - 10),
        "high": min(100.0, value + 10),
        "unit": "percent",
        "lower_is_better": False,
        "n_questions": n_questions,
        "n_unparsed": n_questions // 10,
    }


def _comparisons(store: Store, lineage: dict[str, Any]) -> None:
    """Leaderboard, leakage and ruling."""
    board = dict.fromkeys(TABLES["leaderboard"].column_names)
    board |= {
        "dataset": DATASET,
        "measure": "exact_match",
        "unit": "percent",
        "budget": 15.0,
        "n_rows": 6,
        "n_seeds": 1,
    }
    rows = [
        board | {"label": "presel", "recipes": [RECIPE], "value": 42.5, "verdict": "better than random", "rank": 1},
        board | {"label": "random", "recipes": ["random15"], "value": 20.0, "verdict": "random", "rank": 2},
    ]
    store.publish("leaderboard", {"benchmark": BENCHMARK}, _rows("leaderboard", rows), **lineage)
    found = [
        {
            "benchmark": BENCHMARK,
            "question_id": f"colour-{number}",
            "kind": "image",
            "found_in": image(number),
            "sample_id": sample(number),
            "value": 1.0,
        }
        for number in (1, 2)
    ]
    store.publish("leakage", {"recipe": RECIPE}, _rows("leakage", found), **lineage)
    ruling = {
        "champion": "random15",
        "benchmark": BENCHMARK,
        "ruling": "promote",
        "reason": "better",
        "measure": "exact_match",
        "unit": "percent",
        "champion_value": 20.0,
        "candidate_value": 42.5,
        "difference": 22.5,
        "low": 5.0,
        "high": 40.0,
        "margin": 0.0,
        "max_loss": 5.0,
        "n_questions": 40,
    }
    store.publish("promotion", {"recipe": RECIPE}, _rows("promotion", [ruling]), **lineage)
