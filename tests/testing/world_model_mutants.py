"""Broken world models; see ``mutants.py``."""

from collections.abc import Callable

import attrs
import torch
from mutants import WM, FlowWM, mutant
from sound import Memory, Remembering
from torch import nn

from fmbpo.hookspecs import CONTINUE, Prediction
from fmbpo.nn.rollout import model_rollout
from fmbpo.nn.world_model import LatentWorldModel, WorldModelConfig
from fmbpo_wm_flow.field import Tangent
from fmbpo_wm_flow.model import FlowWorldModel

RANDOM_SOURCE = {"source": "noise", "endpoint_coef": 0.0}


# -- settings -------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class _WithAFunction(WorldModelConfig):
    activation: Callable = torch.tanh


@mutant("settings_survive_a_file", "activation: ")
class SettingThatIsNoValue(WM):
    Config = _WithAFunction


def _made_in_a_function():
    @attrs.frozen(kw_only=True)
    class Local(WorldModelConfig):
        pass

    return Local


@mutant("settings_can_be_copied", "can be deep-copied and pickled")
class SettingsOfALocalClass(WM):
    Config = _made_in_a_function()


@mutant("keeps_its_protocol", "`module.latent_dim` is an int")
class NoLatentDim(WM):
    class Module(LatentWorldModel):
        def __init__(self, config, dims):
            super().__init__(config, dims)
            del self.latent_dim


# -- masks, tasks, spaces -------------------------------------------------------------------------


@mutant("masked_actions_are_inert", "dimensions change nothing in `predict`")
class MaskInverted(WM):
    class Module(LatentWorldModel):
        def step_input(self, z, action, task):
            return super().step_input(z, action, task._replace(mask_BA=1 - task.mask_BA))


@mutant("masked_actions_are_inert", "dimensions change nothing in `predict`")
class MaskMissingInPredict(WM):
    def predict(self, module, z, action, task, noise):
        task = task._replace(mask_BA=torch.ones_like(task.mask_BA))
        return super().predict(module, z, action, task, noise)


@mutant("masked_actions_are_inert", "dimensions change nothing in `loss`")
class MaskMissingInLoss(WM):
    def loss(self, module, batch, noise, done):
        return super().loss(
            module, batch._replace(mask_BA=torch.ones_like(batch.mask_BA)), noise, done
        )


@mutant("masked_actions_are_inert", "actions change the next latent")
class ActionUnused(WM):
    def predict(self, module, z, action, task, noise):
        return super().predict(module, z, torch.zeros_like(action), task, noise)


@mutant("task_is_told_by_its_embedding", "different tasks give different predictions")
class EmbeddingUnused(WM):
    class Module(LatentWorldModel):
        def step_input(self, z, action, task):
            return super().step_input(
                z, action, task._replace(embedding_BE=torch.zeros_like(task.embedding_BE))
            )


@mutant("latent_stays_in_its_space", "stay on the simplex")
class VelocityEndsInSimNorm(WM):
    def predict(self, module, z, action, task, noise):
        velocity, logits, _ = super().predict(module, z, action, task, noise)
        return Prediction(z + velocity, logits)


class _Unprojected(Tangent):
    def leave(self, x):
        return x


@mutant("latent_stays_in_its_space", "stay on the simplex", parameterisation="tangent")
class LeavesThroughAFace(FlowWM):
    class Module(FlowWorldModel):
        def __init__(self, config, dims):
            super().__init__(config, dims)
            self.field = _Unprojected()


# -- shapes, noise, rollouts ----------------------------------------------------------------------


@mutant("shapes_fit", "`predict`'s reward has shape [1, 101]")
class OneBinTooFew(WM):
    def predict(self, module, z, action, task, noise):
        z_next, logits, _ = super().predict(module, z, action, task, noise)
        return Prediction(z_next, logits[..., 1:])


@mutant("shapes_fit", "the plugin fails: RuntimeError")
class EncodesSingleRowsAlone(WM):
    class Module(LatentWorldModel):
        def encode(self, obs, embedding):
            return self.encoder(torch.cat([obs, embedding], -1))


@mutant("shapes_fit", "`rollout`'s latents (H + 1 rows)")
class RolloutWithoutItsStart(WM):
    def rollout(self, module, z, partner, task, noise):
        found = super().rollout(module, z, partner, task, noise)
        return found._replace(z_HBD=found.z_HBD[1:])


@mutant("noise_matters_where_declared", "changes the prediction", **RANDOM_SOURCE)
class NoiseIgnored(FlowWM):
    def predict(self, module, z, action, task, noise):
        return super().predict(module, z, action, task, torch.zeros_like(noise))


@mutant("has_no_randomness_of_its_own", "torch's generator moved")
class NoiseInTheLoss(WM):
    def loss(self, module, batch, noise, done):
        obs = batch.obs_HBO + 0.1 * torch.randn_like(batch.obs_HBO)
        return super().loss(module, batch._replace(obs_HBO=obs), noise, done)


@mutant("rollout_is_repeated_predict", "the rollout's latent at step 0")
class RolloutOfItsOwn(WM):
    def rollout(self, module, z, partner, task, noise):
        def step(z, action, noise):
            found = self.predict(module, z, action, task, noise)
            return found._replace(state=(z + found.state) / 2)

        return model_rollout(step, z, partner, noise)


@mutant("rollout_is_repeated_predict", "with noise[0]", **RANDOM_SOURCE)
class NoiseOffByOne(FlowWM):
    def rollout(self, module, z, partner, task, noise):
        return super().rollout(module, z, partner, task, noise.roll(1, 0))


@mutant("rollout_is_repeated_predict", "with noise[1]", **RANDOM_SOURCE)
class OneNoiseForAllSteps(FlowWM):
    def rollout(self, module, z, partner, task, noise):
        return super().rollout(module, z, partner, task, noise[:1].expand_as(noise))


@mutant("rollout_is_repeated_predict", "a rollout begins with its start")
class StartReplaced(WM):
    def rollout(self, module, z, partner, task, noise):
        found = super().rollout(module, z, partner, task, noise)
        return found._replace(z_HBD=torch.cat([found.z_HBD[1:2], found.z_HBD[1:]]))


# -- changes in place, extremes -------------------------------------------------------------------


@mutant("leaves_its_arguments_alone", "`predict` does not change its arguments")
class ActionMaskedInPlace(WM):
    def predict(self, module, z, action, task, noise):
        return super().predict(module, z, action.mul_(task.mask_BA), task, noise)


@mutant("leaves_its_arguments_alone", "`loss` does not change its arguments")
class RewardCentredInPlace(WM):
    def loss(self, module, batch, noise, done):
        batch.reward_HB.sub_(batch.reward_HB.mean())
        return super().loss(module, batch, noise, done)


@mutant("loss_and_metrics_are_numbers", "found: metric step")
class MetricOfTheRecordsName(WM):
    """A run would end at its first line of the record."""

    def loss(self, module, batch, noise, done):
        loss, metrics = super().loss(module, batch, noise, done)
        return loss, {**metrics, "step": loss.detach()}


@mutant("stays_finite", "of `predict` for inputs of scale")
class ExponentialOfObservations(WM):
    class Module(LatentWorldModel):
        def encode(self, obs, embedding):
            return super().encode(obs.exp(), embedding)


@mutant("stays_finite", "of `predict` for inputs of scale 0")
class RootOfTheAction(WM):
    def predict(self, module, z, action, task, noise):
        return super().predict(module, z, action.abs().sqrt(), task, noise)


@mutant("stays_finite", "observations and rewards of scale 1")
class LogarithmOfTheReward(WM):
    def loss(self, module, batch, noise, done):
        return super().loss(module, batch._replace(reward_HB=batch.reward_HB.log()), noise, done)


# -- gradients and learning -----------------------------------------------------------------------


@mutant(
    "gradients_reach_the_inputs", "result 0 of `predict` has a gradient with respect to the action"
)
class ActionDetached(WM):
    def predict(self, module, z, action, task, noise):
        return super().predict(module, z, action.detach(), task, noise)


@mutant(
    "gradients_reach_the_inputs", "result 1 of `predict` has a gradient with respect to the latent"
)
class RewardOfADetachedLatent(WM):
    def predict(self, module, z, action, task, noise):
        z_next = super().predict(module, z, action, task, noise).state
        return Prediction(z_next, module.reward_logits(z.detach(), action, task))


@mutant("loss_reaches_every_parameter", "none to reward.", reward_coef=0.0)
class RewardNotTrained(WM):
    pass


@mutant("decoded_reward_follows_the_real_one", "decoded rewards explain the real ones")
class LossOfTheWrongSign(WM):
    def loss(self, module, batch, noise, done):
        loss, metrics = super().loss(module, batch, noise, done)
        return -loss, metrics


@mutant(
    "decoded_reward_follows_the_real_one",
    "decoded rewards explain the real ones",
    reward_loss="logit_mse",
)
class RewardHeadStuck(WM):
    """The loss of PWM's released code: every logit learns the mean reward."""


@mutant("decoded_reward_follows_the_real_one", "decoded rewards explain the real ones")
class RewardOfTheRowBeside(WM):
    def loss(self, module, batch, noise, done):
        return super().loss(
            module, batch._replace(reward_HB=batch.reward_HB.roll(1, 1)), noise, done
        )


@mutant("decoded_reward_follows_the_real_one", "decoded rewards explain the real ones")
class RewardOfTheStepBefore(WM):
    def loss(self, module, batch, noise, done):
        return super().loss(
            module, batch._replace(reward_HB=batch.reward_HB.roll(1, 0)), noise, done
        )


@mutant("decoded_reward_follows_the_real_one", "decoded rewards explain the real ones")
class AnotherInputOrderInPredict(WM):
    def predict(self, module, z, action, task, noise):
        z_next = super().predict(module, z, action, task, noise).state
        inputs = torch.cat([z, action * task.mask_BA, task.embedding_BE], -1)
        return Prediction(z_next, module.reward(inputs))


@mutant("frozen_is_frozen", "a hook changed them")
class EmbeddingThatLimitsItself(WM):
    """``max_norm`` writes to the weight at every look-up."""

    class Module(LatentWorldModel):
        def __init__(self, config, dims):
            super().__init__(config, dims)
            self.task_embedding = nn.Embedding(dims.tasks, config.task_dim, max_norm=1.0)


# -- the ways in which the engine runs a model ----------------------------------------------------


@mutant("compiles_as_one_graph", ".nonzero()")
class ShapeFromData(WM):
    def predict(self, module, z, action, task, noise):
        action = action[:, task.mask_BA.any(0).nonzero().flatten()]
        return super().predict(module, z, action, task, noise)


@mutant("evaluations_are_counted_right", "module.evaluations = 1 passes")
class TwoHalfSteps(WM):
    def predict(self, module, z, action, task, noise):
        half, logits, _ = super().predict(module, z, action, task, noise)
        return Prediction(super().predict(module, half, action, task, noise).state, logits)


@mutant("evaluations_are_counted_right", "module.evaluations = 4 passes", substeps=4)
class CountsItsSubsteps(FlowWM):
    class Module(FlowWorldModel):
        def __init__(self, config, dims):
            super().__init__(config, dims)
            self.evaluations = config.substeps


# -- what the dynamics learn, noise of the loss, batches in the encoder ----------------------------


@mutant("predicted_latent_is_that_of_its_row", "of the comparisons")
class LearnsToStay(WM):
    def loss(self, module, batch, noise, done):
        obs = torch.cat([batch.obs_HBO[:1], batch.obs_HBO[:-1]])
        return super().loss(module, batch._replace(obs_HBO=obs), noise, done)


@mutant("predicted_latent_is_that_of_its_row", "of the comparisons")
class LearnsWhereAnotherRowGoes(WM):
    def loss(self, module, batch, noise, done):
        obs = torch.cat([batch.obs_HBO[:1], batch.obs_HBO[1:].roll(1, 1)])
        return super().loss(module, batch._replace(obs_HBO=obs), noise, done)


@mutant("loss_noise_matters_where_declared", "declare loss_noise_dim = 0")
class LossNoiseUnused(WM):
    class Module(LatentWorldModel):
        loss_noise_dim = 5


@mutant("rows_do_not_see_each_other", "a row's latent and prediction")
class EncodesAgainstTheBatch(WM):
    class Module(LatentWorldModel):
        def encode(self, obs, embedding):
            return super().encode(obs - obs.mean(-2, keepdim=True), embedding)


@mutant("keeps_its_protocol", "`module.adopt(weights)` can be called")
class AdoptsWithoutAnArgument(WM):
    """No hook and no other check calls it."""

    class Module(LatentWorldModel):
        def adopt(self):
            return {}


@mutant("decoded_reward_follows_the_real_one", "decoded rewards explain the real ones")
class LearnsOtherBins(WM):
    class Module(LatentWorldModel):
        def __init__(self, config, dims):
            super().__init__(config, dims)
            self.reward_bound = 4.0


@mutant("keeps_its_protocol", "`module.reward_bound` is a float above 0")
class BinsUpsideDown(WM):
    class Module(LatentWorldModel):
        def __init__(self, config, dims):
            super().__init__(config, dims)
            self.reward_bound = -self.reward_bound


@mutant("keeps_its_protocol", "`module.encode(obs_BO, e_BE)` can be called")
class EncodesWithoutTheTask(WM):
    class Module(LatentWorldModel):
        def encode(self, obs):
            return super().encode(obs, obs.new_zeros(len(obs), self.task_dim))


@mutant("keeps_its_protocol", "`module.simplex_dim` is an int of at least 1")
class HalfAGroup(WM):
    class Module(LatentWorldModel):
        simplex_dim = 0.5


@mutant("keeps_its_protocol", "is a multiple of simplex_dim = 5")
class GroupsThatDoNotFit(WM):
    class Module(LatentWorldModel):
        simplex_dim = 5


@mutant("is_built_for_any_sizes", "IndexError")
class KnowsHowManyTasksThereAre(WM):
    def build(self, config, dims):
        return super().build(config, attrs.evolve(dims, tasks=3))


# -- measures of a model ---------------------------------------------------------------------------


@mutant("evaluations_are_counted_right", "a layer is used 2 times in 1 step")
class TwoHalfStepsWithAWeightMadeAnew(WM):
    """The second pass uses its first weight normalised: it is the same layer."""

    def predict(self, module, z, action, task, noise):
        half, logits, _ = super().predict(module, z, action, task, noise)
        first, *rest = module.dynamics
        weight = first.linear.weight.T
        x = module.step_input(half, action, task) @ (weight / weight.norm())
        for layer in rest:
            x = layer(x)
        return Prediction(x, logits)


@mutant("rows_do_not_see_each_other", "do not depend on the other rows", **RANDOM_SOURCE)
class OneNoiseForAllRows(FlowWM):
    def predict(self, module, z, action, task, noise):
        return super().predict(module, z, action, task, noise[:1].expand_as(noise))


@mutant("curvature_is_a_mean_over_rows", "`curvature`'s result has shape []")
class CurvatureOfEveryRow(FlowWM):
    class Module(FlowWorldModel):
        def curvature(self, z, action, task, noise):
            return super().curvature(z, action, task, noise).expand(len(z))


@mutant("curvature_is_a_mean_over_rows", "of each row twice")
class CurvatureSummedOverRows(FlowWM):
    class Module(FlowWorldModel):
        def curvature(self, z, action, task, noise):
            return len(z) * (super().curvature(z, action, task, noise) + 0.1)


@mutant("curvature_is_a_mean_over_rows", "finite and not negative")
class CurvatureBelowZero(FlowWM):
    class Module(FlowWorldModel):
        def curvature(self, z, action, task, noise):
            return -super().curvature(z, action, task, noise) - 0.1


# -- memory, and rewards in other forms ------------------------------------------------------------


@mutant("state_keeps_its_shapes", "`observe`'s state has the parts")
class StateGrows(Memory):
    class Module(Remembering):
        def observe(self, state, action, obs, task):
            z, mean = super().observe(state, action, obs, task)
            return z, torch.cat([mean, z], -1)


@mutant("state_keeps_its_shapes", "floating-point")
class StateCountsSteps(Memory):
    class Module(Remembering):
        def begin(self, obs, task):
            return *super().begin(obs, task), torch.zeros(len(obs), dtype=torch.long)

        def observe(self, state, action, obs, task):
            return *super().observe(state[:2], action, obs, task), state[2] + 1

    def predict(self, module, state, action, task, noise):
        found = super().predict(module, state[:2], action, task, noise)
        return found._replace(state=(*found.state, state[2] + 1))


@mutant("state_follows_the_observation", "depends on the observation")
class BlindToObservations(Memory):
    class Module(Remembering):
        def observe(self, state, action, obs, task):
            z = self.following(state, action, task)
            return z, 0.9 * state[1] + 0.1 * z


@mutant("state_follows_the_observation", "depends on the state before")
class ForgetsAtEveryObservation(Memory):
    class Module(Remembering):
        def observe(self, state, action, obs, task):
            z = self.encode(obs, task.embedding_BE)
            return z, 0.9 * z + 0.1 * self.following((z, z), action, task)


@mutant("state_follows_the_observation", "masked action dimensions")
class SeesMaskedActions(Memory):
    class Module(Remembering):
        def observe(self, state, action, obs, task):
            z, mean = super().observe(state, action, obs, task)
            return z + 1e-3 * action.sum(-1, keepdim=True), mean


@mutant("continuing_is_a_learned_probability", "the loss depends on batch.terminated_HB")
class ContinuesBlindly(WM):
    def predict(self, module, z, action, task, noise):
        found = super().predict(module, z, action, task, noise)
        return found._replace(extras={CONTINUE: found.reward_BR[:, 0].sigmoid()})


@mutant("continuing_is_a_learned_probability", "is in [0, 1]")
class ContinuesByALogit(WM):
    def predict(self, module, z, action, task, noise):
        found = super().predict(module, z, action, task, noise)
        return found._replace(extras={CONTINUE: 20 * found.reward_BR[:, 0]})


@mutant("shapes_fit", "`predict`'s reward has shape [1, 2]")
class DecodesAnotherWidth(WM):
    class Module(LatentWorldModel):
        reward_dim = 2

        def decode_reward(self, reward):
            return reward[..., 0]


@mutant("shapes_fit", "`rollout`'s 'continue' has shape")
class ContinuesByColumn(WM):
    def predict(self, module, z, action, task, noise):
        found = super().predict(module, z, action, task, noise)
        return found._replace(extras={CONTINUE: found.reward_BR[:, :1].sigmoid()})
