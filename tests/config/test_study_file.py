"""Study files: what they may hold, and that their cells differ in the declared factors alone."""

import pytest

from fmbpo.config import load_experiment
from fmbpo.config.study_file import is_study, load_study
from fmbpo.errors import UserError, UserErrors

STUDY = """
kind = "study"
description = "a toy"
factors = ["policy_learning.lam"]
[cells.high]
experiment = "toy_policy.toml"
[cells.low]
experiment = "toy_policy.toml"
overrides = ["policy_learning.lam=0.5"]
"""


@pytest.fixture
def study(write, policy):
    def study(text=STUDY):
        return write("toys.toml", text)

    return study


def test_a_study(study):
    path = study()
    assert is_study(path)
    found = load_study(path, overrides=["policy_learning.batch=32"])
    assert (found.name, found.description) == ("toys", "a toy")
    assert [e.policy_learning.lam for e in found.cells.values()] == [0.95, 0.5]
    assert {e.policy_learning.batch for e in found.cells.values()} == {32}
    assert {(e.name, e.scale) for e in found.cells.values()} == {("toy_policy", "laptop")}
    assert found.differences == ["policy_learning.lam: 0.95 | 0.5"]


def test_an_experiment_is_none(policy):
    assert not is_study(policy)


def test_paths_are_relative_to_the_study(write, policy, study):
    path = write("folder/toys.toml", STUDY.replace("toy_policy", "../toy_policy"))
    assert list(load_study(path).cells) == ["high", "low"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("lam=0.5", "lam=0.5', 'critic.count=2", "critic.count: 3 | 2"),
        ("policy_learning.lam\"]", "critic.count\"]", "policy_learning.lam: 0.95 | 0.5"),
        ("policy_learning.lam\"]", "policy_learning.lamb\"]", "no experiment has a key"),
        ("factors = [\"policy_learning.lam\"]", "", "factors"),
        ("factors = [\"policy_learning.lam\"]", "factors = []", "must not be empty"),
        ("overrides = [", "override = [", "unknown key"),
        ("\"a toy\"", "3", "description"),
        ("[cells.low]\nexperiment = \"toy_policy.toml\"", "[cells.low]", "experiment"),
        ("[cells.high]\nexperiment = \"toy_policy.toml\"", "", "at least two cells"),
        ("toy_policy.toml\"\noverrides", "toy_polcy.toml\"\noverrides", "toy_policy.toml"),
        ("lam=0.5", "lam", "not an override"),
        ("toy_policy.toml\"\noverrides", "gone.toml\"\noverrides", "cell low: no such file"),
        ("lam=0.5", "lam=7", "cell low: override: policy_learning.lam"),
        ("lam=0.5", "lam=0.95", "two cells are the same run"),
        ("[cells.low]", '[cells."$x{$"]', "cannot be part of a run's name"),
        ('"a toy"', '"a toy"\nname = "a toy"', "cannot be part of a run's name"),
    ],
)  # fmt: skip
def test_mistakes_are_named(old, new, said, study):
    text = STUDY.replace('["policy_learning.lam=0.5"]', "['policy_learning.lam=0.5']")
    assert old in text
    with pytest.raises((UserError, UserErrors)) as raised:
        load_study(study(text.replace(old, new)))
    assert said in str(raised.value)


LEVELS = """
kind = "study"
factors = ["policy", "policy.std"]
[cells.high]
experiment = "toy_policy.toml"
[cells.low]
experiment = "toy_policy.toml"
overrides = ["policy.std=0.1", "policy.level=quiet"]
[contrasts]
noise = { policy = ["toy-policy", "quiet"] }
"""


def test_contrasts_of_named_levels(study):
    found = load_study(study(LEVELS))
    assert found.contrasts == {"noise": {"policy": ["toy-policy", "quiet"]}}
    assert [e.policy.level for e in found.cells.values()] == ["toy-policy", "quiet"]
    assert found.differences == ["policy.std: 0.5 | 0.1", 'policy.level: – | "quiet"']


@pytest.mark.parametrize(
    ("contrast", "said"),
    [
        ('{ policy = ["toy-policy", "quite"] }', "noise: no cell has the policy 'quite'"),
        ('{ world_model = ["quiet", "toy-wm"] }', "no cell has the world model 'quiet'"),
        ('{ policy = ["quiet", "quiet"] }', "must name one factor, world_model or policy"),
        ('{ policy = ["quiet"] }', "must name one factor"),
        ('{ critic = ["a", "b"] }', "must name one factor"),
        ("{}", "must name one factor"),
        ('["quiet", "toy-policy"]', "contrasts"),
    ],
)
def test_mistakes_in_contrasts(contrast, said, study):
    text = LEVELS.replace('{ policy = ["toy-policy", "quiet"] }', contrast)
    with pytest.raises((UserError, UserErrors)) as raised:
        load_study(study(text))
    assert said in str(raised.value)


REGISTERED = (
    LEVELS
    + """
[registration]
margin = 0.03
replicates = 5
development_tasks = ["walker_walk"]
spread = { world_model = 0.05, policy = 0.02 }
[registration.hypotheses]
"noise helps" = { contrast = "noise", expected = "above" }
"""
)


def test_a_registration(study):
    assert load_study(study()).registration is None
    found = load_study(study(REGISTERED)).registration
    assert (found.endpoint, found.margin, found.replicates) == ("mean", 0.03, 5)
    assert found.development_tasks == ["walker-walk"]
    assert (found.spread.world_model, found.spread.policy) == (0.05, 0.02)
    assert found.hypotheses["noise helps"].expected == "above"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("margin = 0.03", "margin = 0", "registration.margin: 0 (an integer): must be positive"),
        ("margin = 0.03", "", "registration.margin: missing"),
        ("replicates = 5", "replicates = 1", "a test needs at least two replicates"),
        ("walker_walk", "walker_wlak", "did you mean 'walker-walk'?"),
        ("policy = 0.02", "policy = -1", "registration.spread.policy"),
        ('"above"', '"abov"', "did you mean 'above'?"),
        ('"noise helps" = { contrast = "noise", expected = "above" }', "", "must not be empty"),
        ('"noise helps"', '"noise\\u001b"', "does not name a hypothesis in one line"),
        ("margin", "margins", "did you mean 'margin'?"),
    ],
)
def test_mistakes_in_a_registration(old, new, said, study):
    assert old in REGISTERED
    with pytest.raises((UserError, UserErrors)) as raised:
        load_study(study(REGISTERED.replace(old, new)))
    assert said in str(raised.value)


def test_every_study_of_the_repository_loads(repository):
    files = [p for p in (repository / "experiments").glob("*.toml") if is_study(p)]
    assert len(files) >= 2
    for file in files:
        for scale in ("paper", "laptop"):
            assert len(load_study(file, scale=scale, data="embedded").cells) >= 2


def test_a_study_is_no_experiment(study, policy):
    with pytest.raises(UserError, match="this is a study"):
        load_experiment(study())


def test_a_factor_that_changes_no_result_makes_no_second_run(study):
    text = STUDY.replace("policy_learning.lam=0.5", "planning.horizon=1")
    with pytest.raises(UserError, match="two cells are the same run"):
        load_study(study(text.replace("policy_learning.lam", "planning.horizon")))
