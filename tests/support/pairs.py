"""Small instances of every world model and policy, for tests of the engine."""

import attrs
import torch
from torch.utils._pytree import tree_map

from fmbpo.config.conventions import ConventionsConfig
from fmbpo.config.protocols import ModelOptimiser
from fmbpo.config.schema import PolicyLearningConfig
from fmbpo.hookspecs import Batch, PolicyDims, WorldModelDims
from fmbpo.plugins import load_plugin
from fmbpo.pwm.critic import Critic
from fmbpo.pwm.pair import Pair
from fmbpo.pwm.policy import CellState, PolicyUpdate, Rates
from fmbpo.pwm.start import Start

DIMS = WorldModelDims(obs=24, action=6, tasks=30)
WIDTHS = {"encoder_units": [16], "units": [16, 16], "latent_dim": 16, "task_dim": 4}
KINDS = ("mlp", "flow")
PAIRS = [(w, p) for w in KINDS for p in KINDS]
B, H = 4, 3
LEARNING = PolicyLearningConfig(batch=B, horizon=H, critic_iterations=2, critic_minibatches=2)
ONE_PASS = attrs.evolve(LEARNING, critic_iterations=1, critic_minibatches=1)
"""For compiled updates: the graph grows with the critics' passes and mini-batches, all alike."""
RATES = Rates(torch.tensor(1e-3), torch.tensor(1e-3))
DONE = torch.tensor(0.5)
"""The fraction of training that is done."""
OPTIMISER = ModelOptimiser(
    learning_rate=1e-3,  # at the start and at the end; an update is given its own
    final_learning_rate=1e-3,
    betas=(0.9, 0.999),
    grad_clip=20.0,
    encoder_scale=0.3,
)


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
        torch.zeros(horizon, B),
    )


def params(module):
    return {k: v.detach().clone() for k, v in module.named_parameters()}


def stack(trees):
    return tree_map(lambda *leaves: torch.stack(leaves), *trees)


def pair(world_model, policy):
    """A policy in a world model that is frozen here; each is a component and its module."""
    (model_component, model), (component, module) = world_model, policy
    model_component.freeze(model)
    return Pair(model, model_component, module, component)


def policy_update(pair, learning=LEARNING, **conventions):
    """An update of the pair and of small critics."""
    return PolicyUpdate(pair, Critic(16, [16]), learning, ConventionsConfig(**conventions))


def problem(world_kind, policy_kind, cells=3, **settings):
    """An update, and the stacked state and start of some cells that all differ."""
    update = policy_update(pair(world_model(world_kind), policy(policy_kind)), **settings)
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
                torch.randn(H, B, update.pair.policy.noise_dim),
                torch.randn(H, B, update.pair.world_model.noise_dim),
                DONE,
            )
        )
    return update, stack(states), stack(starts)


def one_cell(tree):
    """The first cell of a stack."""
    return tree_map(lambda leaf: leaf[0], tree)
