"""Effects of small factorials by hand, and what must not change them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from returns import table
from scipy import stats

from fmbpo.compare.comparison import Cell, Estimate
from fmbpo.compare.effects import contrasts, effect

A, B = Cell("a", "p"), Cell("a", "q")
C, D = Cell("b", "p"), Cell("b", "q")


def named(cells):
    return {one.name: one for one in contrasts(cells)}


def test_balanced_contrasts_by_hand():
    values = table(ap={"t": [10]}, aq={"t": [13]}, bp={"t": [20]}, bq={"t": [31]})
    found = {
        name: effect(one, values, ["t"], task="t").difference.value
        for name, one in named(list(values)).items()
    }
    assert found == {
        "world model: a - b": pytest.approx((10 + 13) / 2 - (20 + 31) / 2),
        "policy: p - q": pytest.approx((10 + 20) / 2 - (13 + 31) / 2),
        "interaction: policy p - q, in world model a - in b": pytest.approx((10 - 13) - (20 - 31)),
    }


def test_tasks_weigh_alike_and_the_unit_divides():
    values = table(ap={"t": [0, 0], "u": [0]}, aq={"t": [10, 20], "u": [100]})
    (one,) = contrasts(list(values))
    found = effect(one, values, ["t", "u"], task="", unit=1000)
    assert found.difference.value == pytest.approx(-(15 + 100) / 2 / 1000)


def test_what_an_incomplete_factorial_gives():
    assert set(named([A, B, C])) == {
        "world model: a - b (policy p alone)", "policy: p - q (world model a alone)",
    }  # fmt: skip
    assert set(named([A, D])) == set()
    assert set(named([A])) == set()
    three = named([A, B, Cell("a", "r")])
    assert set(three) == {"policy: p - q", "policy: p - r", "policy: q - r"}
    # Of a 2x3 factorial without one cell, one complete 2x2 part.
    five = named([A, B, C, D, Cell("a", "r")])
    assert [name for name in five if name.startswith("interaction")] == [
        "interaction: policy p - q, in world model a - in b"
    ]
    # Only where both policies are: the world model's mean must not enter the policy's effect.
    assert five["policy: p - r (world model a alone)"].weights == {A: 1.0, Cell("a", "r"): -1.0}


NOISE = [0.3, -0.2, 0.1, -0.4, 0.2, 0.0]


def test_verdicts():
    low = {"t": [1 + e for e in NOISE]}
    high = {"t": [5 - e for e in NOISE]}
    for p, q, want in ((low, high, "q ahead"), (high, low, "p ahead"), (low, low, "no decision")):
        values = table(ap=p, aq=q)
        (one,) = contrasts(list(values))
        found = effect(one, values, ["t"], task="t")
        assert (found.verdict, found.paired) == (want, True)
    crossed = table(ap=low, aq=high, bp=high, bq=low)
    one = named(list(crossed))["interaction: policy p - q, in world model a - in b"]
    found = effect(one, crossed, ["t"], task="t")
    assert (found.verdict, found.improvement) == ("larger in b", None)


def test_pairing():
    """Common noise cancels where seeds are paired, and decides then."""
    values = table(ap={"t": [0, 100, 200, 300, 400, 500]}, aq={"t": [9, 111, 210, 311, 409, 510]})
    (one,) = contrasts(list(values))
    found = effect(one, values, ["t"], task="t")
    assert (found.paired, found.verdict) == (True, "q ahead")
    assert found.improvement.value == 0.0
    for changed, unordered in (
        (values, [A]),
        ({**values, B: {"t": {f"x{seed}": v for seed, v in values[B]["t"].items()}}}, []),
    ):
        apart = effect(one, changed, ["t"], task="t", unordered=unordered)
        assert (apart.paired, apart.verdict) == (False, "no decision")
        assert apart.difference.value == pytest.approx(found.difference.value)
        # Of 36 pairs p is better where its seed is a later one.
        assert apart.improvement.value == pytest.approx(15 / 36)


def test_three_seeds_of_one_task_are_too_few_for_pairs():
    values = table(ap={"t": [1, 2, 3], "u": [1, 2, 3], "v": [1, 2, 3]},
                   aq={"t": [2, 3, 4], "u": [2, 3, 4], "v": [2, 3, 4]})  # fmt: skip
    (one,) = contrasts(list(values))
    assert not effect(one, values, ["t"], task="t").paired
    assert effect(one, values, ["t", "u", "v"], task="").paired


def test_one_seed_decides_nothing():
    values = table(ap={"t": [1]}, aq={"t": [900]})
    (one,) = contrasts(list(values))
    found = effect(one, values, ["t"], task="t")
    assert (found.difference.low, found.difference.high, found.verdict) == (
        None, None, "no decision",
    )  # fmt: skip


@given(st.permutations([A, B, C, D]))
def test_order_of_cells_is_nothing(cells):
    """Neither to the sign of an effect nor to its name: "p - q" is never "q - p"."""
    assert contrasts(cells) == contrasts([A, B, C, D])


def test_two_seeds_are_tested_as_student_would():
    """The t test of two samples; their bootstrap would be the range, and decide."""
    p, q = [400.0, 410.0], [430.0, 470.0]
    (one,) = contrasts([A, B])
    found = effect(one, table(ap={"t": p}, aq={"t": q}), ["t"], task="t")
    want = stats.ttest_ind(p, q).confidence_interval(0.95)
    assert (found.difference.low, found.difference.high) == pytest.approx((want.low, want.high))
    assert found.verdict == "no decision"
    far = effect(one, table(ap={"t": p}, aq={"t": [930.0, 970.0]}), ["t"], task="t")
    assert far.verdict == "q ahead"
    # Three seeds in one of the cells help it no more than its own number does.
    found = effect(one, table(ap={"t": p}, aq={"t": [*q, 450.0]}), ["t"], task="t")
    assert found.verdict == "no decision"


def test_a_probability_has_an_interval_only_where_one_can_be_had():
    few, more = [1.0, 2.0, 3.0], [4.0, 6.0, 8.0, 9.0, 7.0, 5.0]
    (one,) = contrasts([A, B])
    found = effect(one, table(ap={"t": few}, aq={"t": [4.0, 5.0, 6.0]}), ["t"], task="t")
    assert found.improvement == Estimate(0.0)
    assert found.difference.high < 0
    seeds = effect(one, table(ap={"t": more}, aq={"t": more[::-1]}), ["t"], task="t")
    low, high = seeds.improvement.low, seeds.improvement.high
    assert 0 <= low < seeds.improvement.value < high <= 1
