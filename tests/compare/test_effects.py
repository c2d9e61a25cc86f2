"""Effects of small factorials by hand: their size, their verdicts, and where these hold."""

import attrs
import pytest
from returns import table
from scipy import stats

from fmbpo.compare.comparison import NO_VERDICT, OVERALL, Cell, Estimate
from fmbpo.compare.contrasts import contrasts
from fmbpo.compare.effects import effect, effects

A, B = Cell("a", "p"), Cell("a", "q")
INTERACTION = "interaction: policy p - q, in world model a - in b"


def found_in(scores, tasks=("t",), task="t", unit=1.0):
    """Effects by name, each tested alone."""
    return {
        one.name: effect(one, scores, tasks, task=task, unit=unit)
        for one in contrasts(list(scores))
    }


def test_balanced_contrasts_by_hand():
    values = table(ap={"t": [10]}, aq={"t": [13]}, bp={"t": [20]}, bq={"t": [31]})
    assert {name: one.difference.value for name, one in found_in(values).items()} == {
        "world model: a - b": pytest.approx((10 + 13) / 2 - (20 + 31) / 2),
        "policy: p - q": pytest.approx((10 + 20) / 2 - (13 + 31) / 2),
        INTERACTION: pytest.approx((10 - 13) - (20 - 31)),
    }


def test_tasks_weigh_alike_and_the_unit_divides():
    values = table(ap={"t": [0, 0], "u": [0]}, aq={"t": [10, 20], "u": [100]})
    (one,) = found_in(values, ["t", "u"], "", unit=1000).values()
    assert one.difference.value == pytest.approx(-(15 + 100) / 2 / 1000)


NOISE = [0.3, -0.2, 0.1, -0.4, 0.2, 0.0]


def test_verdicts():
    low = {"t": [1 + e for e in NOISE]}
    high = {"t": [5 - e for e in NOISE]}
    for p, q, want in ((low, high, "q ahead"), (high, low, "p ahead"), (low, low, "undecided")):
        (one,) = found_in(table(ap=p, aq=q)).values()
        assert (one.verdict, one.scope, one.reason) == (want, "", "")
    found = found_in(table(ap=low, aq=high, bp=high, bq=low))[INTERACTION]
    assert (found.verdict, found.improvement) == ("larger in b", None)


COMMON = {
    "ap": {"t": [0, 100, 200, 300, 400, 500]},
    "aq": {"t": [9, 111, 210, 311, 409, 510]},
}


def test_what_policies_share_in_a_world_model_cancels():
    (inside,) = found_in(table("replicated", **COMMON)).values()
    assert (inside.paired, inside.verdict) == (True, "q ahead")
    assert inside.improvement.value == 0.0
    for models in ("own", "one"):
        (apart,) = found_in(table(models, **COMMON)).values()
        assert (apart.paired, apart.verdict) == (False, "undecided")
        assert apart.difference.value == pytest.approx(inside.difference.value)
        # Of 36 pairs p is better where its seed is a later one.
        assert apart.improvement.value == pytest.approx(15 / 36)


def test_what_tasks_share_in_a_world_model_does_not_count_twice():
    """World models that are good or bad on all tasks: three of them, not nine numbers."""
    good = {"t": [500, 700, 610], "u": [510, 710, 620], "v": [490, 690, 600]}
    bad = {task: [x - 150 for x in values] for task, values in good.items()}
    one, other = (
        found_in(table(models, ap=good, bp=bad), ["t", "u", "v"], "")["world model: a - b"]
        for models in ("replicated", "own")
    )
    assert one.difference.value == other.difference.value == pytest.approx(150)
    assert (one.verdict, other.verdict) == ("undecided", "a ahead")
    assert one.freedom == pytest.approx(4)
    assert not one.paired


def test_one_world_model_of_a_kind_is_no_answer_about_kinds():
    high = {"t": [900, 905, 910], "u": [900, 905, 910]}
    low = {"t": [100, 105, 110], "u": [100, 105, 110]}
    both = {"ap": high, "aq": low, "bp": low, "bq": high}
    one = found_in(table("one", **both))
    for name in ("world model: a - b", INTERACTION):
        assert one[name].difference == Estimate(one[name].difference.value)
        assert one[name].verdict == NO_VERDICT
        assert one[name].reason == (
            "one world model of a and one of b: another of its kind may differ as much"
        )
        assert (one[name].p, one[name].error, one[name].freedom, one[name].scope) == (
            None, None, None, "",
        )  # fmt: skip
    assert one["policy: p - q"].verdict == "undecided"
    assert one["policy: p - q"].scope == "in one world model of a and one of b"
    (alone,) = found_in(table("one", ap=high, aq=low)).values()
    assert (alone.verdict, alone.scope) == ("p ahead", "in this one world model")
    # One kind has several.
    mixed = table("one", ap=high, aq=low) | table("replicated", bp=low, bq=low)
    found = found_in(mixed)
    assert found["world model: a - b"].reason.startswith("one world model of a: another")
    assert found["policy: p - q"].scope == "in one world model of a"
    assert found["policy: p - q"].verdict == "p ahead"
    # With several of both there are verdicts.
    found = found_in(table("replicated", **both))
    assert found[INTERACTION].verdict == "larger in a"
    assert found["world model: a - b"].verdict == "undecided"


def test_policies_in_one_world_model_each_are_not_compared():
    """Another world model for each policy: its effect is that of the world models too."""
    first, second = table("one", ap={"t": [1, 2, 3]}), table("one", bq={"t": [91, 92, 93]})
    moved = {B: next(iter(second.values()))}
    (one,) = found_in(first | moved).values()
    assert (one.verdict, one.reason) == (NO_VERDICT, "a single replicate of a × p, a × q")


def test_one_seed_decides_nothing():
    (one,) = found_in(table(ap={"t": [1]}, aq={"t": [900]})).values()
    assert (one.difference.low, one.difference.high, one.verdict, one.reason) == (
        None, None, NO_VERDICT, "a single replicate of a × p, a × q",
    )  # fmt: skip


def test_two_seeds_decide_seldom():
    p, q = [400.0, 410.0], [430.0, 470.0]
    (one,) = found_in(table(ap={"t": p}, aq={"t": q})).values()
    want = stats.ttest_ind(p, q, equal_var=False).confidence_interval(0.95)
    assert (one.difference.low, one.difference.high) == pytest.approx((want.low, want.high))
    assert one.verdict == "undecided"
    (far,) = found_in(table(ap={"t": p}, aq={"t": [930.0, 935.0]})).values()
    assert far.verdict == "q ahead"


def test_single_tasks_are_corrected_for_their_number():
    tasks = {f"t{i}": [f"t{i}"] for i in range(5)} | {OVERALL: [f"t{i}" for i in range(5)]}
    flat = [500, 510, 490, 505, 495]
    low = {task: flat for task in tasks if task}
    high = {**low, "t0": [515, 525, 505, 520, 510]}
    scores, units = table(ap=high, aq=low), dict.fromkeys(tasks, 1.0)
    found = {one.task: one for one in effects(scores, tasks, units)}
    alone = effect(contrasts([A, B])[0], scores, ["t0"], task="t0")
    assert (alone.verdict, found["t0"].verdict) == ("p ahead", "undecided")
    assert found["t0"].p == pytest.approx(5 * alone.p)
    assert alone.difference == found["t0"].difference  # its interval stands for itself
    assert alone.difference.low > 0
    # Over all tasks there is one test.
    overall = effect(contrasts([A, B])[0], scores, tasks[OVERALL], task=OVERALL)
    assert found[OVERALL].p == overall.p
    # A larger difference survives.
    further = table(ap={**low, "t0": [x + 60 for x in flat]}, aq=low)
    verdicts = {one.task: one.verdict for one in effects(further, tasks, units)}
    assert verdicts["t0"] == "p ahead"
    assert verdicts["t1"] == "undecided"


def test_a_task_that_not_all_cells_have_is_in_the_same_family():
    flat, more = [500.0, 510, 490], [520.0, 530, 511]
    scores = table(ap={"t": more, "u": more}, aq={"t": flat, "u": flat}, bp={"t": flat},
                   bq={"t": flat})  # fmt: skip
    tasks = {"t": ["t"], "u": ["u"]}
    found = {
        (one.name, one.task): one
        for one in effects(scores, tasks, dict.fromkeys(tasks, 1.0))
        if one.kind == "policy"
    }
    assert [task for _, task in found] == ["t", "u"]
    (smaller, larger) = sorted(one.p for one in found.values())
    alone = stats.ttest_ind(more, flat, equal_var=False).pvalue
    assert smaller == pytest.approx(2 * alone)
    assert larger > alone


def test_a_probability_has_an_interval_only_where_one_can_be_had():
    few, more = [1.0, 2.0, 3.0], [4.0, 6.0, 8.0, 9.0, 7.0, 5.0]
    (one,) = found_in(table(ap={"t": few}, aq={"t": [4.0, 5.0, 6.0]})).values()
    assert one.improvement == Estimate(0.0)
    assert one.difference.high < 0
    for models in ("own", "replicated"):
        (seeds,) = found_in(table(models, ap={"t": more}, aq={"t": more[::-1]})).values()
        low, high = seeds.improvement.low, seeds.improvement.high
        assert 0 <= low < seeds.improvement.value < high <= 1
    assert attrs.evolve(one, scope="here").note == "here"


def test_the_probability_takes_world_models_whole():
    """Tasks of one world model are not resampled apart: five replicates are two by five."""
    p = {t: [10.0, 20, 30, 40, 50] for t in "tuv"}
    q = {t: [14.0, 15, 36, 37, 58] for t in "tuv"}
    whole, apart = (
        found_in(table(models, ap=p, bp=q), list("tuv"), "")["world model: a - b"].improvement
        for models in ("replicated", "own")
    )
    assert whole.value == apart.value
    assert whole.high - whole.low > 1.4 * (apart.high - apart.low)
