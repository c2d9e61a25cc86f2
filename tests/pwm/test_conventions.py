"""Each row of PWM's departures: both behaviours, told apart; and the bundles."""

import attrs
import pytest
import torch
from batches import some_starts
from pairs import (
    DONE,
    LEARNING,
    OPTIMISER,
    B,
    H,
    batch,
    one_cell,
    params,
    problem,
    stack,
    world_model,
)

from fmbpo.config import load_experiment
from fmbpo.config.conventions import ConventionsConfig
from fmbpo.config.schema import DataConfig, PluginTable
from fmbpo.data.sampler import StartSampler
from fmbpo.errors import UserError
from fmbpo.nn import two_hot
from fmbpo.pwm.optim import clip, flatten, gradient, unflatten
from fmbpo.pwm.pair import HookCall
from fmbpo.pwm.world_model import WorldModelState, WorldModelUpdate
from fmbpo.training.dataset import by_conventions, load_dataset
from fmbpo.training.own_models import loss_table

ROWS = [field.name for field in attrs.fields(ConventionsConfig) if field.name != "bundle"]


def imagined(**conventions):
    """One cell's imagined trajectory and the critics' targets."""
    update, states, starts = problem("mlp", "mlp", cells=1, **conventions)
    state, start = one_cell((states, starts))
    _, (found, _, _) = update.actor_loss(state.policy, state.critics, state.scale, start, {})
    return found, update.targets(state.policy, state.critics, found)


def test_the_bundles():
    corrected, pwm = ConventionsConfig(), ConventionsConfig(bundle="pwm")
    assert (corrected.recorded(), pwm.recorded()) == ("corrected", "pwm")
    assert all(getattr(corrected, row) != getattr(pwm, row) for row in ROWS)
    assert len(ROWS) == 7
    mixed = ConventionsConfig(bundle="pwm", action_mask=True)
    assert mixed.recorded()["action_mask"] is True
    assert mixed.recorded()["critic_targets"] == "one_step"


def test_critic_targets():
    _, lam = imagined()
    _, one_step = imagined(critic_targets="one_step")
    assert not torch.allclose(lam[0], one_step[0])
    torch.testing.assert_close(lam[-1], one_step[-1])
    _, bundle = imagined(bundle="pwm", imagined_reward="real")
    assert torch.equal(bundle, one_step)


def test_the_bootstrap_weight():
    weights = LEARNING.discount ** torch.arange(H)
    for kind, power in (("horizon", H), ("horizon_plus_one", H + 1)):
        found, _ = imagined(bootstrap=kind)
        rewards = (weights.unsqueeze(-1) * found.reward_HB).sum(0)
        torch.testing.assert_close(
            found.return_B, rewards + LEARNING.discount**power * found.value_B
        )


def test_the_scale_of_imagined_rewards():
    real, symlog = imagined()[0], imagined(imagined_reward="symlog")[0]
    torch.testing.assert_close(real.reward_HB, two_hot.symexp(symlog.reward_HB))
    assert not torch.allclose(real.reward_HB, symlog.reward_HB)


@pytest.fixture(scope="module")
def experiment(repository):
    file = repository / "experiments" / "base" / "demo_scratch.toml"
    e = load_experiment(file, scale="laptop", data="embedded")
    return attrs.evolve(e, policy_learning=LEARNING)


def test_the_models_reward_loss(experiment):
    """PWM's drives every logit towards the reward itself; two-hot does not."""
    two_hot_ = attrs.evolve(experiment, conventions=ConventionsConfig())
    assert loss_table(two_hot_).config.reward_loss == "two_hot"
    logit_mse = attrs.evolve(experiment, conventions=ConventionsConfig(model_loss="logit_mse"))
    config = loss_table(logit_mse).config
    assert (config.reward_loss, config.consistency_coef, config.reward_coef) == (
        "logit_mse", 1.0, 1 / H,
    )  # fmt: skip
    real, losses = batch(), {}
    for kind in ("two_hot", "logit_mse"):
        component, module = world_model("mlp", reward_loss=kind)
        with torch.no_grad():
            module.reward[-1].weight.zero_()
            module.reward[-1].bias.fill_(1.5)
        level = real._replace(reward_HB=torch.full_like(real.reward_HB, 1.5))
        noise = torch.empty(H, B, 0)
        losses[kind] = component.loss(module, level, noise, DONE)[1]["reward_loss"]
    assert losses["logit_mse"] == 0  # although the decoded reward is 0, not 1.5
    assert losses["two_hot"] > 1


def test_a_world_model_without_the_other_loss_is_refused(experiment):
    @attrs.frozen
    class Other:
        width: int = 3

    plain = attrs.evolve(
        experiment,
        world_model=PluginTable(plugin="other", level="other", config=Other(), component=None),
        conventions=ConventionsConfig(bundle="pwm"),
    )
    with pytest.raises(UserError, match="'other' has no setting consistency_coef"):
        loss_table(plain)


@pytest.mark.parametrize("stacked", [False, True])
def test_the_task_embedding(stacked):
    """Trained; or untouched, its gradient piling up and counting when the others are clipped."""
    component, module = world_model("mlp")
    real, noise = batch(), torch.empty(H, B, 0)
    rate, name = torch.tensor(1e-3), "task_embedding.weight"
    wrap = (lambda x: stack([x])) if stacked else (lambda x: x)
    optimiser = attrs.evolve(OPTIMISER, grad_clip=5.0, encoder_scale=1.0)
    states, norms = {}, {}
    for stale in (False, True):
        update = WorldModelUpdate(module, component.loss, optimiser, stacked=stacked)
        state = wrap(WorldModelState.initial(params(module), stale))
        norms[stale] = []
        for _ in range(2):
            state, metrics = update(state, wrap(real), wrap(noise), rate, DONE)
            norms[stale].append(metrics["grad_norm"])
        states[stale] = state
    before = wrap(params(module))[name]
    assert not torch.equal(states[False].params[name], before)
    torch.testing.assert_close(states[True].params[name], module.project({name: before})[name])
    moments = [states[stale].adam.first.shape[-1] for stale in (False, True)]
    assert moments[0] - moments[1] == before.shape[-2:].numel()
    torch.testing.assert_close(norms[True][0], norms[False][0])
    # The second norm has the first gradient in it, as the clipping left it.
    call = HookCall(module, component.loss)
    start = params(module)
    first, _ = gradient(call.with_params, start, real, noise, DONE)
    left = unflatten(clip(flatten(first), 5.0)[0], first)
    only = one_cell if stacked else lambda tree: tree
    state = WorldModelState.initial(start, stale_embedding=True)
    one, _ = WorldModelUpdate(module, component.loss, optimiser)(state, real, noise, rate, DONE)
    second, _ = gradient(call.with_params, one.params, real, noise, DONE)
    total = {k: g + left[k] if k == name else g for k, g in second.items()}
    clipped, norm = clip(flatten(total), 5.0)
    both = unflatten(clipped, total)
    torch.testing.assert_close(only(norms[True][1]), norm)
    assert not torch.isclose(norm, clip(flatten(second), 5.0)[1])
    torch.testing.assert_close(only(states[True].stale)[name], both[name])


def test_action_masks_and_episodes(small_store):
    data = load_dataset(DataConfig(path=str(small_store)), torch.device("cpu"))
    right = by_conventions(data, ConventionsConfig())
    assert right.train is data.train
    pwm = by_conventions(data, ConventionsConfig(bundle="pwm"))
    assert (pwm.train.mask_KA == 1).all()
    assert (right.train.mask_KA != 1).any()
    starts, drawn = data.train.start_E.tolist(), pwm.train.start_E.tolist()
    assert len(drawn) == len(starts)
    assert set(drawn) < set(starts)
    for task in torch.unique(data.train.task_E):
        mine = [(rows.task_E == task).sum() for rows in (data.train, pwm.train)]
        assert mine[0] == mine[1]
        some_starts(StartSampler(pwm.train, int(task)), 4, torch.Generator().manual_seed(0))
    again = by_conventions(data, ConventionsConfig(bundle="pwm"))
    assert again.train.start_E.tolist() == drawn
