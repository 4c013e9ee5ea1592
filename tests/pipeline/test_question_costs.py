import pytest

from vsel_platform.pipeline.benchmarks import read_benchmark
from vsel_platform.pipeline.question_costs import benchmark_problem, model_passes, require_images


def test_plain_questions_take_a_pass_each(ctx):
    benchmark = read_benchmark(ctx, "held_out")
    assert model_passes(benchmark) == len(benchmark.questions) == 6
    require_images(benchmark)


@pytest.mark.parametrize(
    ("asking", "passes"),
    [
        ({"questions": 1, "question_tokens": 3, "answer_tokens": 3}, 1 + 2 + 1 + 4),  # 13 tokens, answers of 4
        ({"questions": 1, "question_tokens": 3, "answer_tokens": 3, "describe": False}, 2 + 1 + 3),
    ],
)
def test_self_questioning_takes_all_that_is_said_on_the_way(finished, asking, passes):
    settings = {"benchmarks.held_out.self_questioning": asking, "benchmarks.held_out.max_new_tokens": 4}
    assert model_passes(read_benchmark(finished.context(settings), "held_out")) == 6 * passes


def test_what_is_wrong_with_a_benchmark_is_told(finished):
    assert benchmark_problem(finished.context(), "held_out") is None
    moved = finished.context({"benchmarks.held_out.image_root": "nowhere"})
    assert "none of 6 images is there" in benchmark_problem(moved, "held_out")
    gone = finished.context({"benchmarks.held_out.questions": "nowhere.json"})
    assert "nowhere.json" in benchmark_problem(gone, "held_out")
