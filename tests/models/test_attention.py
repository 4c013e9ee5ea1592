"""Attention rows from queries and keys, against maps."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vsel_platform.models import attention
from vsel_platform.models.attention import AttentionRecorder, attention_mass, recording


def places(*rows):
    """Places of each row, padded with -1."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[-1] * (width - len(row))] for row in rows], dtype=torch.int64).reshape(
        len(rows), width
    )


def eager_mass(query, key, queries, keys, scaling=None):
    """The same from whole maps in float64, one row and head at a time."""
    heads, n_query, size = query.shape[1:]
    n_tokens, shared = key.shape[2], heads // key.shape[1]
    future = torch.ones(n_query, n_tokens, dtype=torch.bool).triu(n_tokens - n_query + 1)
    found = torch.zeros(keys.shape, dtype=torch.float64)
    for row in range(len(query)):
        maps = []
        for head in range(heads):
            scores = query[row, head].double() @ key[row, head // shared].double().T
            scores = scores * (size**-0.5 if scaling is None else scaling)
            maps.append(scores.masked_fill(future, float("-inf")).softmax(-1))
        mean = torch.stack(maps).mean(0)
        own = [i - (n_tokens - n_query) for i in queries[row].tolist() if i >= 0]
        for column, key_place in enumerate(keys[row].tolist()):
            if key_place >= 0 and own:
                found[row, column] = mean[own, key_place].mean()
    return found


def tensors(rows=3, heads=4, key_heads=4, n_query=9, n_tokens=9, size=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(rows, heads, n_query, size, generator=generator)
    return query, torch.randn(rows, key_heads, n_tokens, size, generator=generator)


def seen(queries, valid):
    """Which tokens each query sees: valid ones [rows, tokens] up to itself."""
    return valid[:, None] & (torch.arange(valid.shape[1]) <= queries[..., None])


QUERIES = places([8], [2, 5, 7], [0, 1, 2, 3, 4])
KEYS = places([0, 3, 1], [4], [])


@pytest.mark.parametrize("key_heads", [4, 2, 1])
@pytest.mark.parametrize("scaling", [None, 0.7])
def test_mass_is_the_mean_of_the_map_with_own_or_shared_keys(key_heads, scaling):
    query, key = tensors(key_heads=key_heads)
    found = attention_mass(query, key, QUERIES, KEYS, scaling)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, eager_mass(query, key, QUERIES, KEYS, scaling), atol=1e-6)


def test_padding_of_keys_gets_nothing_and_a_row_without_queries_neither():
    query, key = tensors()
    found = attention_mass(query, key, places([], [3, 4], [5]), KEYS)
    assert found[0].tolist() == [0, 0, 0]
    assert found[1, 0] > 0
    assert found[1, 1:].tolist() == [0, 0]
    assert found[2].tolist() == [0, 0, 0]
    assert attention_mass(query, key, places([], [], []), KEYS).tolist() == [[0, 0, 0]] * 3
    assert attention_mass(query, key, QUERIES, places([], [], [])).shape == (3, 0)


def test_no_token_attends_to_its_future():
    query, key = tensors(rows=1)
    assert attention_mass(query, key, places([2, 3]), places([4, 8])).tolist() == [[0, 0]]
    everything = attention_mass(query, key, places([6]), places(list(range(9))))
    assert float(everything.sum()) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("n_query", [1, 4])
def test_queries_are_the_last_tokens_behind_a_cache(n_query):
    query, key = tensors(key_heads=2)
    queries, keys = places([8], [8], [8]), places([0, 7], [8], [2, 5])
    if n_query > 1:
        queries = places([5, 8], [6], [7, 8])
    found = attention_mass(query[:, :, -n_query:], key, queries, keys)
    np.testing.assert_allclose(found, attention_mass(query, key, queries, keys), atol=1e-6)
    np.testing.assert_allclose(found, eager_mass(query[:, :, -n_query:], key, queries, keys), atol=1e-6)


@pytest.mark.parametrize("elements", [1, 3 * 4 * 9 * 2, 3 * 4 * 9 * 3])
def test_blocks_of_queries_make_no_difference(monkeypatch, elements):
    query, key = tensors()
    whole = attention_mass(query, key, QUERIES, KEYS)
    monkeypatch.setattr(attention, "BLOCK_ELEMENTS", elements)
    np.testing.assert_allclose(attention_mass(query, key, QUERIES, KEYS), whole, atol=1e-7)


def test_half_precision_is_summed_in_float32():
    query, key = (tensor.to(torch.bfloat16) for tensor in tensors(n_query=64, n_tokens=64))
    queries, keys = places(*[list(range(64))] * 3), places(*[list(range(64))] * 3)
    found = attention_mass(query, key, queries, keys)
    np.testing.assert_allclose(found, eager_mass(query, key, queries, keys), atol=1e-6)


@st.composite
def chosen(draw):
    n_tokens = draw(st.integers(1, 12))
    n_query = draw(st.integers(1, n_tokens))
    place = st.integers(n_tokens - n_query, n_tokens - 1)
    own = draw(st.lists(st.lists(place, unique=True, max_size=5), min_size=2, max_size=2))
    seen = draw(st.lists(st.lists(st.integers(0, n_tokens - 1), max_size=5), min_size=2, max_size=2))
    return n_query, n_tokens, draw(st.sampled_from([1, 2, 4])), places(*own), places(*seen), draw(st.integers(0, 99))


@given(chosen())
@settings(max_examples=50, deadline=None)
def test_mass_is_that_of_the_map_for_any_choice(case):
    n_query, n_tokens, key_heads, queries, keys, seed = case
    query, key = tensors(2, 4, key_heads, n_query, n_tokens, seed=seed)
    found = attention_mass(query, key, queries, keys)
    np.testing.assert_allclose(found, eager_mass(query, key, queries, keys), atol=1e-6)


@pytest.mark.parametrize("elements", [1, attention.BLOCK_ELEMENTS])
@pytest.mark.parametrize("key_heads", [4, 1])
def test_tokens_that_are_not_valid_are_as_if_they_were_not_there(monkeypatch, key_heads, elements):
    monkeypatch.setattr(attention, "BLOCK_ELEMENTS", elements)
    query, key = tensors(rows=2, key_heads=key_heads)
    valid = torch.ones(2, 9, dtype=torch.bool)
    valid[0, [3, 4, 5]] = False
    queries, keys = places([8, 6], [8, 6]), places([0, 2, 4, 7], [0, 2, 4, 7])
    found = attention_mass(query, key, queries, keys, allowed=seen(queries, valid))
    kept = [0, 1, 2, 6, 7, 8]
    alone = attention_mass(query[:1, :, kept], key[:1, :, kept], places([5, 3]), places([0, 2, 4]))
    np.testing.assert_allclose(found[0, [0, 1, 3]], alone[0], atol=1e-6)
    assert found[0, 2] == 0
    np.testing.assert_allclose(found[1:], eager_mass(query[1:], key[1:], queries[1:], keys[1:]), atol=1e-6)


@pytest.mark.parametrize("elements", [1, attention.BLOCK_ELEMENTS])
def test_queries_one_by_one_have_the_mean_that_they_have_together(monkeypatch, elements):
    monkeypatch.setattr(attention, "BLOCK_ELEMENTS", elements)
    query, key = tensors(key_heads=2)
    single = attention_mass(query, key, QUERIES, KEYS, each_query=True)
    assert single.shape == (3, 5, 3)
    together = attention_mass(query, key, QUERIES, KEYS)
    count = (QUERIES >= 0).sum(dim=1)
    np.testing.assert_allclose(single.sum(dim=1) / count[:, None], together, atol=1e-6)
    assert (single[0, 1:] == 0).all()  # padding of queries


def test_queries_may_see_different_tokens():
    query, key = tensors(rows=1)
    queries, everything = places([7, 8]), places(list(range(9)))
    allowed = torch.zeros(1, 2, 9, dtype=torch.bool)
    allowed[0, 0, [0, 1, 7]] = allowed[0, 1, [0, 1, 2, 8]] = True
    found = attention_mass(query, key, queries, everything, allowed=allowed, each_query=True)
    for number, own in enumerate(([0, 1, 7], [0, 1, 2, 8])):
        alone = attention_mass(query[:, :, own], key[:, :, own], places([len(own) - 1]), places(range(len(own))))
        np.testing.assert_allclose(found[0, number, own], alone[0], atol=1e-6)
        assert found[0, number].sum() == pytest.approx(1, abs=1e-5)


def test_a_row_with_fewer_queries_and_hidden_tokens_is_finite():
    query, key = tensors(rows=2)
    valid = torch.tensor([[True] * 4 + [False] * 5, [True] * 9])
    queries = places([3], [2, 8])
    found = attention_mass(query, key, queries, places([0, 3], [8, 1]), allowed=seen(queries, valid))
    assert torch.isfinite(found).all()
    np.testing.assert_allclose(found, eager_mass(query, key, places([3], [2, 8]), places([0, 3], [8, 1])), atol=1e-6)


@given(chosen(), st.sets(st.integers(0, 11)))
@settings(max_examples=50, deadline=None)
def test_the_attention_of_a_query_is_shared_among_the_valid_tokens_before_it(case, hidden):
    n_query, n_tokens, key_heads, queries, _, seed = case
    query, key = tensors(2, 4, key_heads, n_query, n_tokens, seed=seed)
    valid = torch.tensor([[i not in hidden for i in range(n_tokens)]] * 2)
    valid[:, 0] = True
    everything = torch.arange(n_tokens).expand(2, -1)
    found = attention_mass(query, key, queries, everything, allowed=seen(queries, valid))
    assert (found[~valid] == 0).all()
    has_queries = (queries >= 0).any(dim=1) if queries.shape[1] else torch.zeros(2, dtype=torch.bool)
    np.testing.assert_allclose(found.sum(dim=1), has_queries.float(), atol=1e-5)


def llama(implementation="sdpa", key_heads=2):
    """A Llama text model of three layers."""
    from transformers import LlamaConfig, LlamaModel

    config = LlamaConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=key_heads,
        initializer_range=0.5,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaModel._from_config(config, attn_implementation=implementation)
    return model.eval()


IDS = torch.arange(22).reshape(2, 11) % 7


def recorder(layers=(0, 1, 2)):
    return AttentionRecorder(frozenset(layers), places([10, 4, 7], [6]), places(list(range(11)), [0, 3]))


@pytest.mark.parametrize("key_heads", [4, 2])
def test_recorded_rows_are_those_of_the_maps_of_every_layer(key_heads):
    model = llama(key_heads=key_heads)
    with torch.inference_mode():
        maps = llama("eager", key_heads)(IDS, output_attentions=True).attentions
        with recording(model.config, recorder()) as made:
            states = model(IDS).last_hidden_state
        expected_states = model(IDS).last_hidden_state
    assert sorted(made.mass) == [0, 1, 2]
    for layer, mass in made.mass.items():
        for row in range(2):
            own, seen = ([i for i in x[row].tolist() if i >= 0] for x in (made.queries, made.keys))
            expected = maps[layer][row].mean(0)[own][:, seen].mean(0)
            np.testing.assert_allclose(mass[row, : len(seen)], expected, atol=1e-6)
    np.testing.assert_array_equal(states, expected_states)


def test_rows_behind_a_cache_are_those_of_the_whole_pass():
    model = llama()
    last = AttentionRecorder(frozenset([0, 2]), places([10], [10]), places([0, 5, 9], [2]))
    with torch.inference_mode():
        with recording(model.config, last):
            model(IDS)
        whole, last.mass = last.mass, {}
        cache = model(IDS[:, :-1], use_cache=True).past_key_values
        with recording(model.config, last):
            model(IDS[:, -1:], past_key_values=cache)
    for layer in (0, 2):
        np.testing.assert_allclose(last.mass[layer], whole[layer], atol=1e-6)


def test_queries_of_two_parts_come_together_in_one_recorder():
    model = llama()
    queries, keys = places([0, 4, 10], [7]), places([0, 2, 9], [8, 10])

    def made():
        return AttentionRecorder(frozenset([1]), queries, keys, each_query=True)

    with torch.inference_mode():
        with recording(model.config, whole := made()):
            model(IDS)
        with recording(model.config, parts := made()):
            cache = model(IDS[:, :6], use_cache=True).past_key_values
            model(IDS[:, 6:], past_key_values=cache)
    np.testing.assert_allclose(parts.mass[1], whole.mass[1], atol=1e-6)
    assert whole.mass[1].sum() > 0


@pytest.mark.parametrize("each_query", [False, True])
def test_nobody_who_asks_gets_nothing(each_query):
    model = llama()
    made = AttentionRecorder(frozenset([1]), places([-1], [-1]), places([0, 2], [8]), each_query=each_query)
    with torch.inference_mode(), recording(model.config, made):
        model(IDS)
    assert made.mass[1].shape == ((2, 1, 2) if each_query else (2, 2))
    assert not made.mass[1].any()


def test_only_the_layers_asked_for_are_recorded():
    model = llama()
    with torch.inference_mode(), recording(model.config, recorder([1])) as made:
        model(IDS)
    assert list(made.mass) == [1]


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_the_model_is_as_before_even_after_an_error(implementation):
    model = llama(implementation)
    before = model.config._attn_implementation
    with torch.inference_mode():
        expected = model(IDS).last_hidden_state
        with pytest.raises(ZeroDivisionError), recording(model.config, recorder()):
            raise ZeroDivisionError
        assert model.config._attn_implementation == before == implementation
        assert attention._ACTIVE == []
        np.testing.assert_array_equal(model(IDS).last_hidden_state, expected)


def test_a_pass_inside_another_goes_to_its_own_recorder():
    outer, inner = llama(), llama()
    with torch.inference_mode(), recording(outer.config, recorder([0])) as first:
        with recording(inner.config, recorder([2])) as second:
            inner(IDS)
        outer(IDS)
    assert (list(first.mass), list(second.mass)) == ([0], [2])
