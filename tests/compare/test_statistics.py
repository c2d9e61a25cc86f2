"""Statistics by hand, and against scipy where it has a closed form."""

import itertools
import math

import numpy as np
import pytest
from returns import blocks
from scipy import stats

from fmbpo.compare import statistics
from fmbpo.compare.comparison import Estimate


def test_mean_weighs_tasks_alike():
    assert statistics.mean(*blocks([1, 2, 3], [10, 20])) == pytest.approx((2 + 15) / 2)


def test_interquartile_mean_by_hand():
    # Eight runs of two tasks: without the lowest two and the highest two.
    assert statistics.iqm(*blocks([1, 2, 3, 4], [5, 6, 7, 100])) == pytest.approx(4.5)
    # Of three, a quarter is less than one run.
    assert statistics.iqm(*blocks([0, 0, 9])) == pytest.approx(3.0)


def test_share_above():
    above = [np.array([[1.0, 1, 0], [0, 0, 0]]), np.array([[1.0, 1, 1], [0, 0, 1]])]
    np.testing.assert_allclose(statistics.share_above(*above), [5 / 6, 1 / 6])


def test_corrected_level():
    # Student's 2.776 for 4 degrees of freedom: -3.104 of a normal for one stratum of five,
    assert statistics.tail([5]) == pytest.approx(0.000954, rel=0.01)
    # -3.400 for two strata of three.
    assert statistics.tail([3, 3]) == pytest.approx(0.000337, rel=0.01)
    assert statistics.tail([10_000]) == pytest.approx(0.025, abs=1e-4)


@pytest.mark.parametrize(
    ("sizes", "want"),
    [([1], False), ([1, 9], False), ([3], False), ([5], False), ([6], True), ([3, 3], False),
     ([3, 3, 3], True), ([2] * 5, False), ([2] * 10, True)],
)  # fmt: skip
def test_what_resampling_can_reach(sizes, want):
    assert statistics.reachable(sizes) is want


def test_student_interval_of_a_mean_is_the_t_interval():
    values = [972.32, 977.35, 923.48]
    low, high = statistics.student_interval(blocks(values), statistics.mean)
    half = stats.t.ppf(0.975, 2) * np.std(values, ddof=1) / math.sqrt(3)
    assert (low, high) == pytest.approx((np.mean(values) - half, np.mean(values) + half))
    found = statistics.estimate(blocks(values), statistics.mean)
    assert (found.low, found.high) == pytest.approx((low, high))


def test_bootstrap_interval_against_all_resamples():
    """Two tasks of three seeds have 729 resamples: their quantiles without chance."""
    data = [[1.0, 4.0, 9.0], [2.0, 3.0, 11.0]]
    means = [[np.mean(draw) for draw in itertools.product(task, repeat=3)] for task in data]
    every = np.array([(a + b) / 2 for a in means[0] for b in means[1]])
    at = statistics.tail([3, 3])
    found = statistics.bootstrap_interval(blocks(*data), statistics.mean)
    assert found == pytest.approx(np.quantile(every, [at, 1 - at]), abs=0.35)
    # Without the correction it would be this much narrower.
    assert found[0] < np.quantile(every, 0.025) - 0.3


def test_seeds_of_a_block_are_resampled_together():
    """Two quantities with the same noise: their difference has no spread."""
    block = np.array([[1.0, 5.0, 9.0, 2.0, 7.0, 3.0], [3.0, 7.0, 11.0, 4.0, 9.0, 5.0]])
    paired = statistics.contrast([np.array([-1.0, 1.0])])
    assert statistics.bootstrap_interval([block], paired) == pytest.approx((2.0, 2.0))
    apart = statistics.contrast([np.array([-1.0]), np.array([1.0])])
    low, high = statistics.bootstrap_interval([block[:1], block[1:]], apart)
    assert low < 0 < 4 < high


def test_one_seed_has_no_interval():
    assert statistics.estimate(blocks([3], [4]), statistics.mean) == Estimate(3.5)
    assert statistics.estimate(blocks([3, 5], [4]), statistics.mean) == Estimate(4.0)


def test_probability_of_improvement_by_hand():
    a, b = blocks([1, 5, 7], [2, 5, 9])
    # 9 pairs: 5 > 2, 5 = 5, 7 > 2, 7 > 5.
    assert statistics.improvement([(0, 1)])(a, b) == pytest.approx(3.5 / 9)
    u = stats.mannwhitneyu(a[0], b[0]).statistic
    assert statistics.improvement([(0, 1)])(a, b) == pytest.approx(u / 9)
    # Paired: 1 < 2, 5 = 5, 7 < 9.
    paired = statistics.paired_improvement([(0, 1)])
    assert paired(np.concatenate([a, b])) == pytest.approx(0.5 / 3)
    # Two tasks count alike.
    c, d = blocks([3, 4], [1, 2])
    both = statistics.improvement([(0, 1), (2, 3)])(a, b, c, d)
    assert both == pytest.approx((3.5 / 9 + 1) / 2)
