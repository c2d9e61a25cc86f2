"""Behaviour cloning: which action belongs to which observation, and what is learned of it."""

import numpy as np
import torch

from fmbpo.data.sampler import Rows
from fmbpo.data.store_format import layout_of
from fmbpo.tasks.mt30 import MT30, SUITE
from fmbpo.training import behaviour_cloning
from fmbpo.training.behaviour_cloning import act_of, clone, pairs

POLE, ARM = "cartpole-balance", "reacher-easy"
ARM_OBS, ARM_ACTION = MT30[ARM].obs_dim, MT30[ARM].action_dim


class Table:
    """Rows in memory, as a residence has them."""

    kind, device, worker = "host", torch.device("cpu"), None

    def __init__(self, packed):
        self.packed = packed

    def gather(self, row_B, horizon):
        return self.packed[row_B + torch.arange(horizon + 1).unsqueeze(1)]


def episodes(lengths, tasks, weight=None):
    """Random observations; the action of a row is a function of the observation before it."""
    torch.manual_seed(0)
    packed = torch.randn(sum(lengths), layout_of(SUITE).row_width)
    if weight is not None:
        seen = packed[:-1, : weight.shape[0]] * torch.tensor([1.0, 5.0])[: weight.shape[0]]
        packed[:-1, : weight.shape[0]] = seen
        packed[1:, SUITE.obs_width : SUITE.obs_width + weight.shape[1]] = torch.tanh(seen @ weight)
    index = torch.tensor([MT30[task].index for task in tasks])
    return Rows(np.cumsum(lengths), Table(packed), index, SUITE)


def test_an_action_belongs_to_the_observation_before_it():
    rows = episodes([3, 2, 1, 4], [ARM, POLE, ARM, ARM])
    packed = rows.residence.packed
    obs, action = pairs(rows, ARM)
    first = [0, 1, 6, 7, 8]  # not the last row of an episode, and none of the other task
    assert torch.equal(obs, packed[first, :ARM_OBS])
    taken = packed[[row + 1 for row in first], SUITE.obs_width : SUITE.obs_width + ARM_ACTION]
    assert torch.equal(action, taken)


def test_of_many_rows_some_are_drawn_once_each(monkeypatch):
    rows = episodes([50, 60], [ARM, ARM])
    every, _ = pairs(rows, ARM)
    monkeypatch.setattr(behaviour_cloning, "ROWS", 20)
    obs, _ = pairs(rows, ARM)
    chosen = {tuple(row) for row in obs.tolist()}
    assert len(chosen) == len(obs) == 20
    assert chosen < {tuple(row) for row in every.tolist()}


def test_it_imitates_the_data_whatever_else_is_drawn(monkeypatch):
    monkeypatch.setattr(behaviour_cloning, "UPDATES", 120)
    weight = torch.tensor([[1.0, 0.0], [0.0, 0.2]])
    rows = episodes([400, 400], [ARM, ARM], weight)
    counted = []
    policy = clone(rows, ARM, lambda: counted.append(1))
    assert len(counted) == 120
    act = act_of([policy])
    new = torch.randn(200, ARM_OBS)
    new[:, 1] *= 5
    obs = np.zeros((1, 200, SUITE.obs_width), np.float32)
    obs[0, :, :ARM_OBS] = new
    obs[0, :, ARM_OBS:] = np.nan  # padding
    action = act(obs, 0)
    assert action.shape == (1, 200, SUITE.action_width)
    assert (action[0, :, ARM_ACTION:] == 0).all()
    wanted = torch.tanh(new[:, :2] @ weight).numpy()
    assert np.square(action[0, :, :2] - wanted).mean() < 0.1 * wanted.var()
    torch.manual_seed(77)
    torch.set_num_threads(2)
    try:
        again = act_of([clone(rows, ARM)])(obs, 0)
    finally:
        torch.set_num_threads(1)
    np.testing.assert_array_equal(again, action)


def test_data_without_actions_have_no_such_policy():
    assert clone(episodes([1, 1], [ARM, ARM]), ARM) is None
    assert clone(episodes([5], [POLE]), ARM) is None
