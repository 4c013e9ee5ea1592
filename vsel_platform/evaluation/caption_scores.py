"""BLEU, CIDEr-D and ROUGE-L of captions, over tokens.

BLEU is kept as sums per caption, so that captions can be resampled.
"""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Tokens = Sequence[str]
Counts = list[dict[tuple[str, ...], float]]

MAX_N = 4
CIDER_SIGMA = 6.0
CIDER_SCALE = 10.0
ROUGE_BETA = 1.2
# The published code adds these so that neither an empty caption nor a missing n-gram divides by zero.
_SMALL, _TINY = 1e-9, 1e-15


def ngrams(tokens: Tokens) -> list[Counter[tuple[str, ...]]]:
    """Counts of the n-grams of 1 .. 4 tokens, one counter per n."""
    return [
        Counter(tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1)) for n in range(1, MAX_N + 1)
    ]


def bleu_statistics(captions: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> NDArray[np.float64]:
    """Sums that BLEU is made of, float64 [captions, 10].

    Columns: length of the caption, length of the closest reference (the shorter of two equally close ones), n-grams of
    the caption for n = 1 .. 4, n-grams of it that a reference holds (clipped) for n = 1 .. 4 [tokens].
    Source: Papineni et al. 2002, "BLEU", sections 2.1 and 2.2. Raises ValueError for a caption without references.
    """
    return np.array([_bleu_row(c, r) for c, r in zip(captions, references, strict=True)]).reshape(-1, 2 + 2 * MAX_N)


def _bleu_row(caption: Tokens, references: Sequence[Tokens]) -> list[float]:
    length = len(caption)
    closest = min((abs(len(reference) - length), len(reference)) for reference in references)[1]
    counts, known = ngrams(caption), [ngrams(reference) for reference in references]
    correct = [
        sum(min(count, max(reference[n][gram] for reference in known)) for gram, count in counts[n].items())
        for n in range(MAX_N)
    ]
    return [length, closest, *(max(0, length - n) for n in range(MAX_N)), *correct]


def bleu(sums: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """Corpus BLEU-n in [0, 1] from sums [..., 10] of `bleu_statistics`; NaN without references.

    Source: Papineni et al. 2002, section 2.3, with the published COCO code's 1e-9 and 1e-15.
    """
    total, correct = sums[..., 2 : 2 + n], sums[..., 2 + MAX_N : 2 + MAX_N + n]
    precision = np.prod((correct + _TINY) / (total + _SMALL), axis=-1) ** (1.0 / n)
    ratio = (sums[..., 0] + _TINY) / (sums[..., 1] + _SMALL)
    penalty = np.where(ratio < 1.0, np.exp(1.0 - 1.0 / np.minimum(ratio, 1.0)), 1.0)
    score: NDArray[np.float64] = np.where(sums[..., 1] > 0, precision * penalty, np.nan)
    return score


def cider_d(captions: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> NDArray[np.float64]:
    """CIDEr-D of every caption, float64 [captions] in [0, 10]; the corpus score is their mean.

    The weights of the n-grams come from the references of all captions. All are zero for a single caption. Source:
    Vedantam et al. 2015, "CIDEr", section 5 (CIDEr-D, sigma 6), with bigrams as the length of a caption as in the
    published code. Raises ValueError for a caption without references.
    """
    counts = [[ngrams(reference) for reference in group] for group in references]
    if not all(counts):
        raise ValueError("a caption has no references")
    frequencies: Counter[tuple[str, ...]] = Counter()
    for group in counts:
        frequencies.update({gram for reference in group for counter in reference for gram in counter})
    log_n = math.log(len(counts)) if counts else 0.0
    weights = {gram: log_n - math.log(frequency) for gram, frequency in frequencies.items()}
    scores = []
    for caption, group in zip(captions, counts, strict=True):
        mine = _Vector(ngrams(caption), weights, log_n)
        others = [_Vector(reference, weights, log_n) for reference in group]
        scores.append(CIDER_SCALE * float(np.mean([mine.similarity(other) for other in others])))
    return np.array(scores, dtype=np.float64)


class _Vector:
    """n-grams of a text weighted by term frequency and inverse document frequency."""

    def __init__(
        self, counts: Sequence[Counter[tuple[str, ...]]], weights: dict[tuple[str, ...], float], unseen: float
    ) -> None:
        self.values = [{gram: n * weights.get(gram, unseen) for gram, n in counter.items()} for counter in counts]
        self.norms = [math.sqrt(sum(value**2 for value in level.values())) for level in self.values]
        self.length = sum(counts[1].values())

    def similarity(self, reference: "_Vector") -> float:
        """Mean over n of the clipped cosine, times the length penalty."""
        found = []
        for mine, other, norm, other_norm in zip(
            self.values, reference.values, self.norms, reference.norms, strict=True
        ):
            overlap = sum(min(value, other[gram]) * other[gram] for gram, value in mine.items() if gram in other)
            found.append(overlap / (norm * other_norm) if norm and other_norm else overlap)
        penalty = math.exp(-((self.length - reference.length) ** 2) / (2 * CIDER_SIGMA**2))
        return penalty * sum(found) / len(found)


def rouge_l(captions: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> NDArray[np.float64]:
    """ROUGE-L of every caption, float64 [captions] in [0, 1]; the corpus score is their mean.

    F-measure (beta 1.2) of the best precision and the best recall over the references, of their longest common
    subsequences with the caption. Source: Lin 2004, "ROUGE", section 3, with the published COCO code's beta. Raises
    ValueError for a caption without references.
    """
    return np.array([_rouge(c, r) for c, r in zip(captions, references, strict=True)], dtype=np.float64)


def _rouge(caption: Tokens, references: Sequence[Tokens]) -> float:
    common = [_common_length(caption, reference) for reference in references]
    recall = max(n / max(1, len(reference)) for n, reference in zip(common, references, strict=True))
    precision = max(common) / max(1, len(caption))
    if not precision or not recall:
        return 0.0
    return (1 + ROUGE_BETA**2) * precision * recall / (recall + ROUGE_BETA**2 * precision)


def _common_length(first: Tokens, second: Tokens) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(second) + 1)
    for token in first:
        previous = row
        row = [0]
        for place, other in enumerate(second):
            row.append(previous[place] + 1 if token == other else max(previous[place + 1], row[place]))
    return row[-1]
