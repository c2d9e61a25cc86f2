"""What a world model learns of simple dynamics: its next latents, and its rewards.

Order and explained variance are measured, not distances: a sound model may predict any share of a
step. One training serves all checks that judge its result; it ends as soon as they would pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import attrs
import torch
from torch import Tensor

from fmbpo.hookspecs import Batch, Task
from fmbpo.nn.state import begin, latent, observe
from fmbpo.pwm.pair import reward_decoder
from fmbpo.testing.contract.subject import (
    TASKS,
    ModelInputs,
    WorldModelSubject,
    next_observation,
    reached,
    reward_of,
)

ROWS, ACTIONS = 192, 6
"""Rows of the training batch; actions that each of its first observations is judged with, none of
them its own."""
LEAST_ORDER, LEAST_R2 = 0.6, 0.3
"""The limits of a pass; chance is 0.5, and decoding the mean reward 0."""
_EVERY, _HELD, LONGEST = 20, 100, 240
"""Updates between two measurements, with the encoder held, and at most."""
_RATE, _ENCODERS_RATE = 1e-2, 3e-3


class Learned(NamedTuple):
    """Measures of a model on the training batch's first observations, with other actions."""

    of_actions: float
    """The share of comparisons in which a predicted latent is nearer to the real next latent than
    to the one that another action leads to from the same observation."""
    of_rows: float
    """The same for other observations of the task."""
    r2: float
    """The share of the variance of rewards that decoded rewards explain."""
    spread: float
    """The standard deviation of decoded rewards."""

    @property
    def order(self) -> float:
        """The lesser of the two shares."""
        return min(self.of_actions, self.of_rows)


def train(loss_of: Callable[[int], Tensor], steps: int, adam: torch.optim.Adam) -> list[float]:
    """The loss at each Adam step; ``loss_of`` takes the step's number."""
    losses = []
    for step in range(steps):
        loss = loss_of(step)
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
        losses.append(float(loss.detach()))
    return losses


def learned(subject: WorldModelSubject) -> Learned:
    """The last measures of a new model in training on one batch.

    The encoder and the task embedding are held at first: the dynamics then learn a fixed function.
    Later they learn too, since an encoder may begin as a constant. A measure counts as the lesser
    of its last two values, so that one lucky update decides nothing.
    """
    if "learned" not in subject.results:
        subject.results["learned"] = _learned(attrs.evolve(subject, fresh=True))
    return Learned(*subject.results["learned"])


def _learned(subject: WorldModelSubject) -> Learned:
    module, example = subject.module, subject.example(1, rows=ROWS)
    batch, parameters = example[0], list(subject.module.parameters())
    task = Task(batch.index_B, batch.mask_BA, module.embed(batch.index_B))
    z = latent(module, begin(module, batch.obs_HBO[0], task))
    encodes = reached((z * torch.linspace(-1, 1, z.shape[-1])).sum(), parameters)
    groups = [[p for p, e in zip(parameters, encodes, strict=True) if e == want]
              for want in (True, False)]  # fmt: skip
    adam = torch.optim.Adam([{"params": group} for group in groups if group], _RATE)
    last, worst = None, None
    for step in range(0, LONGEST, _EVERY):
        if groups[0]:
            adam.param_groups[0]["lr"] = _ENCODERS_RATE if step >= _HELD else 0.0
        train(lambda _: subject.loss(example)[0], _EVERY, adam)
        now = _measured(subject, batch)
        worst = Learned(*map(min, now, last or now))
        if last and worst.order >= LEAST_ORDER and worst.r2 >= LEAST_R2:
            break
        last = now
    assert worst
    return worst


@torch.no_grad()
def _measured(subject: WorldModelSubject, batch: Batch) -> Learned:
    module, obs = subject.module, batch.obs_HBO[0]
    task = Task(batch.index_B, batch.mask_BA, module.embed(batch.index_B))
    state, still = begin(module, obs, task), obs.new_zeros(len(obs), module.noise_dim)
    latents, targets, decoded, rewards = [], [], [], []
    for k in range(1, ACTIONS + 1):
        action = batch.action_HBA[0].roll(k * TASKS, 0)  # of another row of the task
        z_next, outputs, *_ = subject.predict(ModelInputs(state, action, task, still))
        latents.append(z_next)
        seen = observe(module, state, action, next_observation(obs, action), task)
        targets.append(latent(module, seen))
        decoded.append(reward_decoder(module)(outputs))
        rewards.append(reward_of(obs, action))
    found, wanted = torch.stack(latents), torch.stack(targets)
    rows = [batch.index_B == index for index in range(TASKS)]
    of_rows = [_order(found[:, own], wanted[:, own]) for own in rows]
    reward, real = torch.stack(decoded), torch.stack(rewards)
    return Learned(
        _order(found.transpose(0, 1), wanted.transpose(0, 1)),
        sum(of_rows) / len(of_rows),
        float(1 - (reward - real).square().mean() / real.var()),
        float(reward.std()),
    )


def _order(found: Tensor, wanted: Tensor) -> float:
    """``[G, N, D]``, ``[G, N, D]`` -> the share of pairs i, j of a group in which found i is nearer
    to wanted i than to wanted j; a tie counts half."""
    apart = torch.cdist(found.double(), wanted.double())
    own = apart.diagonal(dim1=1, dim2=2).unsqueeze(-1)
    others = ~torch.eye(apart.shape[-1], dtype=torch.bool)
    nearer = (own < apart).double() + 0.5 * (own == apart)
    return float(nearer[:, others].mean())
