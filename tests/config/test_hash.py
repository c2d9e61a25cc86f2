import pytest

from fmbpo.config import config_hash, from_resolved, load_experiment, resolved


def digest(path, *overrides, model=None, identity=""):
    experiment = load_experiment(path, overrides=overrides)
    return config_hash(experiment, model, data_identity=identity)


def test_it_is_short_hexadecimal_and_stable(policy):
    value = digest(policy)
    assert len(value) == 12
    assert int(value, 16) >= 0
    assert value == digest(policy)
    assert config_hash(from_resolved(resolved(load_experiment(policy)))) == value


@pytest.mark.parametrize(
    "override",
    [
        'name="x"',
        'phase="9"',
        'description="x"',
        'aliases=["x"]',
        "data.path=.",
        "data.residence=host",
        "data.residence=device",
        "data.weights={}",
        "wandb.mode=offline",
        "wandb.project=x",
        "system.device=cpu",
        "system.threads=3",
        "evaluation.workers=2",
        "pretrain.log_every=7",
        "pretrain.checkpoint_every=7",
        "policy_learning.log_every=7",
        "policy_learning.checkpoint_every=7",
        "pretrain.grad_clip=20",
        "world_model.level=x",
        "policy.level=x",
    ],
)
def test_what_changes_no_result_changes_no_hash(policy, override):
    base = load_experiment(policy, scale="laptop")
    other = load_experiment(policy, scale="laptop", overrides=[override])
    assert config_hash(base) == config_hash(other)
    assert config_hash(base, 1) == config_hash(other, 1)


@pytest.mark.parametrize(
    ("override", "pretraining_too"),
    [
        ("system.compile=on", True),
        ("pretrain.validate_every=7", True),
        ("world_model.units=[3]", True),
        ("world_model.tau=0.5", True),
        ('data.tasks=["walker-walk"]', True),
        ("data.residence=stream", True),
        ("data.weights.walker-walk=2", True),
        ("policy.gate=true", False),
        ("policy_learning.lam=0.9", False),
        ("critic.count=2", False),
        ("grid.seeds=[1]", False),
        ("grid.policies_per_model=2", False),
        ("evaluation.seed=3", False),
        ("protocol.world_model=other", False),
    ],
)
def test_what_changes_results_changes_the_hash(policy, override, pretraining_too):
    assert digest(policy) != digest(policy, override)
    same = digest(policy, model=1) == digest(policy, override, model=1)
    assert same != pretraining_too


def test_every_replicate_has_a_world_model_of_its_own(policy):
    assert len({digest(policy, model=seed) for seed in (1, 2, 3)}) == 3


def test_a_policy_experiment_knows_its_pretraining(policy, pretrain):
    assert digest(policy, model=1) == digest(pretrain, model=1)
    changed = digest(pretrain, "pretrain.iterations=31", model=1)
    assert digest(policy, model=1) != changed


def test_data_identity_and_scale_count(pretrain):
    assert digest(pretrain, identity="a") != digest(pretrain, identity="b")
    paper = load_experiment(pretrain, data=".", overrides=["pretrain.iterations=30"])
    assert config_hash(paper, 1) != digest(pretrain, model=1)
