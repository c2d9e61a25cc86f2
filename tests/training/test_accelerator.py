"""Updates and stages on a device without hardware: nothing waits for the host, nothing is left on
it."""

import re

import pytest
import torch
from pairs import (
    DONE,
    KINDS,
    LEARNING,
    OPTIMISER,
    PAIRS,
    RATES,
    B,
    H,
    batch,
    params,
    problem,
    world_model,
)
from torch import Tensor
from torch.func import vmap
from torch.utils._pytree import tree_leaves, tree_map_only

from fmbpo.config import load_experiment
from fmbpo.config.conventions import ConventionsConfig
from fmbpo.config.schema import PlanningConfig
from fmbpo.data import sampler
from fmbpo.pwm.mppi import MPPI
from fmbpo.pwm.world_model import WorldModelState, WorldModelUpdate
from fmbpo.tasks.mt30 import SUITE
from fmbpo.testing.accelerator import DEVICE, Accelerator
from fmbpo.training.cells import Cell
from fmbpo.training.context import Context
from fmbpo.training.dataset import load_dataset
from fmbpo.training.networks import build_world_model
from fmbpo.training.policies import PolicyTraining
from fmbpo.training.pretraining import Pretraining

PLACES = ("device", "host", "stream")
NONE = {"copies_in": 0, "copies_out": 0, "waits": 0, "reads": 0}


def moved(tree):
    return tree_map_only(Tensor, lambda t: t.to(DEVICE), tree)


def on_the_device(tree):
    return all(leaf.device == DEVICE for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))


@pytest.mark.parametrize(("world", "kind"), PAIRS)
def test_a_policy_update_stays_on_the_device(world, kind):
    update, state, start = problem(world, kind)
    with Accelerator() as device:
        for module in (update.pair.world_model, update.pair.policy, update.critic):
            module.to(DEVICE)
        args = moved((state, start, RATES))
        assert device.copies_in
        device.clear()
        assert on_the_device(update(*args))
        assert device.traffic == NONE


@pytest.mark.parametrize("kind", KINDS)
def test_a_world_models_update_stays_on_the_device(kind):
    component, module = world_model(kind)
    update = WorldModelUpdate(module, component.loss, OPTIMISER)
    noise = torch.randn(H, B, module.loss_noise_dim)
    with Accelerator() as device:
        module.to(DEVICE)
        state = WorldModelState.initial(params(module))
        args = moved((state, batch(), noise, torch.tensor(1e-3), DONE))
        device.clear()
        assert on_the_device(update(*args))
        assert device.traffic == NONE


def test_a_plan_stays_on_the_device():
    update, state, _ = problem("mlp", "flow", cells=2)
    planning = PlanningConfig(samples=6, elites=2, policy_samples=2, iterations=2)
    planner = MPPI(update.pair, update.critic, planning, LEARNING, ConventionsConfig())
    real = batch()
    start = tuple(x.expand(2, *x.shape) for x in (real.obs_HBO[0], real.index_B, real.mask_BA))
    drawn = planner.noise(B, 6, torch.Generator().manual_seed(0))
    with Accelerator() as device:
        for module in (update.pair.world_model, update.pair.policy, update.critic):
            module.to(DEVICE)
        previous = torch.zeros(2, H, B, 6)
        args = moved((state.policy, state.critics, {}, (), *start, previous, drawn))
        device.clear()
        plan = vmap(planner.plan, in_dims=(*[0] * 8, None))
        assert on_the_device(plan(*args)[0])
        assert device.traffic == NONE


FROZEN = ("phase8_mlpwm_flowpolicy", 1)
FINETUNED = ("base/demo_finetuned", 2)  # the model's update, and the policy's


def each_place(*always):
    """In each residence; those that are not in ``always`` are endurance tests."""
    return [
        pytest.param(place, marks=() if place in always else pytest.mark.endurance)
        for place in PLACES
    ]


@pytest.fixture
def context(repository, small_store, monkeypatch):
    """An experiment on the device, its rows in this residence."""
    monkeypatch.setattr(sampler, "START_ROWS", 64)

    def context(name, place, overrides):
        path = repository / "experiments" / f"{name}.toml"
        e = load_experiment(
            path, scale="laptop", data=str(small_store),
            overrides=[*overrides, f"data.residence={place}"],
        )  # fmt: skip
        return Context(e, load_dataset(e.data, DEVICE), DEVICE)

    return context


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        *(pytest.param("mlp", *one.values, marks=one.marks) for one in each_place(*PLACES)),
        *(pytest.param("flow", *one.values, marks=one.marks) for one in each_place("stream")),
    ],
)
def test_an_iteration_of_pretraining_is_one_copy(kind, place, context, tiny):
    with Accelerator() as device:
        stage = Pretraining(context(f"phase8_pretrain_{kind}wm", place, tiny), 1)
        stage.step(1)  # the first one brings the rows
        device.clear()
        assert on_the_device(stage.step(2))
        assert device.traffic == {**NONE, "copies_in": 1}


@pytest.mark.parametrize(
    ("name", "copies", "place"),
    [
        *(pytest.param(*FROZEN, *one.values, marks=one.marks) for one in each_place(*PLACES)),
        *(pytest.param(*FINETUNED, *one.values, marks=one.marks) for one in each_place("host")),
    ],
)
def test_an_iteration_of_policy_learning_is_one_copy_for_each_update(
    name, copies, place, context, tiny_policy
):
    with Accelerator() as device:
        made = context(name, place, tiny_policy)
        e = made.experiment
        model = build_world_model(e.world_model, SUITE, 0, DEVICE)
        e.world_model.component.freeze(model)
        cells = [Cell(task, 1) for task in ("cartpole-balance", "reacher-easy")]
        stage = PolicyTraining("policies", cells, made, model, None)
        stage.step(1)
        device.clear()
        assert on_the_device(stage.step(2))
        assert device.traffic == {**NONE, "copies_in": copies}


MISTAKES = {
    "weights on the CPU": lambda x: torch.nn.functional.linear(x, torch.ones(2, 4)),
    "a constant on the CPU": lambda x: x @ torch.ones(4),
    "indices on the CPU": lambda x: torch.nn.functional.embedding(torch.tensor([0, 1]), x),
    "indexed on the CPU": lambda x: torch.ones(5, 4)[(x[:, 0] > 0).long()],
    "a generator of the CPU": lambda x: torch.randn(
        3, generator=torch.Generator(), device=x.device
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_what_a_gpu_refuses_is_refused(mistake):
    with Accelerator():
        x = torch.empty(3, 4, device=DEVICE)
        with pytest.raises(RuntimeError, match=re.escape("on the ")):
            mistake(x)


WAITS = {
    "item": (lambda x: x.sum().item(), {"reads": 1}),
    "a branch": (lambda x: 1 if x.sum() > 0 else 2, {"reads": 1}),
    "a list": (lambda x: x[0].tolist(), {"reads": 4}),
    "a constant": (lambda x: x + torch.tensor(1.0, device=x.device), {"copies_in": 1, "waits": 1}),
    "to the CPU": (lambda x: x.cpu().numpy(), {"copies_out": 1, "waits": 1}),
    "from the CPU": (lambda x: torch.ones(3).to(x.device), {"copies_in": 1, "waits": 1}),
    "into a tensor on the CPU": (
        lambda x: torch.ones(3, 4).copy_(x),
        {"copies_out": 1, "waits": 1},
    ),
    "into a tensor there": (lambda x: x.copy_(torch.ones(3, 4)), {"copies_in": 1, "waits": 1}),
    "without waiting": (lambda x: torch.ones(3).to(x.device, non_blocking=True), {"copies_in": 1}),
    "into a tensor, without": (lambda x: x.copy_(torch.ones(3, 4), True), {"copies_in": 1}),
    "nothing": (lambda x: x.double().softmax(-1).to(torch.float32), {}),
}


@pytest.mark.parametrize(("call", "counted"), WAITS.values(), ids=WAITS)
def test_traffic_is_counted(call, counted):
    with Accelerator() as device:
        call(torch.empty(3, 4, device=DEVICE))
        assert device.traffic == {**NONE, **counted}
