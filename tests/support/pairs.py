"""Small instances of every world model and policy, for tests of the engine."""

import torch
from torch.utils._pytree import tree_map

from fmbpo.hookspecs import Batch, PolicyDims, WorldModelDims
from fmbpo.plugins import load_plugin
from fmbpo.pwm.critic import Critic
from fmbpo.pwm.imagination import PolicySettings, Roles, Start
from fmbpo.pwm.policy import CellState, Rates

DIMS = WorldModelDims(obs=24, action=6, tasks=30)
WIDTHS = {"encoder_units": [16], "units": [16, 16], "latent_dim": 16, "task_dim": 4}
KINDS = ("mlp", "flow")
PAIRS = [(w, p) for w in KINDS for p in KINDS]
SETTINGS = PolicySettings(0.99, 0.95, (0.7, 0.95), 1.0, 100.0, 2, 2)
RATES = Rates(torch.tensor(1e-3), torch.tensor(1e-3))
B, H = 4, 3


def world_model(kind, seed=0, **settings):
    component = load_plugin("world_model", kind)
    torch.manual_seed(seed)
    module = component.build(component.Config(**WIDTHS, **settings), DIMS)
    with torch.no_grad():  # the zero head has no gradient to the actions
        module.reward[-1].weight.normal_(std=0.3)
    return component, module


def policy(kind, seed=0, **settings):
    component = load_plugin("policy", kind)
    torch.manual_seed(seed)
    module = component.build(component.Config(units=[16, 8], **settings), PolicyDims(16, 4, 6))
    return component, module


def batch(seed=0, horizon=H):
    torch.manual_seed(seed)
    return Batch(
        torch.randn(horizon + 1, B, 24),
        torch.rand(horizon, B, 6) * 2 - 1,
        torch.rand(horizon, B),
        torch.tensor([1, 4, 7, 7]),
        (torch.arange(6) < torch.tensor([6, 2, 1, 1]).unsqueeze(1)).float(),
    )


def params(module):
    return {k: v.detach().clone() for k, v in module.named_parameters()}


def stack(trees):
    return tree_map(lambda *leaves: torch.stack(leaves), *trees)


def problem(world_kind, policy_kind, cells=3):
    """Roles, and the stacked state and start of some cells that all differ."""
    wm_component, model = world_model(world_kind)
    wm_component.freeze(model)
    component, module = policy(policy_kind)
    critic = Critic(16, [16])
    roles = Roles(model, wm_component.predict, module, component.rollout, component.loss, critic)
    states, starts = [], []
    for cell in range(cells):
        torch.manual_seed(100 + cell)
        critics = stack([params(Critic(16, [16])) for _ in range(3)])
        states.append(CellState.initial(params(policy(policy_kind, seed=cell)[1]), critics))
        real = batch(cell)
        starts.append(
            Start(
                real.obs_HBO[0],
                real.index_B,
                real.mask_BA,
                torch.randn(H, B, module.noise_dim),
                torch.randn(H, B, model.noise_dim),
            )
        )
    return roles, stack(states), stack(starts)
