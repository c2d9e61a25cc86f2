"""What holds for the intervals of any returns."""

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from returns import MODELS, parts, table

from fmbpo.compare import statistics
from fmbpo.compare.comparison import Cell
from fmbpo.compare.contrasts import contrasts
from fmbpo.compare.effects import effect
from fmbpo.compare.t_test import difference

A, B = Cell("a", "p"), Cell("a", "q")
SEEDS = st.lists(st.integers(0, 1000), min_size=3, max_size=3)
TASKS = st.fixed_dictionaries({"t": SEEDS, "u": SEEDS, "v": SEEDS})
RETURNS = st.lists(st.floats(0, 1000), min_size=3, max_size=5)
DESIGN = st.sampled_from(list(MODELS))


@pytest.fixture(scope="module", autouse=True)
def few_resamples():
    """A tenth: it makes intervals coarser, and what is tested here no less true."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "RESAMPLES", 999)
        yield


def mean_of(tasks):
    return difference(parts(*tasks), {A: 1.0}).estimate


def iqm_of(tasks):
    return statistics.iqm_of(parts(*tasks))


@given(DESIGN, TASKS, TASKS, st.permutations([0, 1, 2]), st.permutations(["t", "u", "v"]))
def test_order_of_seeds_and_tasks_changes_no_effect(design, p, q, seeds, tasks):
    (one,) = contrasts([A, B])
    plain = effect(one, table(design, ap=p, aq=q), ["t", "u", "v"], task="")
    p, q = ({t: [cell[t][i] for i in seeds] for t in tasks} for cell in (p, q))
    assert effect(one, table(design, ap=p, aq=q), tasks, task="") == plain


@given(DESIGN, TASKS, TASKS)
def test_swapping_levels_negates_an_effect(design, p, q):
    (one,) = contrasts([A, B])
    assert (one.name, one.weights) == ("policy: p - q", {A: 1.0, B: -1.0})
    other = attrs.evolve(
        one, weights={A: -1.0, B: 1.0}, pairs=[(B, A)], above=one.below, below=one.above
    )
    for tasks in (["t"], ["t", "u", "v"]):
        values = table(design, ap=p, aq=q)
        plain = effect(one, values, tasks, task="")
        swapped = effect(other, values, tasks, task="")
        assert swapped.difference.value == pytest.approx(-plain.difference.value)
        assert swapped.difference.low == pytest.approx(-plain.difference.high)
        assert swapped.difference.high == pytest.approx(-plain.difference.low)
        assert swapped.improvement.value == pytest.approx(1 - plain.improvement.value)
        assert swapped.verdict == plain.verdict


@given(DESIGN, TASKS, TASKS, st.integers(1, 500))
def test_adding_a_constant_shifts_an_effect(design, p, q, constant):
    (one,) = contrasts([A, B])
    plain = effect(one, table(design, ap=p, aq=q), ["t", "u", "v"], task="")
    moved = {task: [value + constant for value in values] for task, values in p.items()}
    found = effect(one, table(design, ap=moved, aq=q), ["t", "u", "v"], task="")
    for end in ("value", "low", "high"):
        want = getattr(plain.difference, end) + constant
        assert getattr(found.difference, end) == pytest.approx(want, abs=1e-6)


@given(st.lists(RETURNS, min_size=2, max_size=3), st.floats(-500, 500))
def test_adding_a_constant_shifts_an_estimate(tasks, constant):
    shifted = [[value + constant for value in values] for values in tasks]
    for estimate in (mean_of, iqm_of):
        plain, moved = estimate(tasks), estimate(shifted)
        for one, other in zip(attrs.astuple(plain), attrs.astuple(moved), strict=True):
            assert other == pytest.approx(one + constant, abs=1e-6)


@given(st.lists(RETURNS, min_size=1, max_size=3))
def test_an_interval_holds_its_mean(tasks):
    found = mean_of(tasks)
    assert found.low <= found.value + 1e-9
    assert found.value - 1e-9 <= found.high
