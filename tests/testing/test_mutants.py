"""The contract checks bite: each catches what it is there for, and says so."""

import re

import auxiliary_mutants  # noqa: F401 - its mutants are noted on import
import pytest
import shared_mutants  # noqa: F401
import torch
from mutants import MUTANTS, FlowP, FlowWM, component
from policy_mutants import GrowthWithoutAVector
from sound import Soft, Tempered
from world_model_mutants import AdoptsWithoutAnArgument, Memory

from fmbpo.testing.contract import CHECKS, NEEDS_GPU, auxiliary, run, run_check, subject_of

torch.set_num_threads(1)
PARTS = {
    "failed": re.compile(r"expected: \S.*\n   found: \S.*\n  remedy: \S.*", re.DOTALL),
    "warned": re.compile(r"     found: \S.*\na fault if: \S.*\n    remedy: \S.*"),
}
"""Those of the message of each outcome."""


def checked(plugin, check, **settings):
    found = component(plugin)
    config = found.Config(**{**found.small, **settings})
    return run_check(subject_of(found, config), check)


@pytest.mark.parametrize(
    ("plugin", "failing"),
    [
        (Soft, set()),
        (Tempered, set()),
        # One method of two of the originals, which nothing else calls, is broken.
        (AdoptsWithoutAnArgument, {"keeps_its_protocol"}),
        (GrowthWithoutAVector, {"keeps_its_protocol", "growth_is_a_mean_over_rows"}),
    ],
)
def test_the_originals_pass_every_check_that_nothing_breaks(plugin, failing):
    found = component(plugin())
    outcomes = list(run(found, found.Config(**found.small)))
    assert {o.check for o in outcomes if o.status in ("failed", "warned")} == failing
    assert {o.check for o in outcomes if o.status == "skipped"} <= NEEDS_GPU
    assert len(outcomes) == len(CHECKS[found.kind])


@pytest.mark.parametrize("original", [FlowWM, FlowP, Memory])
def test_further_originals_pass_the_checks_that_their_mutants_fail(original):
    """All other checks are those of the flow plugins' and of the recurrent example's own tests."""
    mutants = [mutant for mutant in MUTANTS if issubclass(mutant.plugin, original)]
    assert mutants
    for mutant in mutants:
        assert checked(original(), mutant.check, **mutant.settings).status == "ok", mutant.name


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: f"{m.name}-{m.check}")
def test_a_mutant_is_caught_by_the_check_meant_for_it(mutant):
    outcome = checked(mutant.plugin(), mutant.check, **mutant.settings)
    assert outcome.status == ("warned" if hasattr(auxiliary, mutant.check) else "failed")
    assert mutant.says in outcome.message
    assert PARTS[outcome.status].fullmatch(outcome.message)


AUXILIARY = [mutant for mutant in MUTANTS if hasattr(auxiliary, mutant.check)]
ONE_EACH = {mutant.check: mutant for mutant in AUXILIARY}.values()
FURTHER = [pytest.param(m, marks=pytest.mark.endurance) for m in AUXILIARY if m not in ONE_EACH]


@pytest.mark.parametrize("mutant", [*ONE_EACH, *FURTHER], ids=lambda m: m.name)
def test_no_other_check_sees_a_fault_in_an_auxiliary_loss(mutant):
    found = component(mutant.plugin())
    outcomes = run(found, found.Config(**{**found.small, **mutant.settings}))
    assert {o.check for o in outcomes if o.status not in ("ok", "skipped")} == {mutant.check}


def test_mutants_are_many_and_have_names_of_their_own():
    names = [(component(m.plugin()).kind, m.name) for m in MUTANTS]
    assert len(set(names)) == len(names) >= 30


@pytest.mark.parametrize("kind", CHECKS)
def test_every_check_is_failed_by_a_mutant(kind):
    """Beside those on a GPU, for which a fault needs a GPU to show."""
    meant = {m.check for m in MUTANTS if component(m.plugin()).kind == kind}
    assert CHECKS[kind].keys() - meant == NEEDS_GPU
