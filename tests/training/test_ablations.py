"""Every ablation switch composes, trains, and changes what it says it changes.

In double precision, from the same initial weights (where shapes differ: the same leading block),
on the same data and noise, so that a difference is the switch's. Rows that set what is set anyway
must make none.
"""

from functools import cache
from itertools import combinations
from typing import Literal, get_args, get_origin, get_type_hints

import attrs
import pytest
import torch
from pairs import (
    DONE,
    OPTIMISER,
    WIDTHS,
    B,
    H,
    batch,
    one_cell,
    pair,
    params,
    policy,
    policy_update,
    problem,
    stack,
    world_model,
)
from torch import Tensor
from torch.utils._pytree import tree_map_only

from fmbpo.config import load_experiment
from fmbpo.hookspecs import Task
from fmbpo.nn.world_model import WorldModelConfig
from fmbpo.plugins import load_plugin
from fmbpo.pwm.policy import CellState, Rates
from fmbpo.pwm.world_model import WorldModelState, WorldModelUpdate

UPDATES = 3
BEYOND_ROUNDING = 1e-6
RATE = torch.tensor(3e-3, dtype=torch.float64)
LATENT = WIDTHS["latent_dim"]

# (base, switch, whether predictions of the initial weights change, whether what is learnt does)
MODEL_SWITCHES = [
    ({}, {}, False, False),
    ({}, {"train_solver": "heun", "train_substeps": 4}, False, False),
    ({}, {"tau": "midpoint"}, False, True),
    ({}, {"tau": "logit_normal"}, False, True),
    ({}, {"source": "noise"}, True, True),
    ({}, {"parameterisation": "tangent"}, True, True),
    ({}, {"parameterisation": "logit"}, True, True),
    ({}, {"trained_from": "teacher"}, False, True),
    ({}, {"trained_from": "mixed"}, False, True),
    ({}, {"detach_velocity": True}, False, True),
    ({}, {"endpoint_coef": 1.0}, False, True),
    ({"endpoint_coef": 1.0}, {"matching_coef": 0.0}, False, True),
    ({}, {"solver": "euler"}, True, True),
    ({}, {"solver": "midpoint"}, True, True),
    ({}, {"solver": "rk4"}, True, True),
    ({}, {"substeps": 1}, True, True),
    ({}, {"substeps": 8}, True, True),
    ({}, {"train_solver": "euler"}, False, True),
    ({}, {"train_solver": "midpoint"}, False, True),
    ({}, {"train_solver": "rk4"}, False, True),
    ({}, {"train_substeps": 1}, False, True),
    ({}, {"train_substeps": 8}, False, True),
    ({"train_solver": "heun"}, {"solver": "euler"}, True, False),
    ({"train_substeps": 4}, {"substeps": 1}, True, False),
]
POLICY_SWITCHES = [
    ("mlp", {}, False, False),
    ("mlp", {"task_embedding": True}, True, True),
    ("mlp", {"detach": False}, False, True),
    ("flow", {}, False, False),
    ("flow", {"gate": True}, True, True),
    ("flow", {"task_embedding": True}, True, True),
    ("flow", {"solver": "euler"}, True, True),
    ("flow", {"solver": "midpoint"}, True, True),
    ("flow", {"solver": "rk4"}, True, True),
    ("flow", {"substeps": 1}, True, True),
    ("flow", {"substeps": 4}, True, True),
    ("flow", {"source_std": 1.0}, True, True),
    ("flow", {"detach": False}, False, True),
]
NOT_ABLATED = {"units", "init_log_std", "min_log_std"}
"""Sizes and noise scales of the policies."""


def named(row):
    """A row of a table as a test's name."""
    settings = [f"{k}={v}" for part in row if isinstance(part, dict) for k, v in part.items()]
    return "-".join([*(part for part in row if isinstance(part, str)), *settings]) or "none"


def double(tree):
    """Floating-point tensors in double precision."""
    return tree_map_only(Tensor, lambda t: t.double() if t.is_floating_point() else t, tree)


def begun_as(module, default):
    """``module`` in double precision, beginning with the weights of ``default``."""
    theirs = dict(default.named_parameters())
    with torch.no_grad():
        for name, p in module.named_parameters():
            if name in theirs:
                block = tuple(map(slice, map(min, zip(p.shape, theirs[name].shape, strict=True))))
                p[block] = theirs[name][block]
    return module.double()


def apart(ours, theirs):
    """The largest difference of what two dictionaries have in common."""
    both = []
    for name in ours.keys() & theirs.keys():
        a, b = ours[name], theirs[name]
        block = tuple(map(slice, map(min, zip(a.shape, b.shape, strict=True))))
        both.append((a[block] - b[block]).abs().max())
    assert both
    return float(torch.stack(both).max())


def check(difference, wanted):
    """Whether a difference is one that rounding cannot make, or next to none."""
    assert difference > BEYOND_ROUNDING if wanted else difference < BEYOND_ROUNDING / 100


def model_inputs(module):
    """A real batch, and the noise of a loss and of a rollout, the same for every model."""
    torch.manual_seed(1)
    loss_noise, noise = torch.randn(H, B, 2 + LATENT), torch.randn(H, B, LATENT)
    given = batch(), loss_noise[..., : module.loss_noise_dim], noise[..., : module.noise_dim]
    return double(given)


def predicted(component, module):
    """A rollout from encoded observations."""
    real, _, noise = model_inputs(module)
    task = Task(real.index_B, real.mask_BA, module.embed(real.index_B))
    z = module.encode(real.obs_HBO[0], task.embedding_BE)
    rollout = component.rollout(module, z, lambda t, _: real.action_HBA[t], task, noise)
    return {"latents": rollout.z_HBD.detach()}


def trained_model(component, module):
    """The parameters after some updates, metrics finite all the way."""
    real, noise, _ = model_inputs(module)
    update = WorldModelUpdate(module, component.loss, OPTIMISER)
    state = WorldModelState.initial(params(module))
    for _ in range(UPDATES):
        state, metrics = update(state, real, noise, RATE, DONE)
        assert all(torch.isfinite(value) for value in metrics.values())
    return state.params


@cache
def model_outcome(settings):
    """Predictions of the initial weights, and what is learnt, for ``settings`` (sorted items)."""
    _, default = world_model("flow")
    with torch.no_grad():  # a field that does not see τ would hide what depends on τ alone
        default.dynamics[0].linear.weight[:, LATENT + 4 + 6].normal_(std=0.3)
    component, module = world_model("flow", **dict(settings))
    module = begun_as(module, default)
    return predicted(component, module), trained_model(component, module)


@pytest.mark.parametrize(
    ("base", "switch", "predicts", "learns"), MODEL_SWITCHES, ids=map(named, MODEL_SWITCHES)
)
def test_a_switch_of_the_flow_world_model(base, switch, predicts, learns):
    without, found = (model_outcome(tuple(sorted(s.items()))) for s in (base, base | switch))
    check(apart(found[0], without[0]), predicts)
    check(apart(found[1], without[1]), learns)


def policy_problem(kind, settings):
    """An update in a frozen MLP world model, state and start of one cell, in double precision."""
    _, states, starts = problem("mlp", kind, cells=1)
    component, module = policy(kind, **settings)
    module = begun_as(module, policy(kind)[1])
    model_component, model = world_model("mlp")
    update = policy_update(pair((model_component, model.double()), (component, module)))
    state = double(CellState.initial(params(module), double(one_cell(states.critics))))
    return update, stack([state]), double(starts)


def acted(pair, starts):
    """Actions in the first imagined state."""
    start = one_cell(starts)
    z, task = pair.begin({}, start.obs_BO, start.index_B, start.mask_BA)
    return {"actions": pair.act({}, z, task, start.policy_noise_HBN[0]).detach()}


@cache
def policy_outcome(kind, settings):
    """Actions of the initial weights, and the policies after some updates."""
    update, states, starts = policy_problem(kind, dict(settings))
    actions = acted(update.pair, starts)
    for _ in range(UPDATES):
        states, metrics = update(states, starts, Rates(RATE, RATE))
        assert all(torch.isfinite(value).all() for value in metrics.values())
    return actions, states.policy


@pytest.mark.parametrize(
    ("kind", "switch", "acts", "learns"), POLICY_SWITCHES, ids=map(named, POLICY_SWITCHES)
)
def test_a_switch_of_a_policy(kind, switch, acts, learns):
    without, found = (policy_outcome(kind, tuple(s.items())) for s in ({}, switch))
    check(apart(found[0], without[0]), acts)
    check(apart(found[1], without[1]), learns)


def test_no_two_values_of_a_switch_are_the_same():
    """As both differing from the default does not show."""
    outcomes = {}
    for base, switch, *_ in MODEL_SWITCHES:
        if len(switch) == 1 and not base:
            learnt = model_outcome(tuple(switch.items()))[1]
            outcomes.setdefault(("world model", *switch), []).append(learnt)
    for kind, switch, *_ in POLICY_SWITCHES:
        learnt = policy_outcome(kind, tuple(switch.items()))[1]
        outcomes.setdefault((kind, *switch), []).append(learnt)
    several = {name: learnt for name, learnt in outcomes.items() if len(learnt) > 1}
    assert several
    for name, learnt in several.items():
        for one, other in combinations(learnt, 2):
            assert apart(one, other) > BEYOND_ROUNDING, name


def options(config):
    """What the fields of a settings class can be set to, where that is a list."""
    kinds = get_type_hints(config)
    for field in attrs.fields(config):
        kind = kinds[field.name]
        values = (True, False) if kind is bool else get_args(kind)
        closed = kind is bool or get_origin(kind) is Literal
        yield field, [v for v in values if v != field.default] if closed else []


def test_no_switch_is_forgotten():
    """Every setting of the plugins that is no size is in the tables, with all its values."""
    shared = {field.name for field in attrs.fields(WorldModelConfig)}
    switches = [switch for _, switch, *_ in MODEL_SWITCHES]
    tables = [("world_model", "flow", switches, shared)]
    for name in ("mlp", "flow"):
        switches = [switch for kind, switch, *_ in POLICY_SWITCHES if kind == name]
        tables.append(("policy", name, switches, NOT_ABLATED))
    for role, name, switches, others in tables:
        for field, values in options(load_plugin(role, name).Config):
            if field.name in others:
                continue
            tested = [switch[field.name] for switch in switches if field.name in switch]
            assert tested, f"{role} {name}: {field.name}"
            assert set(values) <= set(tested), f"{role} {name}: {field.name}"


@pytest.mark.parametrize("policies", ["mlp", "flow"])
def test_every_switch_can_be_asked_for_in_an_experiment(policies, repository):
    file = repository / "experiments" / f"phase8_flowwm_{policies}policy.toml"
    rows = [("world_model", base | switch) for base, switch, *_ in MODEL_SWITCHES]
    rows += [("policy", switch) for kind, switch, *_ in POLICY_SWITCHES if kind == policies]
    for table, settings in rows:
        overrides = [f"{table}.{k}={str(v).lower()}" for k, v in settings.items()]
        experiment = load_experiment(file, scale="laptop", overrides=overrides, data="embedded")
        config = getattr(experiment, table).config
        assert {k: getattr(config, k) for k in settings} == settings


@pytest.mark.parametrize("parameterisation", ["endpoint", "tangent", "logit"])
@pytest.mark.parametrize("source", ["latent", "noise"])
def test_no_switch_changes_encoder_and_reward_head(parameterisation, source):
    """Names and shapes are those of the MLP world model; equal weights give equal rewards."""
    models = {
        "mlp": world_model("mlp"),
        "flow": world_model("flow", parameterisation=parameterisation, source=source),
    }
    shared = {
        name: {
            k: p
            for k, p in module.state_dict().items()
            if k.startswith(("reward.", "encoder.", "task_embedding."))
        }
        for name, (_, module) in models.items()
    }
    shapes = [{k: p.shape for k, p in weights.items()} for weights in shared.values()]
    assert shapes[0] == shapes[1]
    flow = models["flow"][1]
    flow.load_state_dict(flow.state_dict() | shared["mlp"])
    real, found = batch(), []
    for component, module in models.values():
        task = Task(real.index_B, real.mask_BA, module.embed(real.index_B))
        z = module.encode(real.obs_HBO[0], task.embedding_BE)
        noise = torch.randn(B, module.noise_dim)
        logits = component.predict(module, z, real.action_HBA[0], task, noise).reward_BR
        found.append((z, logits))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
    assert found[0][1].std() > 0.01
