"""Prototypes of an image's tokens: SQ-LLaVA's projector (arXiv 2403.11299), as released and in a form that keeps
its prototypes apart.

With tokens x [B, L, D], N prototypes C [B, N, D] and the linear layers c, v, f:

    repeat: A = softmax over prototypes of cos(c(C), v(x)) / temperature;  C = A f(x)
    S = sigmoid(sim_beta + sim_alpha cos(C, x));  M = which prototype a token takes
    y = x + (M S)^T Agg,  Agg = ((M S) f(x) + P f(x)) / (rowsum(M) + 1)

The released code normalises v(x) over the tokens of the image instead of its channels. A is then the same for all
prototypes up to rounding, and all of them become the mean of the image. Cosines over channels alone do not help where
tokens have much in common, as those of CLIP: so what an image's tokens share is taken away before they are compared,
the softmax is sharp, and the layers begin as the identity (a prototype is then a cluster of the tower's features).
`models.prototype_usage` measures it.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from vsel_platform.errors import ConfigError

EPSILON = 1e-12
"""L2 norms below this count as this."""


@dataclass(frozen=True, slots=True)
class PrototypeOptions:
    """Form of a prototype extractor.

    init: prototypes start as means of neighbouring tokens (`pool`) or are learned (`random`).
    key_norm: `channel`, cosines of what an image's tokens (or prototypes) do not share, a prototype is the mean of its
    tokens; `token`, the released form: every channel is normalised over the tokens, and a prototype is a sum.
    read_out: a token takes its nearest prototype (`hard`) or all, weighted by similarity (`soft`).
    temperature: of both softmaxes; the smaller, the sharper. learn_temperature: whether it is trained.
    identity_start: c, v and f begin as the identity, so that prototypes are clusters of the tower's own features.
    """

    num_prototypes: int = 256
    iterations: int = 2
    init: Literal["pool", "random"] = "pool"
    key_norm: Literal["channel", "token"] = "channel"
    read_out: Literal["hard", "soft"] = "soft"
    temperature: float = 0.05
    learn_temperature: bool = True
    identity_start: bool = True

    def __post_init__(self) -> None:
        if self.num_prototypes < 1 or self.iterations < 1:
            raise ConfigError("prototypes: num_prototypes and iterations must be at least 1")
        if not self.temperature > 0:
            raise ConfigError(f"prototypes: temperature is {self.temperature}; it must be above 0")
        for name, known in (
            ("init", ("pool", "random")),
            ("key_norm", ("channel", "token")),
            ("read_out", ("hard", "soft")),
        ):
            if getattr(self, name) not in known:
                raise ConfigError(f"prototypes: {name} is {getattr(self, name)!r}; known: {', '.join(known)}")


def released_options(num_prototypes: int = 256, iterations: int = 2) -> PrototypeOptions:
    """The form of the released SQ-LLaVA checkpoints; its prototypes all point in one direction."""
    return PrototypeOptions(
        num_prototypes,
        iterations,
        key_norm="token",
        read_out="hard",
        temperature=1.0,
        learn_temperature=False,
        identity_start=False,
    )


class Prototypes(NamedTuple):
    """What the tokens of images were grouped into.

    aggregated [B, L, D]: what is added to the tokens. centers [B, N, D]: prototypes. similarity [B, N, L], in (0, 1).
    assignment [B, N, L]: the last softmax over prototypes. features [B, L, D]: f(x). start [B, N, D]: first prototypes.
    """

    aggregated: Tensor
    centers: Tensor
    similarity: Tensor
    assignment: Tensor
    features: Tensor
    start: Tensor

    @property
    def winners(self) -> Tensor:
        """The most similar prototype of every token, int64 [B, L]; the first of equals."""
        return self.similarity.argmax(dim=1)


class PrototypeExtractor(nn.Module):
    """x [B, L, D] to x + what its prototypes say [B, L, D]; computed in float32 at least, result in the dtype of x."""

    def __init__(self, width: int, options: PrototypeOptions | None = None) -> None:
        super().__init__()
        self.options = options or PrototypeOptions()
        self.sim_alpha = nn.Parameter(torch.ones(1, 1, 1))
        self.sim_beta = nn.Parameter(torch.zeros(1, 1, 1))
        self.c, self.v, self.f = (nn.Linear(width, width) for _ in range(3))
        if self.options.identity_start:
            for layer in (self.c, self.v, self.f):
                nn.init.eye_(layer.weight)
                nn.init.zeros_(layer.bias)
        if self.options.learn_temperature:
            self.log_temperature = nn.Parameter(torch.tensor(self.options.temperature).log())
        if self.options.init == "random":
            self.prototypes = nn.Parameter(torch.randn(self.options.num_prototypes, width))

    def forward(self, x: Tensor) -> Tensor:
        """Tokens with their prototypes' share, [B, L, D]."""
        return x + self.group(x).aggregated.to(x.dtype)

    def group(self, x: Tensor) -> Prototypes:
        """The prototypes of images x [B, L, D] with everything that led to them."""
        with torch.autocast(x.device.type, enabled=False):
            return self._group(x.to(torch.promote_types(x.dtype, torch.float32)))

    def _group(self, x: Tensor) -> Prototypes:
        pool = pooling_matrix(x.shape[1], self.options.num_prototypes, x)
        keys, features = self._keys(_linear(self.v, x)), _linear(self.f, x)
        centers = start = self._start(pool, x)
        assignment = x.new_zeros(0)
        for _ in range(self.options.iterations):
            queries = self._direction(_linear(self.c, centers))
            assignment = (queries @ keys.mT / self._temperature(x)).softmax(dim=1)
            centers = self._averaged(assignment) @ features
        cosine = self._direction(centers) @ self._direction(x).mT
        similarity = torch.sigmoid(self.sim_beta.to(x.dtype) + self.sim_alpha.to(x.dtype) * cosine)
        shares = self._shares(cosine, similarity)
        weights = shares * similarity
        own = pool @ features if self.options.init == "pool" else centers
        aggregated = (weights @ features + own) / (shares.sum(dim=-1, keepdim=True) + 1)
        return Prototypes(weights.mT @ aggregated, centers, similarity, assignment, features, start)

    def _start(self, pool: Tensor, x: Tensor) -> Tensor:
        if self.options.init == "pool":
            return pool @ x
        return self.prototypes.to(x.dtype).expand(len(x), -1, -1)

    def _direction(self, vectors: Tensor) -> Tensor:
        """Unit vectors [B, n, D]; in the channel form, of what an image's vectors do not have in common."""
        if self.options.key_norm == "channel":
            vectors = vectors - vectors.mean(dim=1, keepdim=True)
        return functional.normalize(vectors, dim=-1, eps=EPSILON)

    def _keys(self, values: Tensor) -> Tensor:
        if self.options.key_norm == "channel":
            return self._direction(values)
        return functional.normalize(values, dim=1, eps=EPSILON)

    def _averaged(self, assignment: Tensor) -> Tensor:
        """Weights of the tokens in each prototype; the released form does not divide by their sum."""
        if self.options.key_norm == "token":
            return assignment
        return assignment / assignment.sum(dim=-1, keepdim=True).clamp_min(EPSILON)

    def _shares(self, cosine: Tensor, similarity: Tensor) -> Tensor:
        """How much of each token each prototype gets, [B, N, L], in all 1 per token."""
        if self.options.read_out == "soft":
            return (cosine / self._temperature(cosine)).softmax(dim=1)
        winners = similarity.argmax(dim=1, keepdim=True)
        return torch.zeros_like(similarity).scatter_(1, winners, 1.0)

    def _temperature(self, like: Tensor) -> Tensor | float:
        if not self.options.learn_temperature:
            return self.options.temperature
        return self.log_temperature.to(like.dtype).exp()


def pooling_matrix(n_tokens: int, n_prototypes: int, like: Tensor) -> Tensor:
    """Means of neighbouring tokens, [N, L]: row j covers the tokens floor(jL/N) to ceil((j+1)L/N) - 1 evenly."""
    rows = torch.arange(n_prototypes, device=like.device)
    tokens = torch.arange(n_tokens, device=like.device)
    first, last = rows * n_tokens // n_prototypes, -(-(rows + 1) * n_tokens // n_prototypes)
    inside = ((tokens >= first[:, None]) & (tokens < last[:, None])).to(like.dtype)
    return inside / inside.sum(dim=1, keepdim=True)


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    return functional.linear(x, layer.weight.to(x.dtype), layer.bias.to(x.dtype))
