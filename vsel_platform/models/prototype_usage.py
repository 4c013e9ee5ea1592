"""Whether the prototypes of an image differ, measured."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional

from vsel_platform.models.prototype_extractor import EPSILON, PrototypeExtractor, Prototypes


@dataclass(frozen=True, slots=True)
class PrototypeUsage:
    """Whether prototypes differ, mean over images.

    used: prototypes that win at least one token. entropy: of the tokens over the winners [nat], at most ln N.
    pairwise_cosine: mean cosine of two prototypes. token_cosine: the same of two tokens f(x), which is what there was
    to tell apart: where tokens have much in common, so have prototypes.
    """

    used: float
    entropy: float
    pairwise_cosine: float
    token_cosine: float

    @property
    def spread(self) -> float:
        """How different prototypes are, in parts of how different tokens are; 0 if all point in one direction."""
        return (1 - self.pairwise_cosine) / max(1 - self.token_cosine, EPSILON)

    def to_dict(self) -> dict[str, float]:
        """Plain values, for a log."""
        return asdict(self) | {"spread": self.spread}


def prototype_usage(extractor: PrototypeExtractor, x: Tensor) -> PrototypeUsage:
    """How an extractor groups the tokens of images x [B, L, D]; no gradient."""
    with torch.no_grad():
        return usage_of(extractor.group(x))


@torch.no_grad()
def usage_of(found: Prototypes) -> PrototypeUsage:
    """How the tokens of images were grouped."""
    counts = functional.one_hot(found.winners, found.centers.shape[1]).sum(dim=1).double()
    parts = counts / counts.sum(dim=1, keepdim=True)
    return PrototypeUsage(
        used=float((counts > 0).sum(dim=1).double().mean()),
        entropy=float(torch.special.entr(parts).sum(dim=1).mean()),
        pairwise_cosine=_mean_cosine(found.centers),
        token_cosine=_mean_cosine(found.features),
    )


def mean_usage(parts: Sequence[tuple[int, PrototypeUsage]]) -> PrototypeUsage:
    """Of several (number of images, usage), which are not none."""
    total = sum(n for n, _ in parts)
    names = [field.name for field in fields(PrototypeUsage)]
    return PrototypeUsage(**{name: sum(n * getattr(own, name) for n, own in parts) / total for name in names})


def _mean_cosine(vectors: Tensor) -> float:
    """Mean over images of the mean cosine of two different vectors of [B, n, D]; 1 if there is only one."""
    n = vectors.shape[1]
    if n == 1:
        return 1.0
    total = functional.normalize(vectors.double(), dim=-1, eps=EPSILON).sum(dim=1).square().sum(dim=-1)
    return float(((total - n) / (n * (n - 1))).mean())
