"""The distance of actions to a target."""

import torch

from fmbpo.hookspecs import Task
from fmbpo.nn.policy import action_error

H, B, A = 2, 3, 4


def example():
    mask = torch.tensor([[1.0, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0]])
    task = Task(torch.zeros(B).long(), mask, torch.zeros(B, 1))
    return (x.requires_grad_() for x in torch.randn(2, H, B, A).unbind()), task


def test_it_is_the_mean_over_rows_and_their_own_dimensions():
    (action, target), task = example()
    square = (action - target).square().detach()
    rows = torch.stack([square[:, 0].mean(-1), square[:, 1, 0], torch.zeros(H)])
    torch.testing.assert_close(action_error(action, target, task).detach(), rows.mean())


def test_the_target_passes_no_gradient():
    (action, target), task = example()
    action_error(action, target, task).backward()
    assert target.grad is None
    assert action.grad[:, :2, 0].all()
    assert not (action.grad * (1 - task.mask_BA)).any()
