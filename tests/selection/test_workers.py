"""Work in fixed pieces."""

import pytest

from vsel_platform.selection.workers import workers


@pytest.mark.parametrize("n_threads", [1, 4])
def test_results_come_in_order_and_blocks_cover_the_rows(n_threads):
    with workers(n_threads) as pool:
        assert pool.map(lambda x: x * x, range(50)) == [x * x for x in range(50)]
        blocks = pool.blocks(lambda rows: (rows.start, rows.stop), 10, 4)
    assert blocks == [(0, 4), (4, 8), (8, 10)]


def test_an_error_in_a_piece_is_raised():
    with workers(2) as pool, pytest.raises(ZeroDivisionError):
        pool.map(lambda x: 1 // x, [1, 0])
