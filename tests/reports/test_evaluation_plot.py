import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text

from vsel_platform.evaluation.gains import TaskComparison
from vsel_platform.reports.evaluation_plot import MAX_TASKS, evaluation_bars, nothing_right
from vsel_platform.reports.style import MAX_PNG_BYTES, WARNING

RESULTS = [
    TaskComparison("good", 150, 10, 80, (6, 16), (73, 86), (60, 78), 5.0, 1.0),
    TaskComparison("same", 150, 50, 52, (42, 58), (44, 60), (-9, 13), 1.0, 0.9),
    TaskComparison("caption", 60, 0, 0, (0, 0), (0, 0), (0, 0), 1.255, 1.475),
]


def test_every_task_has_its_verdict_and_both_measures(drawn):
    png = evaluation_bars(RESULTS, title="T")
    assert png is not None
    assert len(png) < MAX_PNG_BYTES
    exact, loss = drawn[0].axes
    assert [text.get_text() for text in exact.get_yticklabels()] == [
        "good\nlearned", "same\nnot learned", "caption\nworse"
    ]  # fmt: skip
    assert exact.get_xlabel() == "exact match [% of answers]"
    assert loss.get_xlabel() == "loss [nat/token]"
    assert exact.get_xlim() == (0, 100)
    assert [text.get_text() for text in loss.texts] == ["5.00", "1.00", "1.00", "0.90", "1.25", "1.48"]
    assert any("1 of 3 tasks learned" in t.get_text() and "1 worse" in t.get_text() for t in drawn[0].findobj(Text))


def test_a_loss_that_rises_differs_in_more_than_colour(drawn):
    evaluation_bars(RESULTS, title="T")
    tuned = drawn[0].axes[1].patches[1::2]
    assert [bar.get_hatch() for bar in tuned] == [None, None, "////"]
    assert to_hex(tuned[2].get_edgecolor()) == WARNING


def test_the_legend_names_the_interval(drawn):
    evaluation_bars(RESULTS, title="T")
    names = [text.get_text() for text in drawn[0].axes[0].get_legend().get_texts()]
    assert names == ["base model", "tuned", "tuned: not learned, or loss higher", "95 % interval"]


def test_many_tasks_end_with_how_many_are_left(drawn):
    results = [TaskComparison(f"t{i}", 10, 0, 50, (0, 0), (20, 80), (20, 80), 1.0, 0.5) for i in range(30)]
    evaluation_bars(results, title="T")
    assert drawn[0].axes[0].get_yticklabels()[-1].get_text() == f"({30 - MAX_TASKS} more tasks)"


def test_another_metric_has_its_name_unit_and_scale_and_may_have_no_losses(drawn):
    points = TaskComparison("perception", 90, 900, 1400, (850, 950), (1350, 1450), (430, 570), unit="points")
    evaluation_bars([points], title="T", measure="score")
    metric, loss = drawn[0].axes
    assert metric.get_xlabel() == "score [points]"
    assert metric.get_xlim()[1] >= 1450
    assert not loss.texts


def test_intervals_are_drawn_where_they_are(drawn):
    evaluation_bars(RESULTS[:1], title="T")
    ends = [segment[:, 0].tolist() for lines in drawn[0].axes[0].collections for segment in lines.get_segments()]
    assert ends == [[6, 16], [73, 86]]


def test_a_single_cluster_has_no_interval(drawn):
    one = TaskComparison("one", 2, 50, 50, (50, 50), (50, 50), (0, 0))
    evaluation_bars([*RESULTS[:1], one], title="T")
    assert sum(len(lines.get_segments()) for lines in drawn[0].axes[0].collections) == 2


@pytest.mark.parametrize(
    ("measure", "label"),
    [("f1", "f1 [%]"), ("circular accuracy", "circular accuracy [%]"), ("accuracy", "accuracy [% of answers]")],
)
def test_only_a_share_of_answers_is_called_one(drawn, measure, label):
    evaluation_bars(RESULTS, title="T", measure=measure)
    assert drawn[0].axes[0].get_xlabel() == label


def test_tasks_without_a_right_answer_are_told_for_the_metric_and_the_loss_if_there_is_one(drawn):
    yes_no = TaskComparison("yes", 10, 0, 0, (0, 30), (0, 30), (0, 0))
    assert nothing_right(RESULTS, "accuracy") == [
        "No answer is right before or after in: caption. What was learned of them accuracy cannot show; their loss can."
    ]
    assert nothing_right([yes_no, RESULTS[2]], "f1") == [
        "No answer is right before or after in: caption, yes. What was learned of them f1 cannot show."
    ]
    assert nothing_right(RESULTS[:2], "f1") == []
    for results in (RESULTS, [yes_no]):
        evaluation_bars(results, title="T")
    ends = [next(t for t in (x.get_text() for x in f.findobj(Text)) if "without any right" in t) for f in drawn]
    assert [text.endswith(": see the loss") for text in ends] == [True, False]


def test_no_rows_are_no_plot():
    assert evaluation_bars([], title="T") is None
