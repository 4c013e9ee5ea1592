"""The prototype extractor: against a plain reading of the formula, and its invariants."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from token_images import correlated_tokens

from vsel_platform.errors import ConfigError
from vsel_platform.models.prototype_extractor import (
    PrototypeExtractor,
    PrototypeOptions,
    pooling_matrix,
    released_options,
)


def options(**changes):
    return PrototypeOptions(**({"num_prototypes": 5} | changes))


def extractor(width=6, seed=0, **changes):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return PrototypeExtractor(width, options(**changes)).double()


def released(width=6, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return PrototypeExtractor(width, released_options(5)).double()


def tokens(images=2, count=12, width=6, seed=0):
    return torch.randn(images, count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cosine(a, b):
    return float((a @ b / a.norm() / b.norm()).detach())


def by_loops(module, image):
    """Released form of one image [L, D], token by token."""
    n, count = module.options.num_prototypes, len(image)
    value, feature = module.v(image), module.f(image)
    key = value / value.norm(dim=0)
    windows = [range(j * count // n, -(-(j + 1) * count // n)) for j in range(n)]
    centers = torch.stack([image[list(w)].mean(0) for w in windows])
    own = torch.stack([feature[list(w)].mean(0) for w in windows])
    for _ in range(module.options.iterations):
        query = module.c(centers)
        scores = torch.stack([(q / q.norm()) @ key.T for q in query])
        centers = scores.softmax(0) @ feature
    total, count_of, taken = own.clone(), torch.ones(n, dtype=image.dtype), []
    for token, its in zip(image, feature, strict=True):
        scores = [torch.tensor(cosine(c, token)).sigmoid().item() for c in centers]
        best = max(range(n), key=lambda j: (scores[j], -j))
        total[best] += scores[best] * its
        count_of[best] += 1
        taken.append((best, scores[best]))
    shared = total / count_of[:, None]
    return torch.stack([token + score * shared[best] for token, (best, score) in zip(image, taken, strict=True)])


def test_the_released_form_is_the_formula_read_token_by_token():
    module, x = released(), tokens()
    torch.testing.assert_close(module(x), torch.stack([by_loops(module, image) for image in x]))


@pytest.mark.parametrize("init", ["pool", "random"])
@pytest.mark.parametrize("read_out", ["hard", "soft"])
@pytest.mark.parametrize("key_norm", ["channel", "token"])
def test_every_form_gives_gradients_to_all_its_weights(init, read_out, key_norm):
    module = extractor(init=init, read_out=read_out, key_norm=key_norm)
    found = module(tokens())
    assert found.shape == (2, 12, 6)
    found.square().sum().backward()
    # A hard read-out has no gradient through the temperature but that of the assignment.
    assert {name for name, p in module.named_parameters() if p.grad is None} == set()


def test_assignments_and_shares_are_distributions_over_prototypes():
    found = extractor().group(tokens())
    torch.testing.assert_close(found.assignment.sum(1), torch.ones(2, 12, dtype=torch.float64))
    assert found.winners.shape == (2, 12)
    assert ((found.similarity > 0) & (found.similarity < 1)).all()


def test_images_do_not_see_each_other():
    module, x = extractor(), tokens(3)
    for i in range(3):
        torch.testing.assert_close(module(x)[i], module(x[i : i + 1])[0])


def test_what_all_tokens_share_changes_no_assignment_in_the_channel_form_and_all_in_the_released_one():
    x, shift = tokens(), 30 * torch.ones(6, dtype=torch.float64)
    default = extractor()
    torch.testing.assert_close(default.group(x + shift).assignment, default.group(x).assignment)
    before, after = (released().group(y).assignment for y in (x, x + shift))
    assert (before - after).abs().max() > 1e-3


def test_a_low_temperature_reads_out_what_the_hard_form_does():
    x = tokens()
    soft = extractor(temperature=1e-4, read_out="soft")
    hard = extractor(temperature=1e-4, read_out="hard")
    torch.testing.assert_close(soft(x), hard(x))


def test_prototypes_that_are_learned_start_from_parameters():
    module = extractor(init="random")
    assert dict(module.named_parameters())["prototypes"].shape == (5, 6)
    torch.testing.assert_close(module.group(tokens()).start[1], module.prototypes)
    assert "prototypes" not in dict(extractor().named_parameters())


def test_the_temperature_is_a_weight_only_if_it_is_learned():
    assert extractor().log_temperature.exp().item() == pytest.approx(0.05)
    assert not [name for name, _ in released().named_parameters() if "temperature" in name]


def test_low_precision_goes_in_and_out_and_stays_outside():
    """bfloat16 tokens: the same groups as in float32, in a module that is itself bfloat16, under autocast too."""
    x = correlated_tokens(2, 36, 16).bfloat16()
    module = extractor(width=16).float()
    expected = module(x.float())
    with torch.autocast("cpu", torch.bfloat16):
        found = module(x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, atol=0.03, rtol=0.01)
    assert module.bfloat16().group(x).centers.dtype == torch.float32


@given(st.integers(1, 40), st.integers(1, 40))
def test_pooling_rows_are_means_of_neighbours_that_cover_all_tokens(n_tokens, n_prototypes):
    matrix = pooling_matrix(n_tokens, n_prototypes, torch.zeros(1, dtype=torch.float64))
    torch.testing.assert_close(matrix.sum(1), torch.ones(n_prototypes, dtype=torch.float64))
    assert (matrix.sum(0) > 0).all()
    expected = torch.nn.functional.adaptive_avg_pool1d(torch.eye(n_tokens, dtype=torch.float64), n_prototypes)
    torch.testing.assert_close(matrix, expected.T)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"num_prototypes": 0}, "at least 1"),
        ({"iterations": 0}, "at least 1"),
        ({"temperature": 0.0}, "above 0"),
        ({"temperature": float("nan")}, "above 0"),
        ({"init": "kmeans"}, "init is 'kmeans'"),
        ({"key_norm": "batch"}, "known: channel, token"),
        ({"read_out": "none"}, "known: hard, soft"),
    ],
)
def test_options_that_make_no_sense_are_refused(change, said):
    with pytest.raises(ConfigError, match=said):
        options(**change)
