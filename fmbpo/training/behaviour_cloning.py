"""Behaviour cloning: what imitation of the data set alone returns, the floor of all policies.

One network per task, from the normalised observation to the action that was taken in it::

    minimise mean (tanh f((o - mean) / std) - a)²

with Adam and a rate that decays linearly to 0, for ``UPDATES`` updates: no stopping, so the
held-out episodes are not used at all. It follows from the data set and the task alone, always on
the CPU with one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from fmbpo.data.sampler import Rows
from fmbpo.measure.evaluation import threads
from fmbpo.nn.blocks import plain_mlp
from fmbpo.pwm.optim import (
    Params,
    adam_init,
    adam_step_,
    flatten,
    gradient,
    linear_decay,
    unflatten,
)
from fmbpo.tasks.vector import Act
from fmbpo.training import seeding
from fmbpo.training.trees import own_params

UNITS = (128, 128)
UPDATES, BATCH, LEARNING_RATE, BETAS = 500, 256, 1e-3, (0.9, 0.999)
ROWS = 65_536
"""The most observations per task to learn from; of more, these many are drawn."""
_CPU = torch.device("cpu")


@attrs.frozen(eq=False)
class ClonedPolicy:
    """The policy of one task: a network and the normalisation of its input."""

    network: nn.Module
    mean_O: Tensor
    std_O: Tensor
    width: int
    """Of padded actions."""

    @torch.no_grad()
    def act(self, obs_EO: NDArray[np.float32]) -> NDArray[np.float32]:
        """Padded observations ``[E, O]`` -> padded actions ``[E, width]``."""
        obs = torch.from_numpy(obs_EO)[:, : len(self.mean_O)]
        action = torch.tanh(self.network((obs - self.mean_O) / self.std_O)).numpy()
        padded = np.zeros((len(obs_EO), self.width), np.float32)
        padded[:, : action.shape[1]] = action
        return padded


def clone(rows: Rows, task: str, moved: Callable[[], None] = lambda: None) -> ClonedPolicy | None:
    """The policy that imitates the episodes of ``task`` among ``rows``; None if none has an action.

    ``moved`` is called after each update.
    """
    obs_MO, action_MA = pairs(rows, task)
    if not len(obs_MO):
        return None
    std, mean = torch.std_mean(obs_MO, 0, correction=0)
    std = torch.where(std > 1e-6, std, 1.0)
    inputs, outputs = obs_MO.shape[1], action_MA.shape[1]
    network = seeding.built(
        lambda: plain_mlp(inputs, UNITS, outputs), _CPU, 0, task, "behaviour cloning"
    )
    generator = seeding.generator(0, task, "behaviour cloning")
    with threads(1):
        params = learn(network, (obs_MO - mean) / std, action_MA, generator, UPDATES, moved)
    network.load_state_dict(params)
    return ClonedPolicy(network.requires_grad_(False), mean, std, rows.suite.action_width)


def pairs(rows: Rows, task: str) -> tuple[Tensor, Tensor]:
    """Observations ``[M, obs_dim]`` of a task and the actions ``[M, action_dim]`` taken in them.

    The action of a row led to it, so it belongs to the observation of the row before.
    """
    info, width = rows.suite[task], rows.suite.obs_width
    mine = rows.of_task(rows.suite.index(task))
    count_E = mine.end_E - mine.start_E - 1
    behind_E = torch.cumsum(count_E, 0)
    number = torch.arange(int(count_E.sum()))
    if len(number) > ROWS:
        generator = seeding.generator(0, task, "behaviour cloning rows")
        number = torch.randperm(len(number), generator=generator)[:ROWS].sort().values
    episode = torch.searchsorted(behind_E, number, right=True)
    row = mine.end_E[episode] - 1 - (behind_E[episode] - number)
    packed = mine.residence.gather(row, 1).cpu()
    action = packed[1, :, width : width + info.action_dim]
    return packed[0, :, : info.obs_dim].contiguous(), action.contiguous()


def learn(
    network: nn.Module,
    obs_MO: Tensor,
    action_MA: Tensor,
    generator: torch.Generator,
    updates: int,
    moved: Callable[[], None] = lambda: None,
) -> Params:
    """The network's parameters after ``updates`` steps on batches of these rows."""

    def loss(params: Params, obs: Tensor, action: Tensor) -> tuple[Tensor, None]:
        found = torch.tanh(functional_call(network, params, obs))
        return (found - action).square().mean(), None

    params = own_params(network)
    flat = flatten(params)
    adam, params = adam_init(flat), unflatten(flat, params)
    for update in range(updates):
        row = torch.randint(len(obs_MO), (BATCH,), generator=generator)
        grads, _ = gradient(loss, params, obs_MO[row], action_MA[row])
        rate = torch.tensor(linear_decay(LEARNING_RATE, 0.0, update / updates))
        adam_step_(flat, flatten(grads), adam, rate, BETAS)
        moved()
    return params


def act_of(policies: Sequence[ClonedPolicy]) -> Act:
    """An ``Act`` in which row r of the observations belongs to ``policies[r]``."""

    def act(obs_TEO: NDArray[np.float32], _: int) -> NDArray[np.float32]:
        return np.stack([one.act(obs) for one, obs in zip(policies, obs_TEO, strict=True)])

    return act
