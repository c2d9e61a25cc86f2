"""Statistics by hand, and against scipy where it has a closed form."""

import itertools
import math

import numpy as np
import pytest
from returns import blocks, parts, table
from scipy import stats

from fmbpo.compare import statistics
from fmbpo.compare.comparison import Cell, Estimate
from fmbpo.compare.strata import strata

A, B = Cell("a", "p"), Cell("a", "q")


def test_interquartile_mean_by_hand():
    # Eight runs of two tasks: without the lowest two and the highest two.
    assert statistics.iqm(*blocks([1, 2, 3, 4], [5, 6, 7, 100])) == pytest.approx(4.5)
    # Of three, a quarter is less than one run.
    assert statistics.iqm(*blocks([0, 0, 9])) == pytest.approx(3.0)

    # Rows of a block are runs like any other.
    assert statistics.iqm(np.array([[1.0, 2, 3, 4], [5, 6, 7, 100]])) == pytest.approx(4.5)


def test_profile_by_hand():
    at = np.array([0.0, 3.5, 6.0])
    for found in (parts([1, 4, 6], [5, 7]), whole(t=[1, 4, 6], u=[5, 7, 7])):
        share, low, high = statistics.profile(found, at)
        assert (low <= share).all()
        assert (share <= high).all()
        # Tasks count alike: 2 of 3 and all, 0 of 3 and some.
        last = 1 / 2 if len(found) == 2 else 2 / 3
        np.testing.assert_allclose(share, [1, (2 / 3 + 1) / 2, last / 2])


def whole(**tasks):
    """The one stratum of a cell with a world model for each replicate."""
    return strata(table("replicated", ap=tasks), [A], list(tasks))


def test_a_world_model_is_resampled_with_all_its_tasks():
    """World models that are good or bad on all tasks: three numbers, not nine."""
    tasks = {name: [400.0, 500.0, 600.0] for name in "tuv"}
    (part,) = whole(**tasks)
    assert part.values.shape == (3, 3)
    found, apart = statistics.iqm_of([part]), statistics.iqm_of(parts(*tasks.values()))
    assert found.value == apart.value == pytest.approx(500)
    assert found.high - found.low > 2 * (apart.high - apart.low)
    at = np.array([450.0])
    assert [x.tolist() for x in statistics.profile([part], at)] == [
        pytest.approx([2 / 3]), [0], [1],
    ]  # fmt: skip


def test_without_some_policies_there_is_no_interval():
    found = whole(t=[1.0, 2, 3], u=[2.0, 3])
    assert statistics.iqm_of(found) == Estimate(pytest.approx(7 / 3))  # 2, 2, 3
    share, low, high = statistics.profile(found, np.array([1.5]))
    assert share == low == high == pytest.approx((2 / 3 + 1) / 2)
    both = strata(table("replicated", ap={"t": [1.0, 5, 3]}, aq={"t": [2.0, 3]}), [A, B], ["t"])
    assert statistics.improvement(both, [(A, B)], interval=True) == Estimate(0.5)


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
    low, high = statistics.student_interval(blocks(values), statistics.total)
    half = stats.t.ppf(0.975, 2) * np.std(values, ddof=1) / math.sqrt(3)
    want = (np.mean(values) - half, np.mean(values) + half)
    assert (low[0], high[0]) == pytest.approx(want)
    assert np.ravel(statistics.interval(blocks(values), statistics.total)) == pytest.approx(want)


def test_bootstrap_interval_against_all_resamples():
    """Two tasks of three seeds have 729 resamples: their quantiles without chance."""
    data = [[1.0, 4.0, 9.0], [2.0, 3.0, 11.0]]
    means = [[np.mean(draw) for draw in itertools.product(task, repeat=3)] for task in data]
    every = np.array([a + b for a in means[0] for b in means[1]])
    at = statistics.tail([3, 3])
    found = np.ravel(statistics.bootstrap_interval(blocks(*data), statistics.total))
    assert found == pytest.approx(np.quantile(every, [at, 1 - at]), abs=0.7)
    # Without the correction it would be this much narrower.
    assert found[0] < np.quantile(every, 0.025) - 0.6


def test_replicates_of_a_block_are_resampled_together():
    """Two numbers with the same noise: their difference has no spread."""
    block = np.array([[1.0, 5.0, 9.0, 2.0, 7.0, 3.0], [3.0, 7.0, 11.0, 4.0, 9.0, 5.0]])

    def rise(*blocks, axis=-1):
        first, *_, last = [row.mean(axis) for block in blocks for row in block]
        return last - first

    assert statistics.bootstrap_interval([block], rise) == pytest.approx((2.0, 2.0))
    low, high = statistics.bootstrap_interval([block[:1], block[1:]], rise)
    assert low < 0 < 4 < high


def test_one_replicate_has_no_interval():
    assert statistics.iqm_of(parts([3], [4])) == Estimate(3.5)
    assert statistics.iqm_of(parts([3, 5], [4])) == Estimate(4.0)


def test_probability_of_improvement_by_hand():
    a, b = [1, 5, 7], [2, 5, 9]
    apart, paired = (
        strata(table(models, ap={"t": a}, aq={"t": b}), [A, B], ["t"])
        for models in ("own", "replicated")
    )
    # 9 pairs: 5 > 2, 5 = 5, 7 > 2, 7 > 5.
    found = statistics.improvement(apart, [(A, B)], interval=False)
    assert found == Estimate(pytest.approx(3.5 / 9))
    assert found.value == pytest.approx(stats.mannwhitneyu(a, b).statistic / 9)
    # In the same world model: 1 < 2, 5 = 5, 7 < 9.
    found = statistics.improvement(paired, [(A, B)], interval=False)
    assert found == Estimate(pytest.approx(0.5 / 3))
    # Two tasks count alike.
    scores = table(ap={"t": a, "u": [3, 4]}, aq={"t": b, "u": [1, 2]})
    both = statistics.improvement(strata(scores, [A, B], ["t", "u"]), [(A, B)], interval=False)
    assert both.value == pytest.approx((3.5 / 9 + 1) / 2)
    assert statistics.improvement(apart, [], interval=True) is None
