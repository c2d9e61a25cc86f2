"""The arithmetic of updates: what a device has, what it changes, and what stays float32."""

import attrs
import pytest
import torch
import torch.nn.functional as F
from pairs import DONE, KINDS, OPTIMISER, PAIRS, RATES, B, H, batch, params, problem, world_model
from torch.utils._pytree import tree_leaves

from fmbpo.config import config_hash, load_experiment, resolved
from fmbpo.errors import UserError
from fmbpo.pwm.optim import flatten, gradient
from fmbpo.pwm.world_model import WorldModelState, WorldModelUpdate
from fmbpo.replay import Replayed
from fmbpo.training.context import Context, settled
from fmbpo.training.precision import computing, resolve_precision

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def test_what_auto_stands_for():
    assert resolve_precision("auto", CPU) == "float32"
    assert resolve_precision("auto", GPU) == "tf32"
    assert resolve_precision("float32", GPU) == "float32"


@pytest.mark.parametrize(("name", "text"), [("tf32", "of GPUs"), ("bfloat16", "no bfloat16")])
def test_what_a_cpu_lacks(name, text, monkeypatch):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    with pytest.raises(UserError, match=text) as error:
        resolve_precision(name, CPU)
    assert error.value.where == "system.precision"


def test_a_run_records_it_and_it_makes_another_run(repository):
    file = repository / "experiments" / "phase8_mlpwm_flowpolicy.toml"
    e = load_experiment(file, scale="laptop")
    on_cpu, on_gpu = (settled(e, "device", device) for device in (CPU, GPU))
    assert resolved(on_cpu)["system"]["precision"] == "float32"
    assert resolved(on_gpu)["system"]["precision"] == "tf32"
    assert config_hash(on_cpu) == config_hash(e) != config_hash(on_gpu)
    for model in (None, 1):
        half = attrs.evolve(e, system=attrs.evolve(e.system, precision="bfloat16"))
        assert config_hash(half, model) != config_hash(e, model)


def test_tf32_is_on_inside_the_block_alone():
    before = torch.get_float32_matmul_precision()
    with computing("tf32", GPU):
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == before


@pytest.mark.parametrize(("world_kind", "policy_kind"), PAIRS)
def test_policies_learn_in_bfloat16(world_kind, policy_kind):
    """The gradient points the same way; everything that is kept stays float32."""
    update, state, starts = problem(world_kind, policy_kind)
    state = state.laid_out()

    def grads():
        given = state.policy, state.critics, state.scale, starts, {}
        return flatten(gradient(update.actor_loss, *given, stacked=True)[0], 1)

    def half(*args):
        with computing("bfloat16", CPU):
            return update(*args)

    exact = grads()
    with computing("bfloat16", CPU):
        rough = grads()
    assert (exact != rough).any()
    assert F.cosine_similarity(exact, rough, -1).min() > 0.9
    fast = Replayed(half, "it", required=True, say=print)
    wanted, found = state, state
    for _ in range(3):
        wanted, metrics = half(wanted, starts, RATES)
        found, _ = fast(found, starts, RATES)
    leaves = tree_leaves((wanted, metrics))
    assert {leaf.dtype for leaf in leaves} == {torch.float32}
    assert all(leaf.isfinite().all() for leaf in leaves)
    assert all(map(torch.equal, tree_leaves(wanted), tree_leaves(found)))


@pytest.mark.parametrize("kind", KINDS)
def test_world_models_learn_in_bfloat16(kind):
    component, module = world_model(kind)
    update = WorldModelUpdate(module, component.loss, OPTIMISER)
    state = WorldModelState.initial(params(module)).laid_out()
    torch.manual_seed(0)
    noise, real, losses = torch.randn(H, B, module.loss_noise_dim), batch(), []
    for _ in range(100):
        with computing("bfloat16", CPU):
            state, metrics = update(state, real, noise, torch.tensor(3e-3), DONE)
        losses.append(metrics["loss"])
    assert losses[-1] < 0.5 * losses[0]
    assert {leaf.dtype for leaf in tree_leaves((state, metrics))} == {torch.float32}


def test_graphs_are_on_or_an_error(repository):
    file = repository / "experiments" / "phase8_mlpwm_flowpolicy.toml"
    for graph, device, replays in [
        ("auto", "cpu", True),
        ("on", "cpu", True),
        ("off", "cpu", False),
        ("auto", "lazy", False),
        ("on", "meta", False),
    ]:
        e = load_experiment(file, scale="laptop", overrides=[f'system.graph="{graph}"'])
        context = Context(e, None, torch.device(device))
        assert isinstance(context.replayed(torch.neg, "it"), Replayed) == replays
    context = Context(context.experiment, None, torch.device("lazy"))
    with pytest.raises(UserError, match="no graphs on lazy"):
        context.replayed(torch.neg, "it")
