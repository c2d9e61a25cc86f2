"""Seeds reach everything that is random, and nothing else does: initial parameters, samplers,
noise, the random policy, the simulator, the collector.

With the classes that a run uses. Torch's and numpy's global generators are in another state each
time, so that a stream taken from one of them is found, too.
"""

import itertools

import attrs
import numpy as np
import pytest
import torch
from torch.utils._pytree import tree_leaves, tree_map

from fmbpo.config import Scratch, load_experiment
from fmbpo.data.collecting.episode import collect_episode
from fmbpo.data.collecting.recipes import recipe_named
from fmbpo.measure.evaluation import Evaluator
from fmbpo.tasks.mt30 import MT30, SUITE
from fmbpo.tasks.vector import EpisodeRunner
from fmbpo.training.cells import Cell
from fmbpo.training.context import Context
from fmbpo.training.dataset import load_dataset
from fmbpo.training.networks import build_world_model
from fmbpo.training.policies import PolicyTraining
from fmbpo.training.pretraining import Pretraining

CPU = torch.device("cpu")
POLE, ARM = "cartpole-balance", "reacher-easy"
NOISY = ["world_model.source=noise", "world_model.endpoint_coef=0", "critic.count=2"]
"""A world model that needs noise in every prediction, too."""
STEPS = 3
elsewhere = itertools.count()


class ShortRunner(EpisodeRunner):
    """Real environments in this process, for a few steps; remembers what went in and out."""

    def __init__(self):
        super().__init__(0, SUITE)
        self.obs, self.actions = [], []

    def run(self, act, tasks, seeds, steps, progress=None):
        def remembered(obs, t):
            self.obs.append(obs)
            self.actions.append(act(obs, t))
            return self.actions[-1]

        return super().run(remembered, tasks, seeds, min(steps or STEPS, STEPS), progress)


@pytest.fixture(scope="module")
def experiment(repository, small_store, tiny_policy):
    file = repository / "experiments" / "phase8_flowwm_flowpolicy.toml"
    overrides = [*tiny_policy, *NOISY]
    return load_experiment(file, scale="laptop", overrides=overrides, data=str(small_store))


@pytest.fixture(scope="module")
def data(experiment):
    return load_dataset(experiment.data, CPU)


def disturbed():
    """Torch's and numpy's global generators in a state that no call before had."""
    n = next(elsewhere)
    torch.manual_seed(n)
    np.random.seed(n)


def pretraining(experiment, data, seed):
    disturbed()
    return Pretraining(Context(experiment, data, CPU), seed)


def policies(experiment, data, cells, scratch=False, evaluation_seed=7):
    """A stage of some cells, in one world model or each in its own."""
    disturbed()
    module = build_world_model(experiment.world_model, SUITE, 0, CPU)
    experiment = attrs.evolve(experiment, protocol=Scratch() if scratch else experiment.protocol)
    evaluator = Evaluator(ShortRunner(), evaluation_seed)
    context = Context(experiment, data, CPU)
    return PolicyTraining("policies", cells, context, module, evaluator)


def same(a, b):
    """Whether two trees of tensors are equal in all leaves."""
    pairs = list(zip(tree_leaves(a), tree_leaves(b), strict=True))
    assert pairs
    assert all(x.numel() for x, _ in pairs)
    return all(torch.equal(x, y) for x, y in pairs)


def apart(a, b):
    """Whether two trees of tensors differ in every leaf that is not a constant."""
    found = [
        not torch.equal(x, y)
        for x, y in zip(tree_leaves(a), tree_leaves(b), strict=True)
        if (x != x.flatten()[0]).any()
    ]
    assert found
    return all(found)


def of_cells(stage):
    """All that is random in a stage, by cell and name."""
    state, start, _, models = stage.example()
    critics = range(state.critics["net.0.weight"].shape[1])
    parts = {
        "policy": state.policy,
        **{f"critic {c}": {k: v[:, c] for k, v in state.critics.items()} for c in critics},
        "starts": start.obs_BO,
        "policy noise": start.policy_noise_HBN,
        "model noise": start.model_noise_HBN,
    }
    if models:
        batch, noise, *_ = stage.models._inputs(1)
        parts |= {"world model": models, "slices": batch.obs_HBO, "loss noise": noise}
    return {
        cell: {name: tree_map(lambda t, i=i: t[i], part) for name, part in parts.items()}
        for i, cell in enumerate(stage.cells)
    }


def of_pretraining(stage):
    """The same of pretraining."""
    state, batch, noise, *_ = stage.example()
    return {"world model": state.params, "slices": batch.obs_HBO, "loss noise": noise}


def test_pretraining(experiment, data):
    one, again, other = (of_pretraining(pretraining(experiment, data, s)) for s in (3, 3, 4))
    for name in one:
        assert same(one[name], again[name]), name
        assert apart(one[name], other[name]), name


def test_two_updates_of_pretraining(experiment, data):
    """What is drawn later follows from the seed, too, and is not drawn again."""
    ends, first = [], None
    for seed in (3, 3, 4):
        stage = pretraining(experiment, data, seed)
        first = of_pretraining(stage)
        for iteration in (1, 2):
            disturbed()
            stage.step(iteration)
        ends.append(stage.training.params)
        later = of_pretraining(stage)
        assert all(apart(first[name], later[name]) for name in first)
    assert same(ends[0], ends[1])
    assert apart(ends[0], ends[2])


@pytest.mark.parametrize("scratch", [False, True], ids=["frozen", "scratch"])
def test_cells(experiment, data, scratch):
    """A cell's streams are its own, whatever else is in its grid."""
    grid = [Cell(POLE, 1), Cell(POLE, 2), Cell(ARM, 1)]
    whole = of_cells(policies(experiment, data, grid, scratch))
    other_grid = [Cell(ARM, 3), Cell(POLE, 1)]
    mine = whole.pop(grid[0])
    again = of_cells(policies(experiment, data, other_grid, scratch))[grid[0]]
    names = {"policy", "critic 0", "critic 1", "starts", "policy noise", "model noise"}
    names |= {"world model", "slices", "loss noise"} if scratch else set()
    assert mine.keys() == names
    for name in names:
        assert same(mine[name], again[name]), name
        for cell, theirs in whole.items():
            assert apart(mine[name], theirs[name]), (name, str(cell))
    assert apart(mine["critic 0"], mine["critic 1"])


@pytest.mark.parametrize("scratch", [False, True], ids=["frozen", "scratch"])
def test_updates_of_cells(experiment, data, scratch):
    found = []
    for seed in (1, 1, 2):
        stage = policies(experiment, data, [Cell(POLE, seed)], scratch)
        for iteration in (1, 2):
            disturbed()
            stage.step(iteration)
        found.append(stage.weights())
    assert same(found[0], found[1])
    assert apart(found[0], found[2])


def test_building_from_a_seed_leaves_the_global_generator_alone(experiment):
    before = torch.random.get_rng_state()
    one = build_world_model(experiment.world_model, SUITE, 5, CPU)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(3)
    again = build_world_model(experiment.world_model, SUITE, 5, CPU)
    assert same(dict(one.named_parameters()), dict(again.named_parameters()))


def evaluated(experiment, data, seed, cells):
    """First observations ``[cells, episodes, O]`` of trained policies' episodes, before and after
    two updates, and of the random policy's; and the random policy's actions."""
    stage = policies(experiment, data, cells, evaluation_seed=seed)
    runner = stage.evaluator.runner
    first = []
    for turn in (stage.returns, stage.returns, None):
        disturbed()
        runner.obs.clear()
        runner.actions.clear()
        if turn:
            turn(2)
        else:
            stage.evaluator.random([cell.task for cell in cells], 2)
        first.append(runner.obs[0])
        stage.step(1)
    return first, np.stack(runner.actions)


def test_initial_states_are_the_same_for_every_policy(experiment, data):
    cells = [Cell(POLE, 1), Cell(POLE, 2), Cell(ARM, 1)]
    (untrained, trained, random), _ = evaluated(experiment, data, 7, cells)
    assert untrained.any()
    np.testing.assert_array_equal(untrained, trained)
    np.testing.assert_array_equal(untrained, random)
    np.testing.assert_array_equal(untrained[0], untrained[1])
    assert (untrained[:, 0] != untrained[:, 1]).any(-1).all()  # episodes differ


def test_the_evaluations_seed(experiment, data):
    cells = [Cell(POLE, 1), Cell(ARM, 1)]
    (one, *_), actions = evaluated(experiment, data, 7, cells)
    (again, *_), same_actions = evaluated(experiment, data, 7, cells)
    (other, *_), other_actions = evaluated(experiment, data, 70, cells)
    np.testing.assert_array_equal(one, again)
    assert (one != other).any(-1).all()
    np.testing.assert_array_equal(actions, same_actions)
    assert (actions != other_actions).all()
    assert actions.shape == (STEPS, 2, 2, 6)
    assert len(np.unique(actions)) == actions.size  # steps, rows and episodes draw their own


def test_the_collector():
    (behaviour, *_) = recipe_named("random").mix
    rows = []
    for episode, seed in ((0, 1), (0, 1), (1, 1), (0, 2)):
        disturbed()
        rows.append(collect_episode(MT30[POLE], episode, behaviour, seed, steps=STEPS))
    one, again, *others = rows
    for name in ("obs", "action"):
        np.testing.assert_array_equal(one[name], again[name])
        for other in others:
            assert (one[name][:, 0] != other[name][:, 0])[1:].all(), name
    assert all((one["obs"][0] != other["obs"][0]).any() for other in others)
