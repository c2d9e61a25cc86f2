"""Stages in one and in several processes: the same updates, measures and checkpoints."""

import attrs
import pytest
import torch
from members import together
from torch.utils._pytree import tree_leaves

from fmbpo.config import load_experiment
from fmbpo.distributed.group import ALONE, Group
from fmbpo.distributed.shares import joined, shares
from fmbpo.measure.evaluation import Evaluator
from fmbpo.running.spread import policy_stage
from fmbpo.tasks.mt30 import SUITE
from fmbpo.tasks.vector import EpisodeRunner
from fmbpo.training import pretraining
from fmbpo.training.cells import grid_cells
from fmbpo.training.context import Context
from fmbpo.training.dataset import load_dataset
from fmbpo.training.initial_model import InitialModel
from fmbpo.training.pretraining import Pretraining

CPU = torch.device("cpu")
PLANNING = ["planning.episodes=2", "planning.samples=6", "planning.iterations=2",
            "planning.elites=3", "planning.policy_samples=2"]  # fmt: skip


@pytest.fixture
def load(repository, small_store, tiny, tiny_policy):
    def load(name, *overrides):
        file = repository / "experiments" / f"{name}.toml"
        own = tiny if "pretrain" in name else [*tiny_policy, *PLANNING]
        overrides = [*own, *overrides]
        return load_experiment(file, scale="laptop", overrides=overrides, data=str(small_store))

    return load


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Ten steps, also of episodes beside updates."""
    stepping = EpisodeRunner.stepping

    def short(runner, act, tasks, seeds, steps=None):
        return stepping(runner, act, tasks, seeds, 10 if steps is None else steps)

    monkeypatch.setattr(EpisodeRunner, "stepping", short)


def begun(group, experiment, folder):
    group.order("experiment", experiment, folder)
    return Context(experiment, load_dataset(experiment.data, CPU), CPU, group)


@pytest.mark.parametrize("kind", ["mlp", "flow"])
def test_pretraining_together(kind, load, tmp_path):
    """50 updates; 8 rows of a batch are 3, 3 and 2 for three processes. Half of the updates follow
    a checkpoint of the others."""
    e = load(f"phase8_pretrain_{kind}wm", "pretrain.iterations=50", "pretrain.batch=8")

    def lead(group):
        def stage():
            context = begun(group, e, tmp_path)
            return Pretraining(context, 1)

        losses, first = [], stage()
        for iteration in range(1, 26):
            losses.append(first.step(iteration))
        saved = first.weights(), first.state()
        second = stage()
        second.load(*saved)
        for iteration in range(26, 51):
            losses.append(second.step(iteration))
        return torch.tensor([[float(v) for v in metrics.values()] for metrics in losses]), (
            second.weights(),
            second.count_flops(),
        )

    alone, (weights, flops) = lead(ALONE)
    for size in (2, 3):
        losses, (found, found_flops) = together(size, lead)
        assert torch.allclose(losses, alone, rtol=1e-5, atol=1e-7), (losses / alone - 1).abs().max()
        assert found_flops == flops
        for name, weight in weights.items():
            assert torch.allclose(found[name], weight, rtol=1e-3, atol=1e-5), name


def test_the_leader_learns_from_a_small_batch_alone(load, tmp_path, monkeypatch):
    """6 steps of 8 rows: 24 for each of two processes, and 48 for one."""
    e = load("phase8_pretrain_mlpwm", "pretrain.batch=8", "pretrain.horizon=6")
    two = Group(0, 2, 2)
    for smallest, sharers in ((24, two), (25, ALONE)):
        monkeypatch.setattr(pretraining, "SMALLEST", smallest)
        assert pretraining.sharing(e.pretrain, two) is sharers
        assert pretraining.sharing(e.pretrain, ALONE) is ALONE

    def lead(group):
        stage = Pretraining(begun(group, e, tmp_path), 1)
        return [stage.step(iteration) for iteration in range(1, 4)], stage.weights()

    for x, y in zip(tree_leaves(together(2, lead)), tree_leaves(lead(ALONE)), strict=True):
        assert torch.equal(x, y)


@pytest.mark.parametrize(
    ("pair", "size"),
    [
        (("mlp", "flow"), 2),
        (("flow", "mlp"), 5),
        pytest.param(("mlp", "mlp"), 3, marks=pytest.mark.endurance),
        pytest.param(("flow", "flow"), 3, marks=pytest.mark.endurance),
    ],
)
def test_policies_together(pair, size, load, tmp_path):
    """Four cells: 2 + 2, 2 + 1 + 1, and 1 each with one process to spare."""
    e = load("phase8_{}wm_{}policy".format(*pair))
    check_policies(e, size, tmp_path)


def test_policies_with_their_own_models_together(load, tmp_path):
    check_policies(load("base/demo_scratch"), 3, tmp_path)


def check_policies(e, size, tmp_path):
    cells = grid_cells(e, load_dataset(e.data, CPU).tasks)
    assert len(cells) == 4

    def work(group, cells):
        """Everything that a run asks of a stage; in the middle it continues from a checkpoint."""
        with EpisodeRunner(0, SUITE) as runner:
            evaluator = Evaluator(runner, e.evaluation.seed)

            def stage():
                context, model = begun(group, e, tmp_path), InitialModel()
                module = model.build(context)
                return policy_stage("policies", cells, context, model, module, evaluator)

            first = stage()
            metrics = [first.step(1)]
            rows = first.evaluate(1)
            returns = first.returns(2)
            saved = first.weights(), first.state()
            again = stage()
            again.load(*saved)
            again.begin_returns(2)
            metrics.append(again.step(2))
            beside = again.end_returns()
            assert again.returns_over()
            final = [attrs.asdict(one, recurse=False) for one in again.final()]
            for one in final:
                one["imagination"] = attrs.asdict(one["imagination"], recurse=False)
            assert (beside == returns).all()  # those of the policies before the last step
            told = []
            planned = again.planned_returns(lambda *step: told.append(step))
            assert told
            rows += again.describe(metrics[-1])
            return (
                metrics, again.weights(), again.state(), final, planned, again.gradients(), beside,
                again.health(), [row for row in rows if row.task],
            ), again.count_flops()  # fmt: skip

    found, flops = together(size, lambda group: work(group, cells))
    each = [work(ALONE, cells[part]) for part in shares(4, size) if part.stop > part.start]
    expected = [values for values, _ in each]
    assert flops == sum(flops for _, flops in each)
    metrics = [joined([one[0][i] for one in expected]) for i in range(2)]
    same(found[0], metrics)
    for i in (1, 2, 4, 5, 6):
        same(found[i], joined([one[i] for one in expected]))
    same(found[3], [final for one in expected for final in one[3]])
    assert found[7] == [finding for one in expected for finding in one[7]]
    evaluated = [row for one in expected for row in one[8]]
    assert sorted(found[8], key=str) == sorted(evaluated, key=str)


def same(a, b):
    """Equal to the bit."""
    a, b = map(tree_leaves, (a, b))
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        assert torch.equal(torch.as_tensor(x), torch.as_tensor(y)) if x is not None else y is None
