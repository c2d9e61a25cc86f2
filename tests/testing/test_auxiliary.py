"""The checks of a policy's loss refuse no sound one: other terms, multipliers, odd operations."""

import re

import pytest
import torch
import torch.nn.functional as F
from auxiliary_mutants import FQL, Entropy, PriorThatLearnsFromLiveActions
from mutants import P, component
from sound import Tempered

from fmbpo.nn.policy import action_error, pwm_actor_loss
from fmbpo.testing.contract import configured, run, run_check, subject_of
from fmbpo.testing.contract.trained import train
from fmbpo_policy_mlp import GaussianPolicy

torch.set_num_threads(1)


def subject(plugin, **settings):
    found = component(plugin)
    return subject_of(found, configured(found, settings))


def test_a_loss_may_rise_while_it_works():
    """The policy becomes surer of its actions, and their log-density weighs in the loss."""
    example = subject(Tempered())
    adam = torch.optim.Adam(example.module.parameters(), 1e-2)
    losses = train(lambda _: example.loss()[0], 60, adam)
    assert losses[-1] > losses[0]
    assert run_check(example, "return_rises").status == "ok"


@pytest.mark.parametrize(
    "sound",
    [
        (Entropy(), {"learned": False, "temperature": 100.0}),
        (FQL(), {"substeps": 1, "anchor": 10_000.0}),
    ],
    ids=["entropy", "anchor"],
)
def test_other_terms_may_outweigh_the_return(sound):
    plugin, settings = sound
    assert run_check(subject(plugin, **settings), "return_rises").status == "ok"


@pytest.mark.parametrize("plugin", [FQL(), Entropy()], ids=["fql", "entropy"])
@pytest.mark.parametrize(
    "check", ["only_the_return_moves_latents", "other_parameters_learn_apart", "data_do_not_repel"]
)
def test_the_examples_pass_without_a_warning(plugin, check):
    assert run_check(subject(plugin), check).status == "ok"


def test_the_guides_loss_trains_what_it_is_for(repository):
    """Run as it stands on the page."""
    text = (repository / "docs" / "write-a-plugin.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(def loss.*?)^```$", text, re.MULTILINE | re.DOTALL)
    names = {"action_error": action_error, "pwm_actor_loss": pwm_actor_loss}
    exec(code, names)

    class Plugin(P):
        class Module(PriorThatLearnsFromLiveActions.Module):
            real_steps = 1

            def teacher(self, z):
                return torch.tanh(self.prior(z))

        def loss(self, *arguments):
            return names["loss"](*arguments)

    found = list(run(component(Plugin()), subject(Plugin()).config))
    assert {o.check for o in found if o.status not in ("ok", "skipped")} == set()


class HeadOnCriticsValues(P):
    """Builds a return of its own from ``context.values``: it may move latents."""

    def loss(self, module, imagined, context):
        z, action = imagined.rollout.z_HBD[1:], imagined.rollout.action_HBA
        ahead = context.values(z, action).amin(0).mean()
        return -(imagined.reward_HB.sum(0).mean() + imagined.value_B.mean() + ahead), {}


def test_a_return_of_ones_own_may_move_latents():
    found = subject(HeadOnCriticsValues())
    for check in ("only_the_return_moves_latents", "return_rises", "loss_follows_the_return"):
        assert run_check(found, check).status == "ok"


def test_a_loss_without_second_derivatives_is_not_judged():
    """The attention that torch has for CPUs."""

    class Plugin(PriorThatLearnsFromLiveActions):
        class Module(PriorThatLearnsFromLiveActions.Module):
            def __init__(self, config, dims):
                super().__init__(config, dims)
                self.prior.register_forward_hook(lambda _, __, found: attended(found))

    def attended(x):
        return F.scaled_dot_product_attention(*[x.unsqueeze(0)] * 3).squeeze(0)

    outcome = run_check(subject(Plugin()), "other_parameters_learn_apart")
    assert (outcome.status, outcome.message.split(":")[0]) == ("ok", "not judged")


def test_a_policy_that_its_loss_does_not_move_fails():
    class Plugin(P):
        class Module(GaussianPolicy):
            def forward(self, z, task, noise):
                return (
                    super().forward(z.detach(), task, noise).detach()
                    + 0.0 * self.mean[0].bias.sum()
                )

    assert run_check(subject(Plugin()), "return_rises").status == "failed"
