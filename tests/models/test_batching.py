"""Token batches and the out-of-memory ladder."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vsel_platform.errors import OutOfMemoryError
from vsel_platform.models import batching
from vsel_platform.models.batching import (
    BatchLimits,
    automatic_batch_size,
    is_out_of_memory,
    run_with_oom_ladder,
    token_batches,
    usable_batch_tokens,
)


@given(st.lists(st.integers(0, 50), max_size=60), st.integers(1, 120))
def test_every_row_is_in_one_batch_and_no_batch_of_several_exceeds_the_budget(lengths, budget):
    batches = list(token_batches(lengths, lambda: budget))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert all(len(batch) * max(lengths[i] for i in batch) <= budget for batch in batches if len(batch) > 1)


def test_longest_rows_come_first_and_ties_keep_their_order():
    assert list(token_batches([3, 9, 3, 9], lambda: 18)) == [[1, 3], [0, 2]]


def test_a_budget_lowered_on_the_way_counts_for_the_next_batch():
    limits = iter([4, 2, 2])
    assert list(token_batches([1] * 8, lambda: next(limits))) == [[0, 1, 2, 3], [4, 5], [6, 7]]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA error: out of memory"),
    ],
)
def test_all_ways_to_say_that_memory_is_short_are_understood(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", [RuntimeError("shape mismatch"), ValueError("out of memory"), KeyError("x")])
def test_other_errors_are_not_taken_for_it(error):
    assert not is_out_of_memory(error)


@pytest.fixture(autouse=True, scope="module")
def _quick_cleanup():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batching, "free_memory", lambda: None)
        yield


def ladder(batch, fits, limits):
    """Run a batch on a machine where `fits` items fit; returns parts and the batch sizes tried."""
    tried = []

    def run(part):
        tried.append(len(part))
        if len(part) > fits:
            raise RuntimeError("out of memory")
        return [item * 10 for item in part]

    parts = run_with_oom_ladder(batch, run, key="k", limits=limits, size_of=len, name_of=lambda item: f"row {item}")
    return parts, tried


@given(st.integers(1, 40), st.integers(1, 40))
def test_the_ladder_gives_every_result_in_order(n, fits):
    parts, _ = ladder(list(range(n)), fits, BatchLimits())
    assert [item for part, _ in parts for item in part] == list(range(n))
    assert [value for _, values in parts for value in values] == [i * 10 for i in range(n)]
    assert all(len(part) <= fits for part, _ in parts)


def test_the_found_size_is_remembered_per_key():
    limits = BatchLimits()
    ladder(list(range(16)), 5, limits)
    assert limits.limit("k", 16) == 4
    assert limits.limit("another", 16) == 16


def test_a_remembered_limit_never_grows():
    limits = BatchLimits()
    limits.lower("k", 4)
    limits.lower("k", 8)
    assert limits.limit("k", 100) == 4
    limits.lower("k", 0)
    assert limits.limit("k", 100) == 1


def test_a_row_that_does_not_fit_alone_is_named():
    with pytest.raises(OutOfMemoryError, match="row 0 does not fit into memory even alone"):
        ladder([0, 1], 0, BatchLimits())


def test_errors_that_are_not_about_memory_pass_through():
    def broken(part):
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        run_with_oom_ladder([1, 2], broken, key="k", limits=BatchLimits(), size_of=len, name_of=str)


@pytest.mark.parametrize(("free", "expected"), [(10**12, 32), (20 * 100, 8), (2 * 100, 1), (0, 1)])
def test_the_automatic_batch_takes_half_of_the_free_memory_at_most(monkeypatch, free, expected):
    monkeypatch.setattr(batching, "_free_bytes", lambda device: free)
    assert automatic_batch_size("cpu", 100) == expected


def test_a_gpu_gets_larger_batches(monkeypatch):
    monkeypatch.setattr(batching, "_free_bytes", lambda device: 10**12)
    assert automatic_batch_size("cuda:0", 100) == 256


def test_this_machine_has_free_memory():
    assert automatic_batch_size("cpu", 1) == 32


def test_a_cpu_never_gets_more_tokens_than_fit_its_caches():
    assert usable_batch_tokens(8192, "cpu") == 2048
    assert usable_batch_tokens(100, "cpu") == 100
    assert usable_batch_tokens(8192, "cuda:0") == 8192
