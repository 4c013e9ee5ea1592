import math

from matplotlib.text import Text

from vsel_platform.reports.style import MAX_PNG_BYTES
from vsel_platform.reports.training_plots import split_losses, throughput_curve


def texts(figure):
    return " ".join(text.get_text() for text in figure.findobj(Text))


def test_losses_of_answers_and_questions_are_two_lines(drawn):
    record = {"answer_loss": [3.0, 2.0, 1.0], "question_loss": [4.0, math.nan, 2.0]}
    png = split_losses(record, title="T")
    assert png is not None and len(png) < MAX_PNG_BYTES
    answers, questions = drawn[0].axes[0].get_lines()
    assert (list(answers.get_xdata()), list(answers.get_ydata())) == ([1, 2, 3], [3.0, 2.0, 1.0])
    assert list(questions.get_xdata()) == [1, 3]
    assert "nat/token" in texts(drawn[0])


def test_without_questions_there_is_nothing_to_split():
    assert split_losses({"answer_loss": [1.0], "question_loss": [math.nan]}, title="T") is None
    assert split_losses({"loss": [1.0]}, title="T") is None


def test_throughput_is_told_in_rows_and_tokens(drawn):
    assert throughput_curve([(5, 10.0, 400.0), (10, 30.0, 600.0), (12, 20.0, 500.0)], title="T") is not None
    rows, tokens = drawn[0].axes
    assert list(rows.get_lines()[0].get_ydata()) == [10.0, 30.0, 20.0]
    assert list(tokens.get_lines()[0].get_ydata()) == [400.0, 600.0, 500.0]
    assert rows.get_ylim()[0] == tokens.get_ylim()[0] == 0
    assert "12 steps; median 20.0 rows/s, 500 tokens/s" in texts(drawn[0])


def test_no_points_are_no_plot():
    assert throughput_curve([], title="T") is None
