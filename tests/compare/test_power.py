"""The power of planned comparisons, against simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from fmbpo.compare.comparison import Cell
from fmbpo.compare.contrasts import contrasts
from fmbpo.compare.power import (
    design,
    equivalence_power,
    planned,
    power,
    replicates_needed,
    rescaled,
    smallest_found,
)

MARGIN = 0.03


def test_power_against_simulation():
    """Five replicates of two kinds: the share of significant and of equivalent tests."""
    rng, n, spread = np.random.default_rng(1), 5, 0.02
    test = design(spread, n)
    assert (test.error, test.freedom) == (pytest.approx(spread * math.sqrt(2 / n)), 8)
    for true in (0.0, 0.03):
        x = rng.normal(0, spread, (2, 20_000, n)) + np.array([true, 0])[:, None, None]
        p = stats.ttest_ind(*x, axis=-1).pvalue
        ahead = (p < 0.05) & (x[0].mean(-1) > x[1].mean(-1))
        assert power(test, true) == pytest.approx(ahead.mean(), abs=0.01)
        error = np.sqrt(x.var(-1, ddof=1).sum(0) / n)
        size = np.abs(x[0].mean(-1) - x[1].mean(-1))
        equivalent = size + stats.t.ppf(0.95, 8) * error < MARGIN
        assert equivalence_power(test, MARGIN, true) == pytest.approx(equivalent.mean(), abs=0.01)


def test_power_grows_with_replicates_and_needs_two():
    found = [power(design(1.0, n), 1.5) for n in (2, 3, 5, 10)]
    assert found == sorted(found)
    assert power(design(1.0, 1), 9.0) == equivalence_power(design(1.0, 1), 9.0) == 0
    # A policy's effect, the mean of the differences in two kinds of world models.
    policy = design(1.0, 3, weights=(0.5, 0.5))
    assert (policy.error, policy.freedom) == (pytest.approx(1 / math.sqrt(6)), 4)
    assert power(policy, -1.5) == power(policy, 1.5) > power(design(1.0, 3), 1.5)
    assert (power(design(0.0, 3), 1.0), equivalence_power(design(0.0, 3), 0.1)) == (1, 1)


def test_a_stricter_level_against_scipy():
    test = design(0.02, 5)
    for alpha in (0.05, 0.05 / 3):
        critical = stats.t.ppf(1 - alpha / 2, 8)
        want = stats.nct.sf(critical, 8, MARGIN / test.error)
        assert power(test, MARGIN, alpha) == pytest.approx(want, rel=1e-6)
    found = [equivalence_power(test, MARGIN, alpha=alpha) for alpha in (0.05, 0.05 / 3)]
    assert found == sorted(found, reverse=True)


def test_the_smallest_difference_and_the_replicates_for_it():
    test = design(0.02, 5)
    smallest = smallest_found(test)
    assert power(test, smallest) == pytest.approx(0.8, abs=1e-3)
    # Cohen's d of 2.02 for two groups of five (G*Power).
    assert smallest / 0.02 == pytest.approx(2.02, abs=0.01)
    assert smallest_found(test, 0.01) > smallest
    assert smallest_found(design(0.02, 1)) == math.inf
    # Two groups of 17 for a Cohen's d of 1 (Cohen 1988, table 2.4.1).
    assert replicates_needed(lambda n: power(design(1.0, n), 1.0)) == 17
    assert replicates_needed(lambda n: power(design(1.0, n), 0.001)) is None


@pytest.mark.parametrize("weights", [(1.0, -1.0), (0.5, 0.5)])
def test_a_test_with_more_replicates_of_the_same_spread(weights):
    three, seven = (design(0.02, n, weights) for n in (3, 7))
    found = rescaled(three.error, three.freedom, 3, 7)
    assert (found.error, found.freedom) == (pytest.approx(seven.error), seven.freedom)


def test_each_kind_of_contrast_has_its_design():
    cells = [Cell(model, policy) for model in "ab" for policy in "pq"]
    models, policies, crossed = contrasts(cells)
    assert planned(models, 0.1, 4) == design(0.1, 4)
    assert planned(policies, 0.1, 4) == design(0.1, 4, [0.5, 0.5])
    assert planned(crossed, 0.1, 4) == design(0.1, 4)
    (one,) = contrasts(cells[:2])
    assert planned(one, 0.1, 4).freedom == 3
