"""Which replicates are independent, and which share a world model."""

import numpy as np
import pytest
from returns import table

from fmbpo.compare.comparison import Cell, Score
from fmbpo.compare.strata import single_models, strata

A, B = Cell("a", "p"), Cell("a", "q")
BOTH = {"t": [1, 2, 3], "u": [40, 50, 60]}
OTHER = {"t": [7, 8, 9], "u": [10, 20, 30]}


def of(scores, tasks=("t", "u")):
    return strata(scores, list(scores), tasks)


def test_a_world_model_for_each_replicate_holds_all_its_policies():
    (one,) = of(table("replicated", ap=BOTH, aq=OTHER))
    assert one.groups == [(A, "t"), (A, "u"), (B, "t"), (B, "u")]
    np.testing.assert_array_equal(one.values, [[1, 2, 3], [40, 50, 60], [7, 8, 9], [10, 20, 30]])
    assert (one.replicates, one.complete) == (3, True)


@pytest.mark.parametrize("models", ["own", "one"])
def test_policies_are_independent_from_scratch_and_in_one_world_model(models):
    found = of(table(models, ap=BOTH, aq=OTHER))
    assert [part.groups for part in found] == [[(c, t)] for c in (A, B) for t in ("t", "u")]
    assert [part.values.tolist() for part in found] == [
        [BOTH["t"]], [BOTH["u"]], [OTHER["t"]], [OTHER["u"]],
    ]  # fmt: skip


def test_kinds_are_independent_although_seeds_have_the_same_names():
    found = of(table("replicated", ap=BOTH, bp=OTHER))
    assert [{cell for cell, _ in part.groups} for part in found] == [{A}, {Cell("b", "p")}]


def test_one_kind_may_have_one_world_model_and_the_other_several():
    scores = table("replicated", ap=BOTH) | table("one", bp=OTHER)
    assert single_models(scores, list(scores), ["t", "u"]) == ["b"]
    assert [part.values.shape for part in of(scores)] == [(2, 3), (1, 3), (1, 3)]


def test_policies_in_other_world_models_stand_apart():
    """The weights decide, not the names of the seeds."""
    first, second = table("replicated", ap=BOTH), table("replicated", aq=OTHER)
    moved = {
        B: {
            task: {s: Score(x.mean, world_model=f"new{x.world_model}") for s, x in seeds.items()}
            for task, seeds in second[B].items()
        }
    }
    assert len(of(first | second)) == 1
    assert [part.groups for part in of(first | moved)] == [
        [(A, "t"), (A, "u")], [(B, "t"), (B, "u")],
    ]  # fmt: skip
    # And policies of other seeds may have met the same world models.
    renamed = {B: {t: {f"9{s}": x for s, x in by.items()} for t, by in second[B].items()}}
    assert len(of(first | renamed)) == 1


def test_several_policies_in_a_world_model():
    scores = {
        A: {
            "t": {
                seed: Score(value, world_model=seed.partition(".")[0])
                for seed, value in {"1": 5.0, "1.1": 3.0, "2": 7.0, "2.1": 9.0, "3": 1.0}.items()
            }
        }
    }
    (one,) = of(scores, ["t"])
    assert one.groups == [(A, "t"), (A, "t")]
    assert one.replicates == 3
    assert not one.complete  # replicate 3 has one policy
    assert np.nanmean(one.values, axis=0).tolist() == [1.0, 4.0, 8.0]
    assert np.isnan(one.values).sum() == 1


def test_what_is_missing_counts_for_the_smallest_group():
    scores = table("replicated", ap=BOTH, aq={"t": [7, 8, 9], "u": [10, 20]})
    (one,) = of(scores)
    assert (one.replicates, one.having((B, "u")), one.having((A, "u"))) == (2, 2, 3)
