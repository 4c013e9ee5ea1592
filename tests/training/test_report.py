"""What a training run did, in numbers."""

import itertools
import json

from hypothesis import given
from hypothesis import strategies as st

from vsel_platform.training.history import History
from vsel_platform.training.report import THROUGHPUT_POINTS, TrainingReport, throughput


@given(st.lists(st.tuples(st.integers(1, 9), st.floats(0.1, 9)), min_size=1, max_size=350))
def test_throughput_covers_all_steps_in_few_points(steps):
    history = History(rows=[n for n, _ in steps], tokens=[10 * n for n, _ in steps], seconds=[s for _, s in steps])
    points = list(throughput(history))
    assert len(points) <= THROUGHPUT_POINTS
    assert points[-1][0] == len(steps)
    assert all(a[0] < b[0] for a, b in itertools.pairwise(points))


def test_throughput_is_of_the_steps_since_the_point_before():
    history = History(rows=[4, 2], tokens=[40, 20], seconds=[2.0, 0.5])
    assert list(throughput(history)) == [(1, 2.0, 20.0), (2, 4.0, 40.0)]


def test_a_report_is_plain_values():
    report = TrainingReport(1, 2, 0, 1.0, 0.5, 3.0, 2.0, 10, "abc", 4.0, 40.0, prototypes={"used": 2.0})
    assert json.loads(json.dumps(report.to_dict()))["prototypes"] == {"used": 2.0}
