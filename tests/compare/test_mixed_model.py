"""The split plot against an independent implementation: statsmodels' linear mixed model.

In a balanced split plot, restricted maximum likelihood gives the estimates and standard errors of
the analysis of variance, as long as no variance is estimated as zero.
"""

import itertools

import numpy as np
import pytest
from returns import table

from fmbpo.compare.contrasts import contrasts
from fmbpo.compare.strata import strata
from fmbpo.compare.t_test import difference

pandas = pytest.importorskip("pandas")
formulas = pytest.importorskip("statsmodels.formula.api")
KINDS, POLICIES, REPLICATES = "ab", "pq", 6
NAMES = {
    "world model: a - b": "w",
    "policy: p - q": "p",
    "interaction: policy p - q, in world model a - in b": "w:p",
}


def split_plot(tasks):
    """``(kind, policy, task, replicate)``: returns with noise of world models and of policies."""
    rng = np.random.default_rng(7)
    shape = (2, 2, len(tasks), REPLICATES)
    model = rng.normal(0, 60, (2, 1, 1, REPLICATES))
    crossed = rng.normal(0, 40, (2, 2, 1, REPLICATES))
    level = np.array([[0, 30], [50, 120]])[:, :, None, None] + 100 * np.arange(len(tasks))[:, None]
    return 500 + level + model + crossed + rng.normal(0, 30, shape)


def fitted(x, tasks):
    """statsmodels' estimate and standard error of each effect, from codes of +½ and -½."""
    places = itertools.product(range(2), range(2), range(len(tasks)), range(REPLICATES))
    rows = [
        {"y": x[w, p, t, r], "w": 0.5 - w, "p": 0.5 - p, "task": tasks[t], "model": f"{w}{r}",
         "policy": p}
        for w, p, t, r in places
    ]  # fmt: skip
    # Policies within a world model differ too; with one task, that is the residual.
    crossed = {"vc_formula": {"policy": "0 + C(policy)"}} if len(tasks) > 1 else {}
    formula = "y ~ w * p" + (" + C(task)" if len(tasks) > 1 else "")
    data = pandas.DataFrame(rows)
    model = formulas.mixedlm(formula, data, groups="model", re_formula="1", **crossed)
    found = model.fit(reml=True, method=["lbfgs", "powell"])
    assert found.converged
    return {name: (found.params[key], found.bse[key]) for name, key in NAMES.items()}


@pytest.mark.parametrize("tasks", [["t"], ["t", "u", "v"]])
def test_estimates_and_standard_errors_of_a_balanced_split_plot(tasks):
    x = split_plot(tasks)
    cells = {
        f"{kind}{policy}": {task: x[w, p, t].tolist() for t, task in enumerate(tasks)}
        for w, kind in enumerate(KINDS)
        for p, policy in enumerate(POLICIES)
    }
    scores, want = table("replicated", **cells), fitted(x, tasks)
    for of in contrasts(list(scores)):
        found = difference(strata(scores, of.weights, tasks), of.weights)
        assert (found.value, found.error) == pytest.approx(want[of.name], rel=1e-3), of.name
