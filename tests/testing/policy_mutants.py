"""Broken policies; see ``mutants.py``."""

import attrs
import torch
from mutants import FlowP, P, mutant
from sound import Dense, QCritic, Soft

from fmbpo.nn.rollout import policy_rollout
from fmbpo_policy_flow import FlowPolicy
from fmbpo_policy_mlp import GaussianConfig, GaussianPolicy

# -- settings -------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class _Infinite(GaussianConfig):
    max_log_std: float = float("inf")


@mutant("settings_survive_a_file", "instead of a finite number")
class InfiniteSetting(P):
    Config = _Infinite


@attrs.frozen(kw_only=True)
class _Lowered(GaussianConfig):
    init_log_std: float = attrs.field(default=-1.0, converter=lambda x: x - 1)


@mutant("settings_survive_a_file", "TOML gives equal settings back")
class SettingConvertedAtEveryReading(P):
    Config = _Lowered


@attrs.define(kw_only=True)
class _Mutable:
    units: list[int]
    task_embedding: bool = False
    detach: bool = True
    init_log_std: float = -1.0
    min_log_std: float = -1.427


@mutant("settings_can_be_copied", "the settings cannot be changed")
class MutableSettings(P):
    Config = _Mutable


# -- attributes of the module ---------------------------------------------------------------------


@mutant("keeps_its_protocol", "`module.growth(z, task, noise, vector)` can be called")
class GrowthWithoutAVector(P):
    """No hook and no other check calls it."""

    class Module(GaussianPolicy):
        def growth(self, z, task, noise):
            return noise.new_ones(())


@mutant("keeps_its_protocol", "`module.noise_dim` is an int of at least 0")
class NegativeNoise(P):
    class Module(GaussianPolicy):
        def __init__(self, config, dims):
            super().__init__(config, dims)
            self.noise_dim = -1


# -- shapes, noise, rollouts ----------------------------------------------------------------------


@mutant("shapes_fit", "`predict`'s action has shape [1, 3]")
class Squeezed(P):
    def predict(self, module, z, task, noise):
        return super().predict(module, z, task, noise).squeeze()


@mutant("shapes_fit", "`rollout`'s actions has shape [3, 4, 3]")
class BatchFirst(P):
    def rollout(self, module, z, partner, task, noise):
        found = super().rollout(module, z, partner, task, noise)
        return found._replace(action_HBA=found.action_HBA.transpose(0, 1))


@mutant("noise_matters_where_declared", "changes the prediction")
class AlwaysTheMode(P):
    def predict(self, module, z, task, noise):
        return super().predict(module, z, task, torch.zeros_like(noise))


@mutant("rollout_is_repeated_predict", "the rollout's action at step 0")
class TrainsItsModeAlone(P):
    def rollout(self, module, z, partner, task, noise):
        return super().rollout(module, z, partner, task, torch.zeros_like(noise))


@mutant("rollout_is_repeated_predict", "with noise[0]")
class NoiseOffByOne(P):
    def rollout(self, module, z, partner, task, noise):
        return super().rollout(module, z, partner, task, noise.roll(-1, 0))


@mutant("rollout_is_repeated_predict", "the rollout's action at step 1")
class OpenLoop(P):
    def rollout(self, module, z, partner, task, noise):
        start = z.detach()
        act = lambda _, n: self.predict(module, start, task, n)  # noqa: E731
        return policy_rollout(act, z, partner, noise)


@mutant("rollout_is_repeated_predict", "the rollout's latent at step 0")
class TellsThePartnerAnotherAction(P):
    def rollout(self, module, z, partner, task, noise):
        answer = lambda t, z, action: partner(t, z, action.clamp(-0.1, 0.1))  # noqa: E731
        return super().rollout(module, z, answer, task, noise)


# -- changes in place, extremes -------------------------------------------------------------------


@mutant("leaves_its_arguments_alone", "`rollout` does not change its arguments")
class NoiseScaledInPlace(P):
    def rollout(self, module, z, partner, task, noise):
        return super().rollout(module, z, partner, task, noise.clamp_(-1, 1))


@mutant("leaves_its_arguments_alone", "`loss` does not change its arguments")
class ReturnScaledInPlace(P):
    def loss(self, module, imagined, context):
        imagined.return_B.div_(imagined.scale)
        return super().loss(module, imagined, context)


@mutant("stays_finite", "of `predict` for inputs of scale 10")
class LogarithmOfTheLatent(P):
    def predict(self, module, z, task, noise):
        return super().predict(module, z.log(), task, noise)


# -- actions --------------------------------------------------------------------------------------


@mutant("actions_are_bounded_and_masked", "actions are in [-1, 1]")
class Unbounded(P):
    class Module(GaussianPolicy):
        def forward(self, z, task, noise):
            return (self.mean(z) + self.log_std.std() * noise) * task.mask_BA


@mutant("actions_are_bounded_and_masked", "masked dimensions are 0")
class Unmasked(P):
    def predict(self, module, z, task, noise):
        task = task._replace(mask_BA=torch.ones_like(task.mask_BA))
        return super().predict(module, z, task, noise)


@mutant("actions_are_bounded_and_masked", "masked dimensions are 0")
class MaskInverted(P):
    def predict(self, module, z, task, noise):
        return super().predict(module, z, task._replace(mask_BA=1 - task.mask_BA), noise)


@mutant("actions_are_bounded_and_masked", "masked dimensions are 0")
class MaskedBeforeTheBias(FlowP):
    """The start of the flow is masked, its end is not."""

    class Module(FlowPolicy):
        def forward(self, z, task, noise):
            return torch.tanh(self.solve(self.start(noise, task), z, task))


# -- gradients and learning -----------------------------------------------------------------------


@mutant(
    "gradients_reach_the_inputs", "result 0 of `predict` has a gradient with respect to the latent"
)
class LatentDetachedInPredict(P):
    def predict(self, module, z, task, noise):
        return super().predict(module, z.detach(), task, noise)


@mutant("policys_input_is_cut", "sees the latents without their gradient")
class InputNotCut(P):
    def rollout(self, module, z, partner, task, noise):
        act = lambda z, n: self.predict(module, z, task, n)  # noqa: E731
        return policy_rollout(act, z, partner, noise, detach=False)


@mutant("policys_input_is_cut", "sees the latents without their gradient")
class InputCutAtTheStartAlone(P):
    def rollout(self, module, z, partner, task, noise):
        start = z
        cut = lambda z: z.detach() if z is start else z  # noqa: E731
        act = lambda z, n: self.predict(module, cut(z), task, n)  # noqa: E731
        return policy_rollout(act, z, partner, noise, detach=False)


@mutant("policys_input_is_cut", "the path through the world model is not cut")
class PartnersInputCutToo(P):
    def rollout(self, module, z, partner, task, noise):
        answer = lambda t, z, action: partner(t, z.detach(), action)  # noqa: E731
        return super().rollout(module, z, answer, task, noise)


@mutant("return_rises", "raise the return")
class LossOfTheWrongSign(P):
    def loss(self, module, imagined, context):
        loss, metrics = super().loss(module, imagined, context)
        return -loss, metrics


@mutant("return_rises", "raise the return")
class RolloutWithReversedGradients(P):
    """Its actions are those of ``predict``."""

    def rollout(self, module, z, partner, task, noise):
        def act(z, noise):
            action = self.predict(module, z, task, noise)
            return 2 * action.detach() - action

        return policy_rollout(act, z, partner, noise)


@mutant("loss_reaches_every_parameter", "none to log_std.value")
class NoiseScaleDetached(P):
    class Module(GaussianPolicy):
        def forward(self, z, task, noise):
            return torch.tanh(self.mean(z) + self.log_std.std().detach() * noise) * task.mask_BA


# -- the ways in which the engine runs a policy ---------------------------------------------------


@mutant("evaluations_are_counted_right", "module.evaluations = 2 passes", substeps=2)
class CountsItsSubsteps(FlowP):
    class Module(FlowPolicy):
        def __init__(self, config, dims):
            super().__init__(config, dims)
            self.evaluations = config.substeps


@mutant("evaluations_are_counted_right", "module.evaluations = 1 passes")
class BestOfTwo(P):
    def predict(self, module, z, task, noise):
        one, two = (super(BestOfTwo, self).predict(module, z, task, n) for n in (noise, -noise))
        return torch.maximum(one, two)


# -- gradients of a rollout, and what the loss is of -----------------------------------------------


@mutant("gradients_pass_through_the_rollout", "the last latent of a rollout")
class PartnerGetsADetachedAction(P):
    def rollout(self, module, z, partner, task, noise):
        answer = lambda t, z, action: partner(t, z, action.detach())  # noqa: E731
        return super().rollout(module, z, answer, task, noise)


@mutant("gradients_pass_through_the_rollout", "the predicted rewards of a rollout")
class RewardsWithoutGradient(P):
    def rollout(self, module, z, partner, task, noise):
        found = super().rollout(module, z, partner, task, noise)
        return found._replace(reward_HBR=found.reward_HBR.detach())


@mutant("loss_follows_the_return", "a higher value at the horizon")
class LossWithoutTheValue(P):
    def loss(self, module, imagined, context):
        loss = -(imagined.reward_HB.sum(0) / imagined.scale).mean()
        return loss, {}


@mutant("shapes_fit", "`rollout` returns a Rollout")
class RolloutIsAPlainTuple(P):
    def rollout(self, module, z, partner, task, noise):
        return tuple(super().rollout(module, z, partner, task, noise))


@mutant("projection_is_one", "`project` maps over stacked parameters")
class ProjectionReadsValues(P):
    class Module(GaussianPolicy):
        def project(self, params):
            return {k: v / v.norm() if float(v.norm()) > 1 else v for k, v in params.items()}


@mutant("projection_is_one", "different parameters different results")
class ProjectsItsOwnParameters(P):
    class Module(GaussianPolicy):
        def project(self, params):
            return {k: v.detach() for k, v in self.named_parameters()}


@mutant("is_built_for_any_sizes", "RuntimeError")
class KnowsHowWideActionsAre(P):
    def predict(self, module, z, task, noise):
        return super().predict(module, z, task, noise) * z.new_ones(3)


# -- measures of a policy --------------------------------------------------------------------------


@mutant("rows_do_not_see_each_other", "do not depend on the other rows")
class OneNoiseForAllRows(P):
    def predict(self, module, z, task, noise):
        return super().predict(module, z, task, noise[:1].expand_as(noise))


@mutant("growth_is_a_mean_over_rows", "does not depend on the vector's length")
class GrowthOfAVectorThatIsNotScaled(FlowP):
    class Module(FlowPolicy):
        def growth(self, z, task, noise, vector):
            return super().growth(z, task, noise, vector) * vector.norm(dim=-1).mean()


@mutant("growth_is_a_mean_over_rows", "of each row twice")
class GrowthSummedOverRows(FlowP):
    class Module(FlowPolicy):
        def growth(self, z, task, noise, vector):
            return super().growth(z, task, noise, vector) * len(z)


@mutant("growth_is_a_mean_over_rows", "maps over stacked parameters")
class GrowthReadsItsValue(FlowP):
    class Module(FlowPolicy):
        def growth(self, z, task, noise, vector):
            found = super().growth(z, task, noise, vector)
            return found.new_tensor(float(found))


# -- densities, data, critics, targets -------------------------------------------------------------


@mutant("log_density_is_that_of_the_action", "integrates to 1")
class DensityBeforeTanh(Dense):
    def summed(self, normal, slope, mask):
        return (normal * mask).sum(-1)


@mutant("log_density_is_that_of_the_action", "integrates to 1")
class DensityOfMaskedDimensions(Dense):
    def summed(self, normal, slope, mask):
        return (normal - slope).sum(-1)


@mutant("loss_learns_from_the_data", "the loss depends on the real steps")
class AsksForDataInVain(P):
    class Module(GaussianPolicy):
        real_steps = 2


@mutant("loss_noise_matters_where_declared", "declare loss_noise_dim = 0")
class DrawsForItsLossInVain(P):
    class Module(GaussianPolicy):
        loss_noise_dim = 3


@mutant("own_critic_is_a_function_of_rows", "a critic's values have shape")
class CriticByColumn(Soft):
    class Module(Soft.Module):
        def build_critic(self, units):
            class Column(QCritic):
                def forward(self, z, action):
                    return super().forward(z, action).unsqueeze(-1)

            return Column(self.dims.latent + self.dims.action, units)


@mutant("own_critic_is_a_function_of_rows", "grows with the distance")
class CriticFleesItsTarget(Soft):
    class Module(Soft.Module):
        def build_critic(self, units):
            class Fleeing(QCritic):
                def error(self, z, action, target):
                    return -super().error(z, action, target)

            return Fleeing(self.dims.latent + self.dims.action, units)


@mutant("own_targets_follow_the_rewards", "higher next values raise")
class TargetsWithoutValues(Soft):
    class Module(Soft.Module):
        def targets(self, imagined, next_value, discount, lam):
            return imagined.reward_HB


@mutant("own_targets_follow_the_rewards", "`targets` are [H, B]")
class TargetsOfTheFirstStep(Soft):
    class Module(Soft.Module):
        def targets(self, imagined, next_value, discount, lam):
            return super().targets(imagined, next_value, discount, lam)[0]
