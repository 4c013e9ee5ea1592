"""What a training run did, in numbers."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from vsel_platform.training.history import History

THROUGHPUT_POINTS = 100


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """What a training run did; losses are means over the steps of the first and of the last epoch [nat/token].

    `training_seconds` are those of the steps and of the pictures in them, without loading the model; those of steps
    before a resume count. What was measured at every step lies beside the adapter, in `losses.json`. rows_per_s and
    tokens_per_s are those of the steps (of all processes together). resumed_at: step that a killed training went on
    from, 0: from the start. n_questions: turns that were learned as the virtual user's questions. throughput: (step,
    rows/s, tokens/s) over the steps before, at most 100 of them. prototypes: how they were used when they were looked
    at last (`models.prototype_usage`); empty without any.
    """

    steps: int
    rows: int
    n_skipped: int
    seconds: float
    training_seconds: float
    first_epoch_loss: float
    last_epoch_loss: float
    trainable_parameters: int
    adapter_sha256: str
    rows_per_s: float
    tokens_per_s: float
    resumed_at: int = 0
    n_questions: int = 0
    throughput: tuple[tuple[int, float, float], ...] = ()
    prototypes: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def throughput(history: History) -> Iterator[tuple[int, float, float]]:
    """(step, rows/s, tokens/s) over the steps before, at most `THROUGHPUT_POINTS` of them."""
    size = max(1, -(-len(history.seconds) // THROUGHPUT_POINTS))
    for start in range(0, len(history.seconds), size):
        part = slice(start, start + size)
        seconds = max(sum(history.seconds[part]), 1e-9)
        end = min(start + size, len(history.seconds))
        yield end, round(sum(history.rows[part]) / seconds, 2), round(sum(history.tokens[part]) / seconds, 1)
