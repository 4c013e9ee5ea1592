from collections.abc import Iterator

import pytest

from vsel_platform.demo.artwork import Drawing
from vsel_platform.demo.dataset import DemoDataset, PlannedRows, ensure_dataset, plan_rows

CONCEPTS = 40


@pytest.fixture(scope="session")
def plan() -> PlannedRows:
    """All rows of the full demo; nothing is written."""
    return plan_rows()


@pytest.fixture(scope="session")
def drawings(plan: PlannedRows) -> list[Drawing]:
    splits = plan.splits
    return [*splits.alignment, *splits.pool, *splits.evaluation]


@pytest.fixture(scope="session")
def drawing_of(drawings: list[Drawing]) -> dict[str, Drawing]:
    return {drawing.id: drawing for drawing in drawings}


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        folder = str(tmp_path_factory.mktemp("cache"))
        patch.setenv("VSEL_CACHE", folder)
        yield folder


@pytest.fixture(scope="session")
def small(cache: str) -> DemoDataset:
    """A rendered demo of a few concepts."""
    return ensure_dataset(concept_limit=CONCEPTS)
