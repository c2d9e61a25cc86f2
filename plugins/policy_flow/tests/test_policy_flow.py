"""The flow policy's noise, settings and loss; the contract is in test_contract.py."""

from functools import cache

import pytest
import torch

from fmbpo.hookspecs import Imagined, PolicyDims, Task
from fmbpo.plugins import load_plugin

torch.set_num_threads(1)  # on tensors this small, threads only wait for each other
B, LATENT, ACTION = 4, 16, 3
DIMS = PolicyDims(latent=LATENT, task=4, action=ACTION)
MASK = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
plugin = cache(lambda: load_plugin("policy", "flow"))


def build(**settings):
    torch.manual_seed(0)
    return plugin().build(plugin().Config(units=[16, 8], **settings), DIMS)


def step_inputs():
    torch.manual_seed(1)
    task = Task(torch.zeros(B, dtype=torch.int64), MASK, torch.randn(B, 4))
    return torch.randn(B, LATENT), task, torch.randn(B, 2 * ACTION)


def act(module, z, task, noise):
    return plugin().predict(module, z, task, noise)


def test_entry_point():
    assert plugin().distribution == "fmbpo-policy-flow"
    for wrong in ({"units": []}, {"solver": "leapfrog"}, {"substeps": 0}, {"source_std": -1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            plugin().Config(**wrong)


def test_masked_noise_is_inert():
    module = build()
    z, task, noise = step_inputs()
    other = torch.where(MASK.repeat(1, 2) == 1, noise, 100.0)
    assert torch.equal(act(module, z, task, noise), act(module, z, task, other))


def test_log_std_has_a_floor_that_gradients_pass():
    module = build(min_log_std=-1.5)
    z, task, noise = step_inputs()
    with torch.no_grad():
        module.log_std.value.copy_(torch.tensor([-5.0, -1.5, 0.3]))
    torch.testing.assert_close(module.log_std.std(), torch.tensor([-1.5, -1.5, 0.3]).exp())
    act(module, z, task, noise).sum().backward()
    assert (module.log_std.value.grad != 0).all()


@pytest.mark.parametrize("seen", [False, True])
def test_task_embedding_is_seen_only_on_request(seen):
    module = build(task_embedding=seen)
    z, task, noise = step_inputs()
    other = task._replace(embedding_BE=-task.embedding_BE)
    assert torch.equal(act(module, z, task, noise), act(module, z, other, noise)) is not seen


def test_loss_is_minus_the_scaled_return():
    returns = torch.randn(B)
    imagined = Imagined(None, None, None, None, None, returns, torch.tensor(2.0))
    loss, metrics = plugin().loss(build(), imagined, None)
    torch.testing.assert_close(loss, -returns.mean() / 2)
    torch.testing.assert_close(metrics["return"], returns.mean())
