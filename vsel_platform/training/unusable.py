"""How many rows may turn out to have nothing to learn before a training is refused."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from vsel_platform.errors import ModelError
from vsel_platform.models.images import ContentFailure

UNREADABLE = "unreadable"
NOTHING_TO_LEARN = "nothing_to_learn"
ADVICE = {
    UNREADABLE: "Correct these rows",
    NOTHING_TO_LEARN: "Look at vlm.max_tokens, vlm.template and the rows",
}
IMAGE_ADVICE = "Put the images back where the dataset has them"


@dataclass(frozen=True)
class UnusableLimit:
    """`max_unusable` (a share) of `n_rows`, of which some were left out before, and `planned` have a turn.

    `planned` is less than what is left only in trainings of less than one epoch; what was left out counts in
    proportion there.
    """

    left_out: Collection[ContentFailure]
    n_rows: int
    planned: int
    max_unusable: float

    def share(self, n_failed: int) -> float:
        """Share of unusable rows if so many of the planned ones failed."""
        kept = self.n_rows - len(self.left_out)
        return (len(self.left_out) * self.planned + kept * n_failed) / (self.n_rows * self.planned)

    def exceeded(self, n_failed: int) -> bool:
        """Whether so many failed rows are too many."""
        return self.share(n_failed) > self.max_unusable

    def check(self, failed: Collection[ContentFailure]) -> None:
        """Raises ModelError if these failed rows, each of them once, are too many: with the most frequent reason, and
        the first row that it met."""
        if not self.exceeded(len(failed)):
            return
        found = sorted([*self.left_out, *failed], key=lambda failure: failure.content_id)
        (reason, count), *_ = Counter(failure.reason for failure in found).most_common(1)
        first = next(failure for failure in found if failure.reason == reason)
        raise ModelError(
            f"training: {len(found):,} of {len(self.left_out) + self.planned:,} rows cannot be learned from, "
            f"{self.share(len(failed)):.1%}, more than lora.max_unusable ({self.max_unusable:.1%}). Most often "
            f"({count:,}): {reason}, such as row {first.content_id}: {first.detail}. "
            f"{ADVICE.get(reason, IMAGE_ADVICE)}, or raise lora.max_unusable"
        )
