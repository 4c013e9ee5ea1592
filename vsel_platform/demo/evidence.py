"""Methods x budgets x seeds on the demo's rows: the project behind the published leaderboard."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from vsel_platform.demo.project import write_project
from vsel_platform.errors import ConfigError

METHODS = (
    "presel",
    "scalselect",
    "free2ds",
    "visnec",
    "magic",
    "ccs",
    "semdedup",
    "coincide",
    "prism",
    "d2",
    "perplexity",
)
FIRST_SEED = 1


@dataclass(frozen=True, slots=True)
class Plan:
    """What is trained. Every run has one seed for its selection and its training."""

    methods: tuple[str, ...] = METHODS
    budgets: tuple[float, ...] = (5.0, 15.0)
    seeds: int = 3
    random_seeds: int = 5
    full_seeds: int = 1

    def __post_init__(self) -> None:
        if not self.methods or not self.budgets or min(self.seeds, self.full_seeds) < 1 or self.random_seeds < 2:
            raise ConfigError("evidence: name methods and budgets; at least one seed, and two of random selections")
        if any(not 0 < budget < 100 for budget in self.budgets):
            raise ConfigError("evidence: budgets are percent of the rows, above 0 and below 100")

    @property
    def n_runs(self) -> int:
        """Number of trainings."""
        return len(self.budgets) * (len(self.methods) * self.seeds + self.random_seeds) + self.full_seeds


def recipes(plan: Plan) -> str:
    """The recipes of a plan, as a section of a project file."""
    return "\n".join(["recipes:", *_lines(plan)]) + "\n\n"


def _lines(plan: Plan) -> Iterator[str]:
    # What everything is compared with comes first: a run that is stopped early can be judged then.
    for seed in _seeds(plan.full_seeds):
        yield _recipe(f"full_s{seed}", "random", 100, seed)
    for budget in plan.budgets:
        for seed in _seeds(plan.random_seeds):
            yield _recipe(f"random_{_percent(budget)}_s{seed}", "random", budget, seed)
    for seed in _seeds(plan.seeds):
        for budget in plan.budgets:
            for method in plan.methods:
                yield _recipe(f"{method}_{_percent(budget)}_s{seed}", method, budget, seed)


def _recipe(name: str, method: str, budget: float, seed: int) -> str:
    return (
        f"  {name}: {{{{dataset: {{dataset}}, method: {method}, budget: {{{{percent: {budget:g}}}}}, "
        f"seed: {seed}, training: {{{{seed: {seed}}}}}}}}}"
    )


def _seeds(count: int) -> Sequence[int]:
    return range(FIRST_SEED, FIRST_SEED + count)


def _percent(budget: float) -> str:
    return f"{budget:g}".replace(".", "_")


def write_evidence_project(directory: Path, plan: Plan, vlm: str | None = None) -> Path:
    """Write the project of a plan into `directory`; its file. A store that is there is used: only what is missing is
    computed.

    `vlm` is a model that takes the place of the embedded one, in its own template and with the default training
    settings: those of the demo are for a tiny model.
    """
    file = write_project(directory, recipes(plan))
    if vlm is not None:
        values = yaml.safe_load(file.read_text("utf-8"))
        values |= {"vlm": {"model": vlm}, "training": {}}
        values["reference"].pop("lora")
        file.write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), "utf-8")
    return file


def chunks(plan: Plan) -> list[list[str]]:
    """Recipes in the order in which they are brought up to date: after each chunk there is a leaderboard to look at."""
    first = [f"full_s{seed}" for seed in _seeds(plan.full_seeds)]
    first += [f"random_{_percent(budget)}_s{seed}" for budget in plan.budgets for seed in _seeds(plan.random_seeds)]
    rest = [
        [f"{method}_{_percent(budget)}_s{seed}" for budget in plan.budgets for method in plan.methods]
        for seed in _seeds(plan.seeds)
    ]
    return [first, *rest]
