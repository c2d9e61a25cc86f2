"""Broken plugins of both kinds; see ``mutants.py``."""

import random
import time

import torch
from mutants import WM, P, both, mutant
from torch import nn

from fmbpo.hookspecs import Prediction
from fmbpo.nn.blocks import freeze


class Changed:
    """A fault in what ``predict`` gives: ``change(module, values, arguments)``."""

    def predict(self, module, *arguments):
        found = super().predict(module, *arguments)
        if isinstance(found, Prediction):
            return found._replace(state=self.change(module, found.state, arguments))
        return self.change(module, found, arguments)


class Built:
    """A fault in what ``build`` gives: ``spoil(module)``."""

    def build(self, config, dims):
        module = super().build(config, dims)
        return self.spoil(module) or module


# -- what the plugin declares, its parameters and settings ----------------------------------------


@both("keeps_its_protocol", "`build` returns an nn.Module")
class BuildsNoModule(Built):
    def spoil(self, module):
        return (module,)


@both("keeps_its_protocol", "`module.evaluations` is an int of at least 1")
class EvaluationsAreText(Built):
    def spoil(self, module):
        module.evaluations = "one"


@both("keeps_its_protocol", "`module.noise_dim` is an int of at least 0")
class NoNoiseDeclared(Built):
    def spoil(self, module):
        module.noise_dim = None


@both("evaluations_are_counted_right", "per `rollout` step")
class RollsOutTwice:
    def rollout(self, module, z, partner, task, noise):
        super().rollout(module, z, partner, task, noise)
        return super().rollout(module, z, partner, task, noise)


@both("parameters_begin_finite", "is finite float32")
class BuiltInFloat64(Built):
    def spoil(self, module):
        module.double()


@both("parameters_begin_finite", "is finite float32")
class UninitialisedParameter(Built):
    def spoil(self, module):
        next(module.parameters()).data[0] = float("nan")


@both("buffers_are_set_by_the_loss", "a new value of the buffer running_mean")
class BufferThatNothingSets(Built):
    def spoil(self, module):
        module.register_buffer("running_mean", torch.zeros(3))


@both("buffers_are_set_by_the_loss", "the buffer steps is floating-point")
class BufferOfIntegers(Built):
    def spoil(self, module):
        module.register_buffer("steps", torch.zeros(3, dtype=torch.long))


@both("buffers_are_set_by_the_loss", "and part of the state_dict")
class BufferThatIsNotSaved(Built):
    def spoil(self, module):
        module.register_buffer("running_mean", torch.zeros(3), persistent=False)


class Averaged(Built):
    """A sound plugin: a buffer that follows the mean of the first parameter."""

    def spoil(self, module):
        module.register_buffer("average", torch.zeros(2))

    def loss(self, module, *arguments):
        loss, metrics = super().loss(module, *arguments)
        mean = next(module.parameters()).detach().mean()
        return loss, {**metrics, "average": 0.9 * module.average + 0.1 * mean}


@both("buffers_are_set_by_the_loss", "no gradient with respect to buffers")
class BufferThatLearns(Averaged):
    def loss(self, module, *arguments):
        loss, metrics = super().loss(module, *arguments)
        return loss * (1 + module.average.sum()), metrics


@both("is_built_from_the_global_generator", "different seeds give different parameters")
class OwnSeed:
    def build(self, config, dims):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return super().build(config, dims)


@both("is_built_from_the_global_generator", "equal seeds give equal parameters")
class SeededByTheClock(Built):
    def spoil(self, module):
        own = torch.Generator().manual_seed(time.perf_counter_ns())
        weight = next(module.parameters()).data
        weight += 0.01 * torch.randn(weight.shape, generator=own)


@both("parameters_survive_a_file", "no tied parameters")
class TiedParameters(Built):
    def spoil(self, module):
        module.also_here = next(p for p in module.parameters() if p.dim() == 1)


@both("parameters_survive_a_file", "the loaded module predicts the same")
class DrawnBesideTheParameters(Built, Changed):
    def spoil(self, module):
        module.drawn = torch.rand(())

    def change(self, module, values, arguments):
        return values * module.drawn


def _after_project(module, change):
    """The module with a ``project`` that does ``change`` after its own."""
    own = module.project
    module.project = lambda params: change(own(params))


@both("projection_is_one", "projecting twice is projecting once")
class ProjectHalves(Built):
    def spoil(self, module):
        _after_project(module, lambda params: {name: p / 2 for name, p in params.items()})


@both("projection_is_one", "`project` changes no argument")
class ProjectInPlace(Built):
    def spoil(self, module):
        module.project = lambda params: {name: p.clamp_(-1, 1) for name, p in params.items()}


@both("projection_is_one", "keeps names and shapes")
class ProjectGivesItsOwnAlone(Built):
    def spoil(self, module):
        _after_project(module, lambda params: dict([params.popitem()]))


# -- purity ---------------------------------------------------------------------------------------


@both("has_no_randomness_of_its_own", "torch's generator moved")
class NoiseOfItsOwn(Changed):
    def change(self, module, values, arguments):
        return values + 0.01 * torch.randn_like(values)


@both("has_no_randomness_of_its_own", "torch's generator moved")
class Dropout(Changed):
    def change(self, module, values, arguments):
        return nn.functional.dropout(values, 0.1)


@both("has_no_randomness_of_its_own", "two different results")
class PythonsRandomness(Changed):
    def change(self, module, values, arguments):
        return values * random.random()


@both("keeps_no_memory", "calls with other arguments")
class RunningMean(Changed):
    def change(self, module, values, arguments):
        module.seen = 0.9 * getattr(module, "seen", 0.0) + 0.1 * values.detach().mean()
        return values - module.seen


@both("keeps_no_memory", "calls with other arguments")
class ScaledByItsFirstLatents(Changed):
    def change(self, module, values, arguments):
        if not hasattr(module, "scale"):
            module.scale = arguments[0].detach().std()
        return values / module.scale


@both("leaves_its_arguments_alone", "`predict` does not change its arguments")
class LatentClampedInPlace(Changed):
    def change(self, module, values, arguments):
        arguments[0].clamp_(max=0.2)
        return values


@both("leaves_its_arguments_alone", "`rollout` does not change its arguments")
class StartChangedInRollout:
    def rollout(self, module, z, partner, task, noise):
        return super().rollout(module, z.mul_(0.5), partner, task, noise)


@both("rows_do_not_see_each_other", "do not depend on the other rows")
class BatchStatistics(Changed):
    def change(self, module, values, arguments):
        return values - values.mean(0)


@both("rows_do_not_see_each_other", "do not depend on the other rows")
class FirstRowsTask(Changed):
    def change(self, module, values, arguments):
        return values * (1 + arguments[-2].index_B[0])


# -- rollouts -------------------------------------------------------------------------------------


@both("partner_is_asked_once_per_step", "called with t = 0..2")
class AsksTwice:
    def rollout(self, module, z, partner, task, noise):
        twice = lambda *x: (partner(*x), partner(*x))[0]  # noqa: E731
        return super().rollout(module, z, twice, task, noise)


@both("partner_is_asked_once_per_step", "called with t = 0..2")
class CountsFromOne:
    def rollout(self, module, z, partner, task, noise):
        return super().rollout(module, z, lambda t, *x: partner(t + 1, *x), task, noise)


@both("partner_is_asked_once_per_step", "the partner sees z[t] at step t")
class ShowsTheStart:
    def rollout(self, module, z, partner, task, noise):
        return super().rollout(module, z, lambda t, _, *x: partner(t, z, *x), task, noise)


@both("horizon_is_that_of_the_noise", "5 rows of noise give 5 steps")
class ThreeSteps:
    def rollout(self, module, z, partner, task, noise):
        return super().rollout(module, z, partner, task, noise[:3])


# -- gradients and learning -----------------------------------------------------------------------


class _Halved(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad / 2


@both(
    "gradients_reach_the_inputs", "result 0 of `predict` has a gradient with respect to the latent"
)
class NoGradInPredict:
    def predict(self, module, *arguments):
        with torch.no_grad():
            return super().predict(module, *arguments)


@both("gradients_are_exact", "custom backward functions")
class BackwardThatHalves(Changed):
    def change(self, module, values, arguments):
        return _Halved.apply(values)


@both("gradients_are_exact", "straight-through tricks")
class StraightThroughRounding(Changed):
    def change(self, module, values, arguments):
        return values + ((10 * values).round() / 10 - values).detach()


@both("gradients_are_exact", "equal finite differences")
class RoundedToFloat32Inside(Changed):
    def change(self, module, values, arguments):
        return values.float().to(values.dtype)


@both("precision_is_kept", "float64 in, float64 out")
class PredictsInFloat32(Changed):
    def change(self, module, values, arguments):
        return values.float()


@both("precision_is_kept", "float64 in, float64 out")
class LossInFloat32:
    def loss(self, module, *arguments):
        loss, metrics = super().loss(module, *arguments)
        return loss.float(), metrics


@both("loss_reaches_every_parameter", "none to spare")
class UnusedParameter(Built):
    def spoil(self, module):
        module.spare = nn.Parameter(torch.ones(2))


@both("frozen_is_frozen", "still learn")
class FreezesItsFirstPart:
    def freeze(self, module):
        freeze(next(module.children()))


@both("frozen_is_frozen", "gradients from before `freeze`")
class FreezesWithItsGradients:
    def freeze(self, module):
        module.requires_grad_(False)


@both("frozen_is_frozen", "it changes them")
class HalvesWhenFrozen:
    def freeze(self, module):
        super().freeze(module)
        for parameter in module.parameters():
            parameter.data.mul_(0.5)


@both("loss_is_a_mean_over_rows", "take the mean over B")
class LossGrowsWithTheBatch:
    def loss(self, module, example, *noise):
        loss, metrics = super().loss(module, example, *noise)
        return loss * example.reward_HB.shape[1], metrics


class _Scaled(torch.autograd.Function):
    """The identity, with another gradient."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return 0.3 * grad


@both("gradients_are_exact", "gradients with respect to the parameters")
class AnotherGradientForAParameter(Built):
    """The inputs' gradients are right."""

    def spoil(self, module):
        module.shift = nn.Parameter(torch.full((1,), 0.1))

    def predict(self, module, *arguments):
        found = super().predict(module, *arguments)
        shift = 0.01 * _Scaled.apply(module.shift)
        if isinstance(found, Prediction):
            return found._replace(reward_BR=found.reward_BR + shift)
        return found * (1 - shift)


@both("makes_tensors_where_its_arguments_are", "one operand is on the device, another on the CPU")
class ConstantOnTheCPU(Changed):
    def change(self, module, values, arguments):
        return values * torch.ones(values.shape[-1])


@both("makes_tensors_where_its_arguments_are", "one operand is on the device, another on the CPU")
class WeightsOnTheCPU(Changed):
    """torch's own device for shapes, ``meta``, takes such a product."""

    def change(self, module, values, arguments):
        return nn.functional.linear(values, torch.eye(values.shape[-1]))


@both("makes_tensors_where_its_arguments_are", "nothing between host and device")
class ConstantThatIsCopied(Changed):
    def change(self, module, values, arguments):
        return values * torch.tensor(1.0, device=values.device)


@both("makes_tensors_where_its_arguments_are", "does not move with the module")
class TensorInAPlainAttribute(Built, Changed):
    def spoil(self, module):
        object.__setattr__(module, "gain", torch.ones(1, 1))

    def change(self, module, values, arguments):
        return values * module.gain


@both("runs_as_a_graph", "computes other numbers than a second call")
class CountsItsCalls(Changed):
    def change(self, module, values, arguments):
        module.calls = getattr(module, "calls", 0) + 1
        return values * (1 + 1e-4 * module.calls)


@both("runs_as_a_graph", "aten.randn draws random numbers")
class DrawsItsOwnNoise(Changed):
    def change(self, module, values, arguments):
        return values + 1e-6 * torch.randn(values.shape)


@both("compiles_as_one_graph", "the hooks")
class ReadsAValueInItsRollout:
    def rollout(self, module, *arguments):
        found = super().rollout(module, *arguments)
        if found.z_HBD.sum().item() > 1e9:
            raise ValueError("too large")
        return found


@both("frozen_is_frozen", "a hook changed them")
class DecaysInPredict(Changed):
    def change(self, module, values, arguments):
        next(module.parameters()).data.mul_(0.999)
        return values


@both("frozen_is_frozen", "gradients pass through a frozen module")
class FrozenWithoutGradient:
    def freeze(self, module):
        super().freeze(module)
        module.is_frozen = True

    def predict(self, module, *arguments):
        with torch.set_grad_enabled(not hasattr(module, "is_frozen")):
            return super().predict(module, *arguments)


class GradientOfTheWrongSign:
    def loss(self, module, *arguments):
        loss, metrics = super().loss(module, *arguments)
        return 2 * loss.detach() - loss, metrics


for base, of_kind in (
    (WM, mutant("loss_falls", "lower the loss of one example")),
    (P, mutant("return_rises", "raise the return of one example")),
):
    of_kind(type(f"GradientOfTheWrongSign-{base.__name__}", (GradientOfTheWrongSign, base), {}))


@both("loss_and_metrics_are_numbers", "metric 'loss' has no graph")
class MetricsWithAGraph:
    def loss(self, module, *arguments):
        loss, metrics = super().loss(module, *arguments)
        return loss, {**metrics, "loss": loss}


@both("loss_and_metrics_are_numbers", "metric 'share' is finite")
class MetricOfZeroByZero:
    def loss(self, module, *arguments):
        loss, metrics = super().loss(module, *arguments)
        return loss, {**metrics, "share": loss.detach() * 0 / 0}


@both("loss_and_metrics_are_numbers", "`loss` has shape []")
class LossOfEachRow:
    def loss(self, module, *arguments):
        loss, metrics = super().loss(module, *arguments)
        return loss.expand(4), metrics


# -- the ways in which the engine runs a plugin ---------------------------------------------------


@both("compiles_as_one_graph", ".item()")
class ItemInPredict(Changed):
    def change(self, module, values, arguments):
        return values / max(values.abs().max().item(), 1.0)


@both("compiles_as_one_graph", ".item()")
class ItemInLoss:
    def loss(self, module, *arguments):
        loss, metrics = super().loss(module, *arguments)
        return loss, {**metrics, "logged": torch.tensor(loss.item())}


@both("compiles_as_one_graph", "the hooks compile as one graph")
class BranchOnData(Changed):
    def change(self, module, values, arguments):
        return values / 2 if values.abs().max() > 0.9 else values


@both("stacked_equals_a_loop", "the hooks map over stacked parameters")
class FillsATensorInPlace(Changed):
    def change(self, module, values, arguments):
        filled = torch.zeros(values.shape)
        filled[:] = values
        return filled


@both("stacked_equals_a_loop", "different parameters give different predictions")
class UsesTheModuleItBuiltLast(Built):
    def spoil(self, module):
        self.last = [module]

    def predict(self, module, *arguments):
        return super().predict(self.last[0], *arguments)


@both("modes_are_equal", "train mode equals eval mode")
class SharperInEvaluation(Changed):
    def change(self, module, values, arguments):
        return values if module.training else values**2


@both("bfloat16_stays_close", "small differences in float32")
class SmallDifferences(Changed):
    def change(self, module, values, arguments):
        parameter = next(p for p in module.parameters() if p.dim() == 2)
        passed = nn.functional.linear(values, parameter.new_zeros(values.shape[-1:] * 2))
        return values + (passed + 1000 + values.to(passed.dtype) - 1000)
