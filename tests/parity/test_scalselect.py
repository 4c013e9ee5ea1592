"""ScalSelect against recorded runs of the released code; beside it what the corrected default does instead."""

import json
import re
from dataclasses import asdict
from itertools import pairwise

import numpy as np
import pytest
from parity_cases import step_dir

from vsel_platform.methods.scalselect_released import (
    attended_vision_released,
    load_representations,
    parse_released_id,
    released_scores,
    save_representations,
)
from vsel_platform.methods.scalselect_released_data import (
    check_dataset_validity,
    filter_valid_samples,
    select_sharegpt,
    to_sharegpt_json,
)
from vsel_platform.selection.leverage import leverage_basis, leverage_scores, moments_of, unit_rows
from vsel_platform.signals.attended_vision import attended_mean, attended_positions

VECTORS, SCORES = 1e-5, 2e-5
# Neighbours in the recorded order may swap if their scores differ by less.
SWAP = 1e-6


def folder(step):
    return step_dir("scalselect", step)


def read(step, name):
    return json.loads((folder(step) / name).read_text("utf-8"))


def one(step, name=None):
    return pytest.param(step, id=f"scalselect/{step}{'-' + name if name else ''}")


def attention_cases():
    path = folder("attended_vision") / "cases.json"
    found = json.loads(path.read_text("utf-8")) if path.is_file() else []
    return [pytest.param(case, id=f"scalselect/attended_vision-{case['name']}") for case in found]


def attention_arrays(case):
    arrays = np.load(folder("attended_vision") / "inputs_outputs.npz")
    prefix = case["name"] + "__"
    return {name.removeprefix(prefix): arrays[name] for name in arrays.files if name.startswith(prefix)}


def tied(shares):
    return len(np.unique(shares)) < len(shares)


@pytest.mark.parametrize("case", attention_cases())
def test_attended_vision(case):
    arrays = attention_arrays(case)
    user, vision = case["user_indices"], case["vision_indices"]
    for variant, attention, expected, output in (
        ("", arrays["attn"], case["selected_relative"], arrays["out"]),
        ("4d", arrays["attn4d"], case["selected_relative_4d_variant"], arrays["out4d"]),
    ):
        vector, chosen = attended_vision_released(arrays["hidden"], attention, user, vision, case["threshold"])
        assert len(chosen) == len(expected), variant
        maps = attention if attention.ndim == 2 else attention.mean(axis=(0, 1))
        if not tied(maps[np.ix_(user, vision)].mean(axis=0)):
            assert chosen.tolist() == expected
        if set(chosen.tolist()) == set(expected):
            assert np.abs(vector - output).max() < VECTORS


@pytest.mark.parametrize("case", attention_cases())
def test_default_takes_the_smallest_set_that_holds_the_share(case):
    arrays, vision = attention_arrays(case), case["vision_indices"]
    mass = arrays["attn"][np.ix_(case["user_indices"], vision)].mean(axis=0)
    hidden = arrays["hidden"].reshape(-1, arrays["hidden"].shape[-1])[vision]
    chosen = attended_positions(mass, case["threshold"])
    vector, count = attended_mean(hidden, mass, case["threshold"])
    assert count == len(chosen)
    share = mass[chosen].sum(dtype=np.float64) / max(mass.sum(dtype=np.float64), 1e-30)
    if mass.any():
        assert share >= case["threshold"] - 1e-12
        assert share - mass[chosen[-1]] / mass.sum(dtype=np.float64) < case["threshold"]
    assert np.array_equal(chosen, attended_positions(mass * 3, case["threshold"]))
    if chosen.tolist() == case["selected_relative"]:
        assert np.abs(vector - arrays["out"]).max() < VECTORS


def leverage_cases():
    found = sorted(path.parent for path in folder("cur").glob("*/meta.json"))
    return [pytest.param(case, id=f"scalselect/cur-{case.name}") for case in found]


def leverage_case(path):
    """(representations, ids, options, recorded k, recorded (id, score) in order)"""
    meta = json.loads((path / "meta.json").read_text("utf-8"))
    args = meta["args"]
    options = {
        "threshold": float(args[args.index("--sv-threshold") + 1]) if "--sv-threshold" in args else 0.9,
        "center": "--no-center" not in args,
        "standardize": "--no-standardize" not in args,
        "l2": "--no-l2-normalize" not in args,
    }
    lines = (path / "importance_scores.jsonl").read_text("utf-8").splitlines()
    scores = [(s["sample_id"], s["importance"]) for s in map(json.loads, lines)]
    k = int(re.search(r"k=(\d+)", meta["k_line"])[1])
    return *load_representations(path), options, k, scores


def default_scores(data, threshold, center, standardize, l2):
    """(leverage of every row, basis) by streamed moments."""
    blocks = [data[i : i + 37] for i in range(0, len(data), 37)]
    moments = moments_of(blocks)
    if l2:
        rows = list(unit_rows(blocks, moments, center=center, standardize=standardize))
        basis = leverage_basis(moments_of(rows), threshold=threshold, center=False, standardize=False)
        return leverage_scores(rows, basis), basis
    basis = leverage_basis(moments, threshold=threshold, center=center, standardize=standardize)
    return leverage_scores(blocks, basis), basis


@pytest.mark.parametrize("path", leverage_cases())
def test_leverage_scores(path):
    data, ids, options, k, recorded = leverage_case(path)
    fixed = k if options["threshold"] >= 1 else None
    scores, found = released_scores(data, ids, **options, n_directions=fixed)
    assert found == k
    mine, theirs = dict(scores), dict(recorded)
    assert mine.keys() == theirs.keys()
    assert max(abs(mine[i] - theirs[i]) for i in theirs) < SCORES
    assert sum(mine.values()) == pytest.approx(k, rel=1e-4)
    position = {i: rank for rank, (i, _) in enumerate(scores)}
    for (before, high), (after, low) in pairwise(recorded):
        assert position[before] < position[after] or high - low < max(SWAP, 2 * abs(mine[before] - high))


@pytest.mark.parametrize("path", leverage_cases())
def test_default_leverage_agrees_without_a_decomposition_of_the_data(path):
    data, ids, options, k, recorded = leverage_case(path)
    scores, basis = default_scores(data, **options)
    if options["threshold"] < 1:
        assert basis.k == k
        theirs = dict(recorded)
        assert max(abs(score - theirs[parse_released_id(i)]) for i, score in zip(ids, scores, strict=True)) < SCORES
    assert scores.sum() == pytest.approx(basis.k, rel=1e-10)


@pytest.mark.parametrize("path", leverage_cases())
def test_default_at_threshold_one_counts_the_rank_whatever_the_order_of_rows(path):
    data, _, options, _, _ = leverage_case(path)
    options |= {"threshold": 1.0, "l2": False}
    shuffled = np.random.default_rng(0).permutation(len(data))
    (scores, basis), (again, other) = default_scores(data, **options), default_scores(data[shuffled], **options)
    wide = data.astype(np.float64) - (data.mean(axis=0, dtype=np.float64) if options["center"] else 0)
    assert basis.k == other.k == len(basis.eigenvalues) == np.linalg.matrix_rank(wide, rtol=1e-6)
    assert np.abs(scores[shuffled] - again).max() < 1e-9


@pytest.mark.parametrize("path", leverage_cases())
def test_duplicates_have_equal_scores_and_their_ties_go_by_id(path):
    data, ids, options, _, _ = leverage_case(path)
    twice, names = np.concatenate([data, data[::-1]]), [*ids, *(f"{i}-copy" for i in ids[::-1])]
    scores, _ = default_scores(twice, **options)
    assert scores[: len(data)].tobytes() == scores[len(data) :][::-1].tobytes()
    order = sorted(range(len(names)), key=lambda row: (-scores[row], names[row]))
    for first, second in zip(order[::2], order[1::2], strict=True):
        assert names[second] == f"{names[first]}-copy"


@pytest.mark.parametrize("step", [one("save_load")])
def test_feature_file(step, tmp_path):
    given = np.load(folder(step) / "inputs.npz")
    records = [
        ({} if i == "<missing>" else {"sample_id": i}) | ({} if np.isnan(row).any() else {"combined_repr": row})
        for i, row in zip(given["ids"].tolist(), given["reprs"], strict=True)
    ]
    described = read(step, "all_representations.json")
    save_representations(records, tmp_path, described["metadata"])
    assert json.loads((tmp_path / "all_representations.json").read_text("utf-8")) == described
    (mine, ids), (theirs, recorded_ids) = load_representations(tmp_path), load_representations(folder(step))
    assert mine.dtype == theirs.dtype
    assert mine.tobytes() == theirs.tobytes()
    loaded = read(step, "loaded_ids.json")
    assert ids == recorded_ids == loaded["sample_ids_in_npz"]
    assert [parse_released_id(i) for i in ids] == loaded["loaded_ids"]


@pytest.mark.parametrize("step", [one("save_load", name="ids")])
def test_text_ids_that_the_released_parser_merges_survive_in_the_file(step):
    loaded = read(step, "loaded_ids.json")
    _, ids = load_representations(folder(step))
    assert len(set(ids)) == len(ids) >= len(set(loaded["loaded_ids"]))


def selections():
    path = folder("select_sharegpt") / "expected_counts.json"
    found = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    return [pytest.param(n, c, id=f"scalselect/select_sharegpt-{n.split('.')[0]}") for n, c in found.items()]


@pytest.mark.parametrize(("name", "counts"), selections())
def test_select_sharegpt(name, counts):
    dataset = "dataset_strids.json" if "strids" in name else "dataset.json"
    lines = (folder("select_sharegpt") / "importance_scores.jsonl").read_text("utf-8").splitlines()
    selected, missing = select_sharegpt(lines, read("select_sharegpt", dataset), counts["num_selected"])
    assert len(missing) == counts["ids_not_found"]
    assert len(selected) == counts["written"]
    assert to_sharegpt_json(selected).encode() == (folder("select_sharegpt") / name).read_bytes()


@pytest.mark.parametrize("step", [one("validity")])
def test_validity(step):
    entries, stats = read(step, "dataset.json"), read(step, "stats.json")
    base = f"{folder(step)}/img/"
    kept, found = filter_valid_samples(entries, base)
    assert kept == read(step, "filtered.json")
    assert asdict(found) == stats["filter_stats"]
    assert asdict(check_dataset_validity(entries, base)) == stats["check"]
