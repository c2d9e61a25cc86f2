"""Failed policies: which count, and the exact interval of their share."""

import pytest
from returns import table

from fmbpo.compare.comparison import Cell
from fmbpo.compare.failures import failures, proportion


def test_a_policy_below_a_share_of_the_planner_fails():
    scores = table(
        ap={"hard": [599.0, 600.0, 100.0, 900.0], "easy": [950.0, 540.0], "other": [0.0]},
        aq={"hard": [700.0, 800.0]},
        bp={"other": [0.0]},
    )
    found = failures(scores, {"hard": 1000.0, "easy": 900.0, "elsewhere": 5.0})
    assert [one.cell for one in found] == [Cell("a", "p"), Cell("a", "q")]  # b knows no planner
    first, second = found
    assert (first.policies, first.by_task, first.failed) == (6, {"hard": 2}, 2)
    assert first.rate.value == pytest.approx(1 / 3)
    assert (second.policies, second.by_task, second.rate.value) == (2, {}, 0.0)
    assert failures(scores, {"hard": 0.0, "easy": -1.0}) == []  # a share of it means nothing


@pytest.mark.parametrize("n", [1, 20, 600])
def test_exact_ends(n):
    """Without any failure, the upper end is the rate at which that has a probability of 2.5 %."""
    none, all_of_them = proportion(0, n), proportion(n, n)
    assert none.low == 0.0
    assert (1 - none.high) ** n == pytest.approx(0.025)
    assert (all_of_them.low, all_of_them.high) == pytest.approx((1 - none.high, 1.0))


def test_a_known_interval():
    """1 of 20: Clopper and Pearson's table has 0.001 to 0.249."""
    found = proportion(1, 20)
    assert (found.low, found.high) == pytest.approx((0.00127, 0.24873), abs=1e-5)
