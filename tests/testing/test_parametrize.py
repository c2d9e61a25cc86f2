"""``parametrize_checks``: the contract as a test file of four lines."""

import pytest
from throw_away import BROKEN, DOUBTFUL, GOOD

from fmbpo.errors import UserError
from fmbpo.testing import parametrize_checks
from fmbpo.testing.contract import CHECKS, NEEDS_GPU

pytest_plugins = ["pytester"]

FILE = """
from fmbpo.testing import parametrize_checks

@parametrize_checks("fmbpo.policies", "throw-away"{arguments})
def test_contract(check):
    check()
"""
ON_DETACH = GOOD.replace(
    "    pass",
    """
    def build(self, config, dims):
        module = super().build(config, dims)
        if not config.detach:
            module.register_buffer("mine", module.net[0].weight.detach())
        return module
""",
)
"""A buffer in one configuration alone."""
FAILS, PASSES = "actions_are_bounded_and_masked", "buffers_are_set_by_the_loss"


@pytest.fixture
def contract(offer, pytester):
    """The tests of a plugin's file, run in a folder of their own: ``contract(source, ...)``."""

    def run(source, arguments="", tests=f"{FAILS} or {PASSES}"):
        offer(source)
        file = pytester.makepyfile(test_contract=FILE.format(arguments=arguments))
        options = ["-rA", "-p", "no:xdist", "-p", "no:cacheprovider", "-k", tests]
        return pytester.runpytest_inprocess(file, *options)

    return run


def test_what_passes_and_what_fails(contract):
    found = contract(BROKEN)
    found.assert_outcomes(passed=1, failed=1)
    found.stdout.fnmatch_lines(
        [f"{FAILS}*", "expected: actions are in*", "*found: *", "*remedy: *", f"FAILED*{FAILS}-0*"]
    )
    found.stdout.no_fnmatch_line("*Traceback*")


def test_a_check_that_warns_passes_with_a_warning(contract):
    found = contract(DOUBTFUL, "", "only_the_return_moves_latents")
    found.assert_outcomes(passed=1, warnings=1)
    found.stdout.fnmatch_lines(
        ["*ContractWarning: only_the_return_moves_latents", "*found: *", "*a fault if: *"]
    )


def test_an_expected_failure_is_honoured(contract):
    arguments = f", expected_failures={{'{FAILS}': 'it is bold'}}"
    found = contract(BROKEN, arguments)
    found.assert_outcomes(passed=1, xfailed=1)
    found.stdout.fnmatch_lines([f"XFAIL*{FAILS}-0* - it is bold"])


def test_an_expected_failure_that_passes_is_a_failure(contract):
    found = contract(GOOD, f", expected_failures={{'{FAILS}': 'it is bold'}}")
    found.assert_outcomes(passed=1, failed=1)
    found.stdout.fnmatch_lines([f"{FAILS} passes, but was expected to fail: it is bold"])


def test_each_configuration_is_a_test_on_top_of_the_small_settings(contract):
    found = contract(ON_DETACH, ", configs=[{}, {'detach': False}]", PASSES)
    found.assert_outcomes(passed=1, failed=1)
    found.stdout.fnmatch_lines([f"FAILED*{PASSES}-1*"])


def test_a_check_that_fails_in_one_configuration_has_a_function_of_its_own(contract, pytester):
    other = FILE.replace("test_contract", "test_other").format(
        arguments=f", configs=[{{'detach': False}}], expected_failures={{'{PASSES}': 'it is mine'}}"
    )
    pytester.makepyfile(test_other=other)
    contract(ON_DETACH, "", PASSES).assert_outcomes(passed=1)
    options = ["-p", "no:xdist", "-p", "no:cacheprovider", "-k", PASSES]
    pytester.runpytest_inprocess(*options).assert_outcomes(passed=1, xfailed=1)


def test_a_plugin_that_is_not_there_is_an_error_with_the_remedy(pytester):
    file = pytester.makepyfile(test_contract=FILE.format(arguments=""))
    found = pytester.runpytest_inprocess(file, "-k", PASSES, "-p", "no:xdist")
    found.assert_outcomes(errors=1)
    found.stdout.fnmatch_lines(["*no installed distribution offers a policy plugin 'throw-away'*"])


def names(mark):
    """Check of each case, and whether it is marked as needing a GPU."""
    argument, cases = mark.args
    assert argument == "check"
    return {case.id.rpartition("-")[0]: [m.name for m in case.marks] for case in cases}


@pytest.mark.parametrize(
    ("group", "kind"), [("fmbpo.world_models", "world_model"), ("fmbpo.policies", "policy")]
)
def test_every_check_of_the_kind_becomes_a_test(group, kind):
    found = names(parametrize_checks(group, "mlp").mark)
    assert found.keys() == CHECKS[kind].keys()
    assert {name for name, marks in found.items() if marks == ["gpu"]} == NEEDS_GPU


@pytest.mark.parametrize(
    ("configs", "words"),
    [
        ([{}, {"unit": [8]}], r"settings of 'mlp': unit: unknown key[\s\S]*'units'"),
        ([{"units": ["a"]}], r"units\[0\]: 'a' \(a string\) instead of an integer"),
        ([{"units": [0]}], r"units: \[0\]"),
        ([{"unit": 1, "detach": 3}], r"unit: unknown key[\s\S]*detach: 3 \(an integer\)"),
        ({"units": [8]}, r"checks of 'mlp': `configs` is \{'units'[\s\S]*configs=\[\{"),
        ([["units"]], "not a list of settings"),
        ([], "not a list of settings"),
        ((each for each in [{}]), "not a list of settings"),
        (None, "not a list of settings"),
    ],
)
def test_a_mistake_in_the_configurations_is_named(configs, words):
    with pytest.raises(UserError, match=words):
        parametrize_checks("fmbpo.policies", "mlp", configs=configs)


def test_a_mistake_in_the_file_is_named():
    with pytest.raises(UserError, match=r"no group 'fmbpo\.policy'[\s\S]*fmbpo\.policies"):
        parametrize_checks("fmbpo.policy", "mlp")
    with pytest.raises(UserError, match=r"no check stays_calm[\s\S]*stays_finite"):
        parametrize_checks("fmbpo.policies", "mlp", expected_failures={"stays_calm": "never"})
    with pytest.raises(UserError, match="no check masked_actions_are_inert"):
        parametrize_checks("fmbpo.policies", "mlp", expected_failures={
            "masked_actions_are_inert": "a world model's"
        })  # fmt: skip
