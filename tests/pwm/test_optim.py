"""Adam, clipping and the schedule against torch's own."""

import pytest
import torch

from fmbpo.pwm import optim
from fmbpo.pwm.optim import adam_init, adam_step_, clip, flatten, linear_decay, unflatten


def test_flattening_goes_by_name_and_back():
    params = {"b": torch.arange(4.0).view(2, 2), "a": torch.tensor([7.0, 8.0]), "c": torch.ones(1)}
    flat = flatten(params)
    assert flat.tolist() == [7.0, 8.0, 0.0, 1.0, 2.0, 3.0, 1.0]
    again = dict(reversed(params.items()))
    assert torch.equal(flatten(again), flat)
    back = unflatten(flat, again)
    assert list(back) == ["c", "a", "b"]
    assert all(torch.equal(back[name], p) for name, p in params.items())


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "formulas"])
def test_adam_equals_torch_in_every_row_and_part(fused, monkeypatch):
    """Two vectors of five entries; the first two entries learn at 0.3 of the rate."""
    if not fused:
        monkeypatch.setattr(optim, "_FUSED", ())
        monkeypatch.setattr(optim, "_fused_step", None)
    torch.manual_seed(0)
    p = torch.randn(2, 5)
    slow, fast = (torch.nn.Parameter(x.clone()) for x in (p[:, :2], p[:, 2:]))
    groups = [{"params": [slow], "lr": 3e-3}, {"params": [fast]}]
    reference = torch.optim.Adam(groups, lr=1e-2, betas=(0.7, 0.95))
    state = adam_init(p)
    for _ in range(20):
        g = torch.randn(2, 5)
        slow.grad, fast.grad = g[:, :2], g[:, 2:]
        reference.step()
        adam_step_(p, g, state, torch.tensor(1e-2), (0.7, 0.95), [(2, 0.3), (3, 1.0)])
    assert state.steps.tolist() == [20.0, 20.0]
    torch.testing.assert_close(p, torch.cat([slow, fast], 1).detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [0.1, 1.0, 50.0])
def test_clip_equals_torch(size):
    torch.manual_seed(0)
    grads = {"a": torch.randn(5) * size, "b": torch.randn(2, 2) * size}
    copies = [torch.nn.Parameter(g.clone()) for g in grads.values()]
    for p, g in zip(copies, grads.values(), strict=True):
        p.grad = g.clone()
    norm = torch.nn.utils.clip_grad_norm_(copies, 1.0)
    clipped, own = clip(flatten(grads), 1.0)
    torch.testing.assert_close(own, norm)
    for p, g in zip(copies, unflatten(clipped, grads).values(), strict=True):
        torch.testing.assert_close(g, p.grad)


def test_linear_decay():
    assert linear_decay(5e-4, 1e-5, 0.0) == 5e-4
    assert linear_decay(5e-4, 1e-5, 1.0) == pytest.approx(1e-5)
    assert linear_decay(4.0, 2.0, 0.5) == 3.0
