"""Tests by hand, and against scipy where it has the same test."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from returns import table
from scipy import stats

from fmbpo.compare.comparison import Cell, Score
from fmbpo.compare.contrasts import contrasts
from fmbpo.compare.strata import strata
from fmbpo.compare.t_test import Difference, difference, holm

FEW = st.lists(st.integers(0, 1000), min_size=2, max_size=5, unique=True)


def difference_of(scores, name, tasks=("t",)):
    (of,) = (one for one in contrasts(list(scores)) if one.name == name)
    return difference(strata(scores, of.weights, tasks), of.weights)


def same_as(found, want):
    """``want``: a result of scipy.stats."""
    assert found.p == pytest.approx(want.pvalue, rel=1e-9)
    assert found.value / found.error == pytest.approx(want.statistic, rel=1e-9)
    assert found.freedom == pytest.approx(want.df)


@given(FEW, FEW)
def test_independent_policies_have_welchs_t(p, q):
    for models in ("own", "one"):
        found = difference_of(table(models, ap={"t": p}, aq={"t": q}), "policy: p - q")
        same_as(found, stats.ttest_ind(p, q, equal_var=False))
    low, high = stats.ttest_ind(p, q, equal_var=False).confidence_interval(0.95)
    assert (found.estimate.low, found.estimate.high) == pytest.approx((low, high))


def test_policies_in_the_same_world_models_have_the_paired_t():
    p, q = [0.0, 100, 200, 300], [9.0, 111, 210, 312]
    scores = table("replicated", ap={"t": p}, aq={"t": q})
    same_as(difference_of(scores, "policy: p - q"), stats.ttest_rel(p, q))


def test_world_models_have_welchs_t_of_their_means():
    """Over policies and tasks; what all tasks of a world model share does not cancel."""
    rng = np.random.default_rng(0)
    x = rng.normal(500, 100, (2, 2, 2, 3))  # kind, policy, task, replicate
    cells = {f"{w}{p}": {t: x[i, j, k] for k, t in enumerate("tu")}
             for i, w in enumerate("ab") for j, p in enumerate("pq")}  # fmt: skip
    a, b = x.mean((1, 2))
    found = difference_of(table("replicated", **cells), "world model: a - b", ["t", "u"])
    same_as(found, stats.ttest_ind(a, b, equal_var=False))
    # The policy: differences within world models of each kind, whose mean is averaged over kinds.
    inside = (x[:, 0] - x[:, 1]).mean(1)
    found = difference_of(table("replicated", **cells), "policy: p - q", ["t", "u"])
    variances = inside.var(1, ddof=1) / 3
    assert found.error == pytest.approx(math.sqrt(variances.sum()) / 2)
    assert found.freedom == pytest.approx(variances.sum() ** 2 / (variances**2 / 2).sum())


def test_tasks_of_unequal_spread_have_the_freedom_of_the_noisiest():
    """From scratch: the task with 300 times the noise decides; pooled it would be 8."""
    loud, quiet = [0.0, 300, 900], [1.0, 2, 3]
    scores = table(ap={"t": loud, "u": quiet}, aq={"t": quiet, "u": quiet})
    found = difference_of(scores, "policy: p - q", ["t", "u"])
    assert found.freedom == pytest.approx(2, abs=0.001)
    assert found.error == pytest.approx(np.std(loud, ddof=1) / math.sqrt(3) / 2, rel=1e-3)


def test_several_policies_of_a_world_model_are_one_replicate():
    def cell(policy, values):
        seeds = [f"{r}{part}" for r in (1, 2, 3) for part in ("", ".1")]
        return {
            Cell("a", policy): {
                "t": {s: Score(v, world_model=s[0]) for s, v in zip(seeds, values, strict=True)}
            }
        }

    p, q = [1.0, 3, 10, 20, 5, 7], [2.0, 2, 30, 50, 4, 9]
    found = difference_of(cell("p", p) | cell("q", q), "policy: p - q")
    means = [np.reshape(x, (3, 2)).mean(1) for x in (p, q)]
    same_as(found, stats.ttest_rel(*means))


def test_missing_replicates_make_no_degrees_of_freedom():
    scores = table("replicated", ap={"t": [1.0, 2, 3, 4]}, aq={"t": [2.0, 4, 9]})
    found = difference_of(scores, "policy: p - q")
    assert found.value == pytest.approx(2.5 - 5)
    assert found.freedom == 2
    assert difference_of(table(ap={"t": [1.0, 2]}, aq={"t": [3.0]}), "policy: p - q").error is None


def test_without_noise():
    same, apart = ({"t": [5.0, 5.0]}, {"t": [7.0, 7.0]})
    found = difference_of(table(ap=same, aq=same), "policy: p - q")
    assert (found.value, found.error, found.freedom, found.p) == (0, 0, 1, 1)
    assert difference_of(table(ap=same, aq=apart), "policy: p - q").p == 0
    tenths = {"t": [0.1] * 3, "u": [0.2] * 3, "v": [0.3] * 3}
    found = difference_of(table(ap=tenths, aq=tenths), "policy: p - q", ["t", "u", "v"])
    assert found.value == 0  # exactly
    assert Difference(3.0).p is None


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]).tolist() == [1.0, 1.0]
    many = holm(np.array([[0.01, 0.5], [0.03, 0.02]]))
    assert many.tolist() == [pytest.approx([0.02, 0.5]), pytest.approx([0.03, 0.04])]
