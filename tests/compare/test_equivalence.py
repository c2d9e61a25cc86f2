"""Verdicts with a margin, and the power to reach them."""

import math

import numpy as np
import pytest
from scipy import stats

from fmbpo.compare.comparison import OVERALL, Effect, Estimate
from fmbpo.compare.equivalence import design, equivalence_power, outcome, power

MARGIN = 0.03


def effect(value, error=None, freedom=None, task=OVERALL):
    return Effect(
        name="", kind="policy", task=task, difference=Estimate(value), error=error,
        freedom=freedom, improvement=None, paired=True, verdict="",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("value", "error", "expected", "want"),
    [
        (0.10, 0.01, "above", "supported"),
        (0.10, 0.01, "below", "contradicted"),
        (-0.10, 0.01, "below", "supported"),
        (0.10, 0.09, "above", "undecided"),
        (0.00, 0.01, "above", "equivalent"),
        (0.00, 0.01, "equivalent", "supported"),
        (0.00, 0.03, "equivalent", "undecided"),
        # Significant, and yet too small to matter.
        (0.01, 0.001, "above", "equivalent"),
        (0.01, 0.001, "below", "equivalent"),
        # Significant, and not certainly beyond the margin.
        (0.04, 0.01, "above", "supported"),
        (0.04, 0.01, "equivalent", "undecided"),
        (-0.10, 0.01, "equivalent", "contradicted"),
    ],
)
def test_outcomes(value, error, expected, want):
    assert outcome(effect(value, error, 8.0), MARGIN, expected) == want
    assert outcome(effect(value), MARGIN, expected) == "undecided"
    # On one task, differences are returns.
    one = effect(1000 * value, 1000 * error, 8.0, task="t")
    assert outcome(one, MARGIN, expected) == want


def test_equivalence_is_two_one_sided_tests():
    """Against scipy's one-sided t tests of a sample, at both margins."""
    rng = np.random.default_rng(0)
    found = set()
    for _ in range(200):
        x = rng.normal(0, 0.03, 8)
        p = max(
            stats.ttest_1samp(x, -MARGIN, alternative="greater").pvalue,
            stats.ttest_1samp(x, MARGIN, alternative="less").pvalue,
        )
        one = effect(x.mean(), x.std(ddof=1) / math.sqrt(8), 7.0)
        assert (outcome(one, MARGIN, "equivalent") == "supported") == (p < 0.05)
        found.add(p < 0.05)
    assert found == {True, False}


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
