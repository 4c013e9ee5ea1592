"""What is measured at every step of a training."""

import math
from dataclasses import dataclass, field
from statistics import fmean


@dataclass
class History:
    """What was measured at every step, over all processes.

    loss: weighted mean of the targets' losses, the one that is minimised; answer_loss and question_loss: plain means,
    NaN without such targets [nat/token]. rows, tokens: that passed. seconds: of the step. prototypes: every
    `USAGE_EVERY` steps, how they group the tokens of images (`models.prototype_usage`), and at which step.
    """

    loss: list[float] = field(default_factory=list)
    answer_loss: list[float] = field(default_factory=list)
    question_loss: list[float] = field(default_factory=list)
    learning_rate: list[float] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    prototypes: list[dict[str, float]] = field(default_factory=list)

    def means(self, start: int) -> dict[str, float]:
        """What a tracker is told of the steps from `start` on; losses that no step had are left out."""
        spent = sum(self.seconds[start:])
        losses = {name: getattr(self, name)[start:] for name in ("loss", "answer_loss", "question_loss")}
        known = {name: [v for v in values if math.isfinite(v)] for name, values in losses.items()}
        found = {name: fmean(values) for name, values in known.items() if values}
        found |= {"learning_rate": self.learning_rate[-1]}
        found |= {f"{name}_per_s": sum(getattr(self, name)[start:]) / spent for name in ("rows", "tokens")}
        last = self.prototypes[-1] if self.prototypes else {}
        return found | {f"prototypes_{name}": value for name, value in last.items() if name != "step"}
