"""Sound plugins that use the optional parts of the contract, beside the four of this repository."""

import math

import torch
from torch import nn

from fmbpo.hookspecs import LOG_PROB, Prediction
from fmbpo.nn.blocks import plain_mlp
from fmbpo.nn.returns import td_lambda
from fmbpo.nn.rollout import model_rollout, policy_rollout
from fmbpo.nn.world_model import LatentWorldModel
from fmbpo_policy_mlp import GaussianPlugin, GaussianPolicy
from fmbpo_wm_mlp import MLPWorldModel


class Remembering(LatentWorldModel):
    """Its state: a latent, and a running mean of latents, which the reward sees."""

    warm_up = 2

    def begin(self, obs, task):
        z = super().encode(obs, task.embedding_BE)
        return z, z

    def observe(self, state, action, obs, task):
        z = super().encode(obs, task.embedding_BE)
        return 0.5 * (z + self.following(state, action, task)), 0.9 * state[1] + 0.1 * z

    def following(self, state, action, task):
        return self.dynamics(self.step_input(state[0], action, task))

    def latent(self, state):
        return state[0]


class Memory(MLPWorldModel):
    """A sound model that remembers."""

    Module = Remembering

    def build(self, config, dims):
        return self.Module(config, dims)

    def predict(self, module, state, action, task, noise):
        z = module.following(state, action, task)
        mean = 0.9 * state[1] + 0.1 * z
        return Prediction((z, mean), module.reward_logits(0.5 * (state[0] + mean), action, task))

    def rollout(self, module, state, partner, task, noise):
        step = lambda state, a, n: self.predict(module, state, a, task, n)  # noqa: E731
        return model_rollout(step, state, partner, noise, module.latent)


class Dense(GaussianPlugin):
    """Gives the log-density of its actions."""

    Module = GaussianPolicy

    def build(self, config, dims):
        return self.Module(config, dims)

    def acted(self, module, z, task, noise):
        action = self.predict(module, z, task, noise)
        std = module.log_std.std()
        normal = -0.5 * noise.square() - std.log() - 0.5 * math.log(2 * math.pi)
        slope = torch.log1p(-action.square() + 1e-6)
        return action, {LOG_PROB: self.summed(normal, slope, task.mask_BA)}

    def summed(self, normal, slope, mask):
        return ((normal - slope) * mask).sum(-1)

    def rollout(self, module, z, partner, task, noise):
        return policy_rollout(lambda z, n: self.acted(module, z, task, n), z, partner, noise)


class Soft(Dense):
    """A sound policy with a log-density, real steps, and noise, critics and targets of its own."""

    class Module(GaussianPolicy):
        real_steps = 2

        def __init__(self, config, dims):
            super().__init__(config, dims)
            self.dims, self.loss_noise_dim = dims, dims.action

        def build_critic(self, units):
            return QCritic(self.dims.latent + self.dims.action, units)

        def targets(self, imagined, next_value, discount, lam):
            reward = imagined.reward_HB - 0.01 * imagined.rollout.extras[LOG_PROB]
            return td_lambda(reward, next_value, discount, torch.full_like(reward, lam))

    def loss(self, module, imagined, context):
        loss, metrics = super().loss(module, imagined, context)
        real = context.real
        noise = context.loss_noise_BN.expand(len(real.action_HBA), -1, -1)
        cloned = module(real.z_HBD[:-1], context.task, noise)
        return loss + 0.01 * (cloned - real.action_HBA).square().mean(), metrics


class Tempered(Dense):
    """A sound policy whose loss rises while it works: SAC's, whose temperature α learns by
    ``-log α (log π + target)``, log π without gradient."""

    class Module(GaussianPolicy):
        def __init__(self, config, dims):
            super().__init__(config, dims)
            self.log_alpha = nn.Parameter(torch.tensor(-2.0))

    def loss(self, module, imagined, context):
        loss, metrics = super().loss(module, imagined, context)
        log_prob, log_alpha = imagined.rollout.extras[LOG_PROB], module.log_alpha
        target = -context.task.mask_BA.sum(-1)
        bonus = log_alpha.detach().exp() * log_prob
        return loss + (bonus - log_alpha * (log_prob + target).detach()).mean(), metrics


class QCritic(nn.Module):
    def __init__(self, width, units):
        super().__init__()
        self.net = plain_mlp(width, units, 1)

    def forward(self, z, action):
        return self.net(torch.cat([z, action], -1)).squeeze(-1)

    def error(self, z, action, target):
        return (self(z, action) - target).square()
