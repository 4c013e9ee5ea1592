"""PreSel against recorded runs of the released code; beside it what the corrected default does instead."""

import json
import math

import numpy as np
import pytest
from parity_cases import step_dir

from vsel_platform.errors import DataError
from vsel_platform.methods import presel_released_data as released_data
from vsel_platform.methods.presel import (
    PreselOptions,
    PreselRows,
    instruction_relevance,
    select_task,
    task_importance,
)
from vsel_platform.methods.presel_released import (
    released_relevance,
    released_rounds,
    released_task_difficulties,
    released_typicality,
    rows_of_round,
)
from vsel_platform.selection.budgets import (
    released_llava_budgets,
    released_vision_flan_budgets,
    softmax_weights,
    water_filling,
)
from vsel_platform.selection.diversity import neighbours, normalise_rows, typicality

OPTIONS = PreselOptions()
# Members of a cluster may swap if their typicality differs by less.
SWAP = 3e-7


def read(step, name):
    return json.loads((step_dir("presel", step) / name).read_text("utf-8"))


def cases(step, name="cases.json"):
    """Numbered cases of one step; empty if this set of cases leaves the step out."""
    path = step_dir("presel", step) / name
    found = json.loads(path.read_text("utf-8")) if path.is_file() else []
    return [pytest.param(case, id=f"presel/{step}-{number}") for number, case in enumerate(found)]


def one(step, *values, name=None):
    return pytest.param(*values, id=f"presel/{step}{'-' + name if name else ''}")


def task_rows(ids, vectors, labels, reference):
    """Columns of one task in the order of the released feature file."""
    data = normalise_rows(vectors)
    is_reference = np.isin(ids, list(reference))
    labels = labels.astype(np.int32)
    scores = released_typicality(data, labels, is_reference)
    names = [f"{i:09d}" for i in ids]
    return PreselRows(names, ["task"] * len(names), names, is_reference, labels, scores)


def assert_same_selection(rows, ids, selected, expected):
    """Equal lists, but for swaps (also with rows that were not taken) of rows that are as good as tied."""
    assert len(selected) == len(expected)
    position = {row: i for i, row in enumerate(ids)}
    for mine, theirs in zip(selected, (position[row] for row in expected), strict=True):
        assert rows.clusters[mine] == rows.clusters[theirs]
        a, b = rows.typicality[mine], rows.typicality[theirs]
        assert mine == theirs or abs(a - b) < SWAP or (math.isnan(a) and math.isnan(b))
    assert len(set(selected)) == len(selected)


@pytest.mark.parametrize("step", [one("preprocess", "preprocess")])
def test_unique_index(step, tmp_path):
    folder, target = step_dir("presel", step), tmp_path / "out.json"
    assert released_data.write_with_unique_index(folder / "input.json", target)
    expected = (folder / "output_add_idx.json").read_bytes()
    assert target.read_bytes() == expected
    assert not released_data.write_with_unique_index(folder / "input_other.json", target)
    assert target.read_bytes() == expected


@pytest.mark.parametrize("step", [one("preprocess", "preprocess", name="text")])
def test_text_of_entries(step):
    entries, helpers = read(step, "output_add_idx.json"), read(step, "output_helpers.json")
    assert json.dumps(released_data.text_data(entries)) == json.dumps(read(step, "output_text_data.json"))
    assert [released_data.text_instruction(e["conversations"]) for e in entries] == helpers["text_instruction"]
    for argument, result in helpers["input_text"]:
        assert released_data.input_text(argument) == result


@pytest.mark.parametrize("step", [one("remove_instruction", "remove_instruction")])
def test_questions_are_removed(step):
    written = released_data.to_json(released_data.remove_instruction(read(step, "input.json")))
    assert written.encode() == (step_dir("presel", step) / "output.json").read_bytes()
    missing = read(step, "expected_error.json")["message"]
    with pytest.raises(DataError, match=missing):
        released_data.remove_instruction(read(step, "input_textonly.json"))


@pytest.mark.parametrize("step", [one("vf_task_names", "vf_task_names")])
def test_task_names(step):
    names = released_data.task_names(read(step, "input.json"))
    assert released_data.to_json(names).encode() == (step_dir("presel", step) / "out/task_names.json").read_bytes()


def importance_cases():
    folders = sorted(step_dir("presel", "task_importance").glob("case_*"))
    return [pytest.param(folder, id=f"presel/task_importance-{folder.name}") for folder in folders]


def importance_input(folder):
    def load(name):
        return json.loads((folder / name).read_text("utf-8"))

    files = sorted(folder.glob("file*_665.json"), key=lambda f: int(f.name.removeprefix("file").split("_")[0]))
    tasks = [[entry["unique_idx"] for entry in json.loads(file.read_text("utf-8"))] for file in files]
    reference = [entry["unique_idx"] for entry in load("round1_665k_notext.json")]
    return load("loss_w.json"), load("loss_wo.json"), reference, tasks


@pytest.mark.parametrize("folder", importance_cases())
def test_task_difficulties(folder):
    with_question, without, reference, tasks = importance_input(folder)
    relevance = released_relevance(with_question, without)
    if (folder / "out_ratio.json").exists():
        recorded = json.loads((folder / "out_ratio.json").read_text("utf-8"))
        assert [row for row, _ in relevance] == [entry["unique_idx"] for entry in recorded]
        values = [entry["perplexity_ratio"] for entry in recorded]
        assert np.allclose([value for _, value in relevance], values, rtol=0, atol=1e-12, equal_nan=True)
    found = released_task_difficulties(relevance, reference, tasks)
    expected = json.loads((folder / "out/task_difficulties.json").read_text("utf-8"))
    assert np.allclose([value for value, _ in found], expected, rtol=0, atol=1e-12, equal_nan=True)
    assert [count for _, count in found] == json.loads((folder / "out/task_counts.json").read_text("utf-8"))


@pytest.mark.parametrize("folder", importance_cases())
def test_default_gives_every_task_a_finite_difficulty(folder):
    with_question, without, reference, tasks = importance_input(folder)
    losses = {e["unique_idx"]: e["loss"] for e in without}
    task_of = {str(row): f"{number:02d}" for number, task in enumerate(tasks) for row in task}
    relevance = {
        str(e["unique_idx"]): instruction_relevance(e["loss"], losses.get(e["unique_idx"]))
        for e in with_question
        if e["unique_idx"] in set(reference) and str(e["unique_idx"]) in task_of
    }
    found = task_importance(relevance, task_of, OPTIONS)
    assert all(score.difficulty is not None and math.isfinite(score.difficulty) for score in found.values())


@pytest.mark.parametrize("case", cases("budgets_llava"))
def test_llava_budgets(case):
    difficulty = case["task_difficulties"]
    for number, recorded in case["rounds"].items():
        total = rows_of_round(case["dataset_len"], int(number))
        assert total == recorded["N_round"]
        weights = softmax_weights(difficulty, 1 / math.sqrt(len(difficulty)))
        assert np.allclose(weights, recorded["softmax"], rtol=1e-12, atol=0)
        assert released_llava_budgets(difficulty, total) == recorded["alloc"]


@pytest.mark.parametrize("case", cases("allocate_samples_vf"))
def test_vision_flan_budgets(case):
    difficulty, sizes = case["task_difficulties"], case["task_sizes"]
    found = released_vision_flan_budgets(difficulty, sizes, case["total_budget"], case["T"])
    assert list(found.items()) == list(case["allocations"].items())
    weights = dict(zip(difficulty, softmax_weights(list(difficulty.values()), case["T"]).tolist(), strict=True))
    known = {task: size for task, size in sizes.items() if task in difficulty}
    filled = water_filling(weights, known, case["total_budget"])
    assert sum(filled.values()) == min(case["total_budget"], sum(known.values()))


@pytest.mark.parametrize("step", [one("al_utils", "al_utils")])
def test_helpers_outside_the_pipeline(step):
    case = read(step, "cases.json")
    tasks = [list(range(start, end)) for start, end in case["files"]]
    known = dict(case["perplexity"])
    for key, expected in case.items():
        if key.startswith("calc_weights_calibrated"):
            _, top, total = key.removeprefix("calc_weights_").split("_")
            numbers = {i: v for i, v in known.items() if i != case["nan_key"]}
            found = released_data.budgets_by_perplexity(
                tasks, numbers, int(total.removeprefix("total")), calibrate_top=int(top.removeprefix("n"))
            )
            assert found == expected
        elif key.startswith("calc_weights_plain"):
            numbers = known | {case["nan_key"]: math.nan}
            assert released_data.budgets_by_perplexity(tasks, numbers, int(key.rsplit("total", 1)[1])) == expected
        elif key.startswith("select_top_k_K"):
            losses, count = dict(case["select_top_k_loss_dict"]), int(key.removeprefix("select_top_k_K"))
            assert released_data.top_by_loss(list(range(30)), losses, count) == expected
        elif key.startswith("get_top_n_losses_"):
            losses = dict(case["select_top_k_loss_dict"])
            assert released_data.top_by_loss(list(losses), losses, int(key.rsplit("_", 1)[1])) == expected
        elif key.startswith("random_selection_seed"):
            seed, size, count = (
                int(part)
                for part in key.removeprefix("random_selection_seed")
                .replace("_of_range", " ")
                .replace("_k", " ")
                .split()
            )
            assert released_data.random_ids(range(size), count, seed=seed) == expected


def typicality_cases():
    path = step_dir("presel", "typicality") / "io.npz"
    names = np.load(path).files if path.is_file() else []
    ks = sorted(int(name.removeprefix("typicality_k")) for name in names if name.startswith("typicality_k"))
    return [pytest.param(k, id=f"presel/typicality-k{k}") for k in ks]


@pytest.mark.parametrize("k", typicality_cases())
def test_neighbours_and_typicality(k):
    data = np.load(step_dir("presel", "typicality") / "io.npz")
    similarities, indices = neighbours(data["features_l2"], k)
    assert np.abs(similarities - data[f"nn_sim_k{k}"]).max() < 1e-6
    assert (indices == data[f"nn_idx_k{k}"]).all()
    assert np.abs(typicality(data["features_l2"], k) - data[f"typicality_k{k}"]).max() < 1e-6


@pytest.mark.parametrize("step", [one("typicality", "typicality", name="normalise")])
def test_rows_are_normalised(step):
    data = np.load(step_dir("presel", step) / "io.npz")
    assert np.abs(normalise_rows(data["raw"]) - data["raw_normalized"]).max() < 1e-6


def selection_cases():
    path = step_dir("presel", "typical_selection") / "cases.json"
    found = json.loads(path.read_text("utf-8")) if path.is_file() else []
    named = found.items() if isinstance(found, dict) else ((case["name"], case) for case in found)
    return [pytest.param(name, case, id=f"presel/typical_selection-{name}") for name, case in named]


@pytest.mark.parametrize(("name", "case"), selection_cases())
def test_typical_selection(name, case):
    data = np.load(step_dir("presel", "typical_selection") / "inputs.npz")
    ids = case["unique_idxs"]
    rows = task_rows(ids, data[f"{name}__features"], data[f"{name}__labels"], case["already_selected"])
    selected = select_task(rows, range(len(ids)), case["N"], OPTIONS, mode="released")
    assert_same_selection(rows, ids, selected, case["selected_typical"])
    default = select_task(rows, range(len(ids)), case["N"], OPTIONS)
    finite = int(np.isfinite(rows.typicality).sum())
    assert len(set(default)) == len(default) == min(case["N"], finite)


def split_tasks(step):
    """(ids, features, labels) by task, in the order of the archive."""
    data = np.load(step_dir("presel", step) / "features_labels.npz")
    names = [name.removeprefix("features_") for name in data.files if name.startswith("features_")]
    return data, names


@pytest.mark.parametrize("step", [one("e2e_llava", "e2e_llava")])
def test_llava_end_to_end(step):
    io, counts = read(step, "io.json"), read(step, "expected_counts.json")
    data, names = split_tasks(step)
    numbers = sorted(names, key=int)
    columns = {
        t: (
            ids := data[f"unique_idx_{t}"].tolist(),
            task_rows(ids, data[f"features_{t}"], data[f"labels_{t}"], io["reference_unique_idx"]),
        )
        for t in numbers
    }
    rounds = sorted(int(key.removeprefix("round")) for key in io["final"])
    selected, wanted = [], []
    for number in rounds:
        total = rows_of_round(io["dataset_len"], number)
        budgets = released_llava_budgets(io["task_difficulties"], total)
        found = []
        for task, budget in zip(numbers, budgets, strict=True):
            ids, rows = columns[task]
            mine = select_task(rows, range(len(ids)), budget, OPTIONS, mode="released")
            expected = io["selected"].get(f"rnd{number}_file{task}", [])
            assert_same_selection(rows, ids, mine, expected)
            found += expected
        selected.append(found)
        wanted.append(total)
        assert total - len(found) == counts[f"round{number}"]["random_topup"]
    final = released_rounds(io["dataset_order_unique_idx"], io["reference_unique_idx"], selected, wanted)
    for number, found in zip(rounds, final, strict=True):
        assert found == io["final"][f"round{number}"]
        assert len(found) == counts[f"round{number}"]["saved"]


@pytest.mark.parametrize("step", [one("e2e_vf", "e2e_vf")])
def test_vision_flan_end_to_end(step):
    io = read(step, "io.json")
    data, _ = split_tasks(step)
    rounds = sorted({int(key.split("|")[0].removeprefix("rnd")) for key in io["selected"]})
    temperature = 1 / math.sqrt(len(io["task_names"]))
    for number in rounds:
        total = rows_of_round(sum(io["task_sizes"].values()), number)
        budgets = released_vision_flan_budgets(io["task_difficulties"], io["task_sizes"], total, temperature)
        for task in io["task_names"]:
            features = data[f"features_{task}"]
            ids = np.arange(len(features)) + int(data[f"uid0_{task}"])
            present = ~np.isin(ids, io["missing_feature_unique_idx"])
            rows = task_rows(
                ids[present].tolist(), features[present], data[f"labels_{task}"], io["reference_unique_idx"]
            )
            mine = select_task(rows, range(int(present.sum())), budgets[task], OPTIONS, mode="released")
            assert_same_selection(rows, ids[present].tolist(), mine, io["selected"][f"rnd{number}|{task}"])


@pytest.mark.parametrize("folder", importance_cases())
def test_released_budgets_of_a_task_without_losses_are_refused(folder):
    values = [v for v, _ in released_task_difficulties(released_relevance(*importance_input(folder)[:2]), [], [[0]])]
    with pytest.raises(ValueError, match="no difficulty"):
        released_llava_budgets(values, 10)
