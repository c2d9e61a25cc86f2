"""Verdicts on expectations with a margin, of one hypothesis and of several."""

import math

import numpy as np
import pytest
from scipy import stats

from fmbpo.compare.comparison import OVERALL, Effect, Estimate
from fmbpo.compare.equivalence import PValues, corrected, outcome, p_values

MARGIN = 0.03


def effect(value, error=None, freedom=None, task=OVERALL):
    return Effect(
        name="", kind="policy", task=task, difference=Estimate(value), error=error,
        freedom=freedom, improvement=None, paired=True, verdict="",
    )  # fmt: skip


def verdict(one, expected):
    """Of a single hypothesis."""
    (p,) = corrected([p_values(one, MARGIN, expected)])
    return outcome(one.difference.value, p, expected)


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
    assert verdict(effect(value, error, 8.0), expected) == want
    assert verdict(effect(value), expected) == "undecided"
    # On one task, differences are returns.
    one = effect(1000 * value, 1000 * error, 8.0, task="t")
    assert verdict(one, expected) == want


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
        assert p_values(one, MARGIN, "above").equivalence == pytest.approx(p)
        assert (verdict(one, "equivalent") == "supported") == (p < 0.05)
        found.add(p < 0.05)
    assert found == {True, False}


def test_without_any_spread():
    assert p_values(effect(0.02, 0.0, 4.0), MARGIN, "above") == PValues(0.0, 0.0)
    assert p_values(effect(0.04, 0.0, 4.0), MARGIN, "above") == PValues(0.0, 1.0)
    assert p_values(effect(0.02, 0.0, 4.0), MARGIN, "equivalent") == PValues(1.0, 0.0)


def test_several_hypotheses():
    """Holm's factors count hypotheses, and one counts until both its tests are decided."""
    found = corrected([PValues(0.001, 0.9), PValues(0.01, 0.03), PValues(0.04, 0.5)])
    # 0.001 · 3, 0.01 · 3, 0.03 · 3 (a test of each is left), 0.04 · 2, ...
    assert found[0].difference == pytest.approx(0.003)
    assert found[1].difference == pytest.approx(0.03)
    assert found[1].equivalence == found[2].difference == pytest.approx(0.09)
    assert found[2].equivalence == 1.0
    assert corrected([PValues(0.2, 0.01)]) == [PValues(0.2, 0.01)]
    assert corrected([]) == []


@pytest.mark.parametrize("truths", [(0.0, 0.0, 0.0), (0.03, 0.03, -0.03), (0.0, 0.03, 0.03)])
def test_at_most_5_percent_of_studies_have_a_false_verdict(truths):
    """1500 studies of three hypotheses, at the truths that are hardest to tell from others."""
    rng, error, false = np.random.default_rng(2), 0.012, 0
    for _ in range(1500):
        values = rng.normal(truths, error)
        errors = error * np.sqrt(rng.chisquare(8, 3) / 8)
        effects = [effect(v, e, 8.0) for v, e in zip(values, errors, strict=True)]
        found = corrected([p_values(one, MARGIN, "above") for one in effects])
        false += any(
            (p.difference if true == 0 else p.equivalence) < 0.05
            for p, true in zip(found, truths, strict=True)
        )
    assert false / 1500 < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1500)
