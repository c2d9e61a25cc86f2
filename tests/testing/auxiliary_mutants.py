"""Broken terms of a policy's loss beside the return, each unseen by all other checks; see
``mutants.py``."""

import torch
from example_plugins import example
from mutants import Built, P, mutant
from sound import Soft

from fmbpo.nn.blocks import plain_mlp
from fmbpo.nn.policy import action_error
from fmbpo_policy_mlp import GaussianPolicy

entropy, fql = example("policy_entropy"), example("policy_fql")


class FQL(Built):
    """The example, a sound policy: a flow learns from data, and its student acts."""

    Config, small, Module = fql.Config, fql.small, fql.FlowQ
    predict, rollout, freeze = map(staticmethod, (fql.predict, fql.rollout, fql.freeze))

    def loss(self, module, imagined, context):
        return fql.loss(module, imagined, context)


class Entropy(FQL):
    """The example, a sound policy: its temperature learns."""

    Config, small, Module = entropy.Config, entropy.small, entropy.Entropic
    predict, rollout = staticmethod(entropy.predict), staticmethod(entropy.rollout)

    def loss(self, module, imagined, context):
        return entropy.loss(module, imagined, context)


# -- gradients through the world model ------------------------------------------------------------


@mutant("only_the_return_moves_latents", "with respect to imagined latents", substeps=2)
class DistilsInLatentsWithTheirGradient(FQL):
    def loss(self, module, imagined, context):
        loss, metrics = super().loss(module, imagined, context)
        z, task, noise = imagined.rollout.z_HBD[:-1], context.task, context.noise_HBN
        again = action_error(module(z, task, noise), module.behaviour(z, task, noise), task)
        return loss + 0.1 * again, metrics


@mutant("only_the_return_moves_latents", "with respect to imagined latents")
class ImitatesAControllerOfLatentsWithTheirGradient(P):
    def loss(self, module, imagined, context):
        loss, metrics = super().loss(module, imagined, context)
        z, action = imagined.rollout.z_HBD[:-1], imagined.rollout.action_HBA
        far = (action - torch.tanh(z[..., : action.shape[-1]])) * context.task.mask_BA
        return loss + 0.1 * far.square().mean(), metrics


# -- parameters that do not act -------------------------------------------------------------------


@mutant("other_parameters_learn_apart", "trains the policy and velocity.0.weight", substeps=2)
class TeacherDrawnToItsStudent(FQL):
    class Module(fql.FlowQ):
        behaviour = fql.FlowQ.behaviour.__wrapped__  # without its no_grad

    def loss(self, module, imagined, context):
        loss, metrics = super().loss(module, imagined, context)
        task, action = context.task, imagined.rollout.action_HBA
        z = imagined.rollout.z_HBD[:-1].detach()
        far = (action - module.behaviour(z, task, context.noise_HBN)) * task.mask_BA
        return loss + 0.1 * far.square().mean(), metrics


@mutant("other_parameters_learn_apart", "trains the policy and prior.0.weight")
class PriorThatLearnsFromLiveActions(P):
    """The prior is to follow the policy, and not the policy the prior."""

    class Module(GaussianPolicy):
        def __init__(self, config, dims):
            super().__init__(config, dims)
            self.prior = plain_mlp(dims.latent, config.units, dims.action)

    def loss(self, module, imagined, context):
        loss, metrics = super().loss(module, imagined, context)
        z, action = imagined.rollout.z_HBD[:-1].detach(), imagined.rollout.action_HBA
        far = (torch.tanh(module.prior(z)) - action) * context.task.mask_BA
        return loss + far.square().mean(), metrics


@mutant("other_parameters_learn_apart", "trains the policy and log_temperature")
class TemperatureThatTheActorMoves(Entropy):
    """It falls to nothing, or rises without end: the return with the bonus is linear in it."""

    class Module(entropy.Entropic):
        def temperature(self):
            return self.log_temperature.exp()


# -- weights of the wrong sign --------------------------------------------------------------------


@mutant("data_do_not_repel", "drive actions away from the data's", substeps=2)
class AnchorThatRepels(FQL):
    def loss(self, module, imagined, context):
        loss, metrics = super().loss(module, imagined, context)
        z, task = imagined.rollout.z_HBD[:-1].detach(), context.task
        wanted = module.behaviour(z, task, context.noise_HBN)
        distance = action_error(imagined.rollout.action_HBA, wanted, task)
        return loss - 2 * module.config.anchor * distance, metrics


@mutant("data_do_not_repel", "drive actions away from the data's")
class ClonesWithTheWrongSign(Soft):
    def loss(self, module, imagined, context):
        loss, metrics = super().loss(module, imagined, context)
        plain, _ = P.loss(self, module, imagined, context)
        return 2 * plain - loss, metrics
