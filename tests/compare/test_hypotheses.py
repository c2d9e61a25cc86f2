"""Registered hypotheses: the contrasts that they name, and the verdicts on them."""

import re

import attrs
import pytest

from fmbpo.compare.comparison import Cell
from fmbpo.compare.hypotheses import RULES, judged, plan_of
from fmbpo.compare.power import equivalence_power, power, rescaled
from fmbpo.errors import UserError

CELLS = ["mlp mlp", "mlp flow", "flow mlp", "flow flow"]
WORLD, POLICY = "world model: flow - mlp", "policy: flow - mlp"


def content(cells=CELLS, contrasts=None, tasks=("a", "b"), apart=(), **hypotheses):
    """Of a registration: ``name=(contrast, expected)``."""
    levels = [dict(zip(("world_model", "policy"), cell.split(), strict=True)) for cell in cells]
    return {
        "contrasts": contrasts or {},
        "cells": {f"cell {i}": {"levels": found} for i, found in enumerate(levels)},
        "registration": {
            "margin": 0.03,
            "replicates": 3,
            "tasks": list(tasks),
            "development_tasks": list(apart),
            "hypotheses": {
                name: {"contrast": contrast, "expected": expected}
                for name, (contrast, expected) in hypotheses.items()
            },
        },
    }


def plan(**given):
    return plan_of(content(**given), "study.toml")


def test_the_names_of_contrasts():
    found = plan(
        contrasts={"matching": {"world_model": ["flow", "mlp"]}},
        one=("matching", "above"),
        two=(POLICY, "below"),
        three=("interaction", "equivalent"),
    ).hypotheses
    assert {name: of.kind for name, (of, _) in found.items()} == {
        "one": "world_model", "two": "policy", "three": "interaction",
    }  # fmt: skip
    both = {"matching": {"world_model": ["flow", "mlp"]}}
    for name in (WORLD, f"matching ({WORLD})"):  # its title, with and without the declared name
        again = plan(contrasts=both, one=(name, "above")).hypotheses
        assert again["one"] == found["one"]
    assert found["one"][0].weights[Cell("flow", "mlp")] == 0.5
    assert [expected for _, expected in found.values()] == ["above", "below", "equivalent"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"x": ("policy: flow - mpl", "above")}, "hypotheses.x: there is no contrast"),
        ({"x": ("policy: flow - mpl", "above")}, f"did you mean {POLICY!r}?"),
        ({"x": ("policy: mlp - flow", "above")}, "there is no contrast 'policy: mlp - flow'"),
        ({"x": (POLICY, "above"), "y": (POLICY, "below")}, "'x' is about the same contrast"),
        (
            {
                "contrasts": {"a": {"policy": ["flow", "mlp"]}, "b": {"policy": ["mlp", "flow"]}},
                "x": ("a", "above"),
                "y": ("b", "above"),
            },
            "'x' is about the same contrast, or about its reverse",
        ),
        ({"cells": CELLS[:2], "x": ("interaction", "above")}, "there is no contrast 'interaction'"),
        ({"cells": [*CELLS, CELLS[0]], "x": (POLICY, "above")}, "cells cell 0 and cell 4 apart"),
        ({"tasks": [], "x": (POLICY, "above")}, "no task is left for the endpoint"),
    ],
)
def test_mistakes(given, said):
    with pytest.raises(UserError) as raised:
        plan(**given)
    assert said in str(raised.value)
    assert "study.toml: registration" in str(raised.value)


@pytest.fixture
def factorial(record):
    """``factorial(world_model, policy, noise)``: effects in returns, with three replicates."""

    def factorial(world_model=0.0, policy=0.0, noise=1.0, **others):
        def returns(cell):
            kind, own = cell.split()
            base = 500 + world_model * (kind == "flow") + policy * (own == "flow")
            place = CELLS.index(cell) + 1
            return [base + noise * x * (1 + 0.1 * place) for x in (-1.0, 0.0, 1.0)]

        return [
            record(cell, {task: returns(cell) for task in ("a", "b", "dev")},
                   models="replicated", **others)
            for cell in CELLS
        ]  # fmt: skip

    return factorial


def outcomes(plan, records):
    return {one.name: one.outcome for one in judged(plan, records)}


def test_all_four_verdicts(factorial):
    four = plan(one=(WORLD, "above"), two=(POLICY, "above"))
    assert outcomes(four, factorial(100)) == {"one": "supported", "two": "equivalent"}
    assert outcomes(four, factorial(-100, 100)) == {"one": "contradicted", "two": "supported"}
    wide = outcomes(four, factorial(40, 0, noise=100.0))
    assert wide["one"] == "undecided"
    same = plan(one=(WORLD, "equivalent"), two=(POLICY, "equivalent"))
    assert outcomes(same, factorial(5, 100)) == {"one": "supported", "two": "contradicted"}


def test_a_verdict_in_words(factorial):
    one, two = judged(plan(one=(WORLD, "above"), two=(POLICY, "equivalent")), factorial(100))
    assert one.sentence.startswith(f"one: supported. {WORLD} is +0.100 [+0.09")
    assert one.sentence.endswith("above 0 (p < 0.001).")
    assert two.sentence.endswith("within ±0.03 (p < 0.001).")
    (wide,) = judged(plan(x=(WORLD, "above")), factorial(40, noise=100.0))
    assert "it is not shown to be different from 0 (p = 0." in wide.sentence
    assert re.search(
        r" A new study needs \d+ replicates of each kind to tell a difference of 0\.03 from none "
        r"with a probability of 80%, if they spread as these 3 do\.$",
        wide.sentence,
    )
    (away,) = judged(plan(x=(WORLD, "equivalent")), factorial(-100))
    assert "below -0.03 (p" in away.sentence


@pytest.mark.parametrize("expected", ["above", "equivalent"])
@pytest.mark.parametrize("noise", [12.0, 20.0, 100.0])
def test_the_replicates_that_a_new_study_needs(factorial, expected, noise):
    """The fewest with the power that the preflight calculates with, from the same spread."""
    (one,) = judged(plan(x=(WORLD, expected)), factorial(19, noise=noise))
    assert one.outcome == "undecided"
    (needed,) = re.findall(r"(\d+) replicates of each kind (?:to )?(?:tell|show)", one.sentence)
    for n, want in ((int(needed), True), (int(needed) - 1, False)):
        test = rescaled(one.effect.error, one.effect.freedom, 3, n)
        found = [equivalence_power(test, 0.03), power(test, 0.03)]
        assert (min(found[: 1 if expected == "equivalent" else 2]) >= 0.8) == want
    assert ("A new study needs" in one.sentence) == (int(needed) > 3)


def test_there_may_be_no_such_number(factorial, record):
    (wide,) = judged(plan(x=(WORLD, "above")), factorial(40, noise=4000.0))
    assert "needs more than 1000 replicates" in wide.sentence
    *others, last = factorial(40, noise=100.0)
    scores = {
        task: {seed: x for seed, x in by.items() if seed != "3"} for task, by in last.scores.items()
    }
    (uneven,) = judged(plan(x=(WORLD, "above")), [*others, attrs.evolve(last, scores=scores)])
    assert "A new study" not in uneven.sentence


def test_without_variance_the_verdict_says_so(factorial):
    (one,) = judged(plan(x=(POLICY, "equivalent")), factorial(0, noise=0.0))
    assert one.outcome == "supported"
    assert "all replicates agree exactly, so there is no variance to test against" in one.sentence


def test_more_hypotheses_make_each_p_larger(factorial):
    records = factorial(50, noise=16.0)
    (alone,) = judged(plan(x=(WORLD, "above")), records)
    both = judged(plan(x=(WORLD, "above"), y=(POLICY, "above")), records)
    assert alone.effect == both[0].effect
    assert alone.p_difference == pytest.approx(alone.effect.p)
    assert both[0].p_difference == pytest.approx(2 * alone.p_difference)
    assert (alone.outcome, both[0].outcome) == ("supported", "undecided")


def test_development_tasks_are_apart(factorial):
    records = [
        attrs.evolve(r, scores={**r.scores, "dev": {
            seed: attrs.evolve(x, mean=x.mean + 300 * (r.cell.policy == "flow"))
            for seed, x in r.scores["dev"].items()
        }})
        for r in factorial(noise=1.0)
    ]  # fmt: skip
    (found,) = judged(plan(apart=["dev"], x=(POLICY, "above")), records)
    assert found.effect.difference.value == pytest.approx(0.0)
    assert found.development.difference.value == pytest.approx(0.3)
    assert found.outcome == "equivalent"
    (without,) = judged(plan(apart=["gone"], x=(POLICY, "above")), records)
    assert without.development is None


def test_what_cannot_be_tested_is_undecided(factorial, record, basis):
    one_model = [record(cell, {"a": [1.0, 900.0], "b": [2.0, 3.0]}, models="one") for cell in CELLS]
    found = {x.name: x for x in judged(plan(w=(WORLD, "above"), p=(POLICY, "above")), one_model)}
    assert found["w"].outcome == "undecided"
    assert "no test: one world model of" in found["w"].sentence
    assert "in one world model of" in found["p"].sentence
    records = factorial(100)
    records[0] = attrs.evolve(records[0], basis=attrs.evolve(basis, budget="more"))
    (mixed,) = judged(plan(x=(WORLD, "above")), records)
    assert (mixed.outcome, mixed.effect.reason) == ("undecided", "the runs differ in budget")


def test_every_rule_has_a_name():
    assert all(rule.partition(": ")[2] for rule in RULES)
