"""Trains the policies of a grid in world models, stacked in one program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fmbpo.base.metrics import held_out
from fmbpo.config.protocols import Finetuned, Scratch
from fmbpo.data.sampler import action_masks
from fmbpo.data.sending import send
from fmbpo.errors import UserError
from fmbpo.hookspecs import Batch, WorldModel
from fmbpo.measure.cost import flops
from fmbpo.measure.evaluation import Evaluator, Recorded, Underway
from fmbpo.measure.reality import Imagination, Visited, imagine
from fmbpo.measure.validation import OVERALL
from fmbpo.pwm.acting import Actors, acting
from fmbpo.pwm.diagnostics import diagnose
from fmbpo.pwm.mppi import MPPI, mppi_act
from fmbpo.pwm.optim import AdamState, Params, linear_decay
from fmbpo.pwm.pair import Pair
from fmbpo.pwm.policy import CellState, PolicyUpdate, Rates, ReturnScale
from fmbpo.pwm.start import Start
from fmbpo.runs.findings import Finding
from fmbpo.training import seeding
from fmbpo.training.cells import Cell
from fmbpo.training.context import Context
from fmbpo.training.networks import CellNetworks
from fmbpo.training.own_models import OwnModels
from fmbpo.training.policy_stage import FinalMeasures, PolicyStage, Progress
from fmbpo.training.starts import CellStarts
from fmbpo.training.trees import Saved, noise, own_params, part, set_states, stack, to_device

EVERY = 50
"""Steps between the states of an episode at which the final evaluation measures the policies."""


class PolicyTraining(PolicyStage):
    """The stage in one process: policies and critics, their optimisers, their noise."""

    def __init__(
        self,
        name: str,
        cells: Sequence[Cell],
        context: Context,
        world_model: WorldModel,
        evaluator: Evaluator,
    ) -> None:
        """``world_model``: the module that all cells share or, depending on the protocol, that
        their own models begin with."""
        e, tables, device = context.experiment, context.experiment.of_policies, context.device
        data, component = context.policy_data, tables.policy.component
        self.name, self.cells, self.device = name, cells, device
        self.learning, self.evaluation = tables.policy_learning, e.evaluation
        self.evaluator, self.component = evaluator, component
        self.tasks = [cell.task for cell in cells]
        suite = data.suite
        index = [suite.index(task) for task in self.tasks]
        self.index_T = torch.tensor(index, device=device)
        self.mask_TA = data.train.mask_KA[self.index_T]
        self.real_TA = action_masks(suite).to(device)[self.index_T]
        self.generators = [seeding.generator(c.seed, *c.purpose, "imagination") for c in cells]

        networks = CellNetworks(tables.policy, tables.critic, world_model, suite, device)
        states = [
            CellState.initial(own_params(networks.policy(cell)), networks.critics(cell))
            for cell in cells
        ]
        self.training: CellState = stack(states).laid_out()
        self.models: OwnModels | None = None
        if isinstance(e.protocol, Finetuned | Scratch):
            self.models = OwnModels(context, e.protocol, cells, world_model)
        # The cells' parameters replace theirs; `fmbpo check` uses them, so they are seeded.
        module = networks.policy(cells[0], "template")
        critic = networks.critic(cells[0], "template")
        self.pair = Pair(world_model, e.world_model.component, module, component)
        self.starts = CellStarts(data.train, index, self.pair)
        if self.models and self.starts.steps > self.learning.horizon:
            what = f"the plugins ask for {self.starts.steps} real steps around a start"
            where = "policy_learning.horizon"
            raise UserError(what, where=where, remedy="make it at least as long")
        self.mppi = MPPI(self.pair, critic, e.planning, self.learning, tables.conventions)
        self.eager_update = PolicyUpdate(self.pair, critic, self.learning, tables.conventions)
        self.update = context.prepared(self.eager_update.__call__, "the policies' update")
        self.forward = context.replayed(acting(self.pair), "acting")
        self.untrained = self.parameters
        """The initial parameters."""
        self.underway: Underway | None = None
        """An evaluation that goes on beside the steps."""

    def step(self, iteration: int) -> dict[str, Tensor]:
        """One update of every cell on new starts and noise, after its own model, if any."""
        batch, model_metrics = self.models.step(iteration) if self.models else (None, {})
        inputs = *self._inputs(iteration, batch), self.parameters[1]
        if self.underway is not None:  # a GPU may still be at the last update
            self.underway.advance()
        self.training, metrics = self.update(self.training, *inputs)
        return {**metrics, **model_metrics}

    def example(self) -> tuple[CellState, Start, Rates, Params]:
        """Arguments of ``update``; consumes no noise. Starts and noise are those of the next step,
        unless the cells have their own models, which draw first."""
        saved = [g.get_state() for g in self.generators]
        inputs = self._inputs(1)
        set_states(self.generators, saved)
        return self.training, *inputs, self.parameters[1]

    @property
    def parameters(self) -> tuple[Params, Params]:
        """The present parameters of the policies, and of their own world models, if any."""
        return self.training.policy, self.models.params if self.models else {}

    def count_flops(self) -> int:
        """See ``PolicyStage``."""
        own = self.models.count_flops() if self.models else 0
        return flops(self.eager_update, *self.example()) + own

    def _inputs(self, iteration: int, own: Batch | None = None) -> tuple[Start, Rates]:
        """Starts, noise and rates; starts are drawn from the data, or those of the batch from which
        the cells' own world models learned."""
        learning, done = self.learning, (iteration - 1) / self.learning.iterations
        horizon, batch = learning.horizon, learning.batch
        starts = [] if own is not None else self.starts.drawn(batch, self.generators)
        shapes = (
            (horizon + self.pair.takes_actions, batch, self.pair.policy.noise_dim),
            (horizon, batch, self.pair.world_model.noise_dim),
            (batch, self.pair.loss_noise_dim),
        )
        drawn = [noise(self.generators, *shape) for shape in shapes]
        first_rates = learning.actor_learning_rate, learning.critic_learning_rate
        rates = [linear_decay(rate, learning.final_learning_rate, done) for rate in first_rates]
        inputs = [*drawn, torch.tensor(rates), torch.full([len(self.cells)], done), *starts]
        policy_noise, model_noise, loss_noise, rate_2, done_T, *sent = send(inputs, self.device)
        obs_TBO, real = self.starts.of_batch(own) if own else self.starts.sent(sent)
        rows = self._actors().rows(batch)
        own_noise = loss_noise if self.pair.loss_noise_dim else ()
        start = Start(obs_TBO, *rows, policy_noise, model_noise, done_T, real, own_noise)
        return start, Rates(*rate_2)

    def health(self) -> list[Finding]:
        """See ``PolicyStage``."""
        return self.models.health(self.cells) if self.models else []

    def returns(
        self,
        episodes: int,
        params: tuple[Params, Params] | None = None,
        steps: int | None = None,
    ) -> NDArray[np.float64]:
        """See ``PolicyStage``; ``params``: those of other policies, such as ``untrained``."""
        act = self._actors(params).deterministic()
        return self.evaluator.returns(act, self.tasks, episodes, steps)

    @property
    def overlaps(self) -> bool:
        """See ``PolicyStage``; on a GPU, with a shared world model. A CPU computes updates and
        episodes with the same cores, and cells' own models would be in memory twice."""
        return self.device.type != "cpu" and self.models is None

    def begin_returns(self, episodes: int, steps: int | None = None) -> None:
        """See ``PolicyStage``; updates make new parameters, so that these stay as they are."""
        act = self._actors().deterministic()
        self.underway = self.evaluator.underway(act, self.tasks, episodes, steps)

    def returns_over(self) -> bool:
        """See ``PolicyStage``."""
        return self.underway is None or self.underway.over

    def end_returns(self) -> NDArray[np.float64]:
        """See ``PolicyStage``."""
        assert self.underway is not None, "begin_returns comes first"
        underway, self.underway = self.underway, None
        return underway.returns()

    def model_measures(self) -> list[dict[str, float]]:
        """See ``PolicyStage``."""
        found = self.models.evaluate() if self.models else []
        return [{held_out(k): v for k, v in measures[OVERALL].items()} for measures in found]

    def gradients(self) -> dict[str, Tensor]:
        """See ``PolicyStage``; on the starts of ``example``."""
        state, start, _, models = self.example()
        return diagnose(self.eager_update, state, start, models, self.real_TA, self.cells[0].seed)

    def final(self) -> list[FinalMeasures]:
        """See ``PolicyStage``."""
        self.component.freeze(self.pair.policy)
        episodes, seed = self.evaluation.final_episodes, self.evaluation.seed
        seen = Recorded(self._actors().deterministic(), EVERY, self.pair.warm_up)
        visited = Visited(self.evaluator.run(seen, self.tasks, episodes), seen.pasts)
        drawn = self._actors().stochastic(seed)
        stochastic = self.evaluator.returns(drawn, self.tasks, episodes)
        untrained = self.returns(self.evaluation.episodes, self.untrained)
        pasts = visited.up_to(visited.pasts)
        noises = self._actors().action_noise(pasts, self.real_TA, seed).tolist()
        both = zip(self.models.before, self.models.after, strict=True) if self.models else None
        models = list(both) if both else [None] * len(self.cells)
        returns = np.nansum(visited.reward_TES, -1)
        each = returns, stochastic, untrained, noises, self._imagined(visited), models
        return [FinalMeasures(*cell) for cell in zip(*each, strict=True)]

    def _imagined(self, visited: Visited) -> list[Imagination]:
        """What each policy imagines from the states that it visited."""
        policy, models = self.parameters
        params, tasks = (policy, self.training.critics, models), (self.index_T, self.mask_TA)
        return imagine(self.eager_update, params, tasks, visited, self.evaluation.seed)

    def planned_returns(
        self, progress: Progress = lambda done, steps: None, steps: int | None = None
    ) -> NDArray[np.float64]:
        """See ``PolicyStage``."""
        act = mppi_act(self.mppi, self._actors(), self.training.critics, self.evaluation.seed)
        episodes = self.mppi.planning.episodes
        return self.evaluator.returns(act, self.tasks, episodes, steps, progress)

    def _actors(self, params: tuple[Params, Params] | None = None) -> Actors:
        both = params or self.parameters
        return Actors(self.pair, *both, self.index_T, self.mask_TA, self.forward)

    def weights(self) -> dict[str, Tensor]:
        """See ``PolicyStage``."""
        parts = {"policy": self.training.policy, "critics": self.training.critics}
        if self.models is not None:
            parts["world_model"] = self.models.params
        return {f"{part}.{k}": v for part, params in parts.items() for k, v in params.items()}

    def state(self) -> Saved:
        """See ``PolicyStage``."""
        return {
            "policy_moments": tuple(self.training.policy_adam),
            "moments_by_critic": tuple(self.training.critic_adam),
            "scale": tuple(self.training.scale),
            "generators": [g.get_state() for g in self.generators],
            "models": self.models and self.models.state(),
        }

    def load(self, weights: Mapping[str, Tensor], state: Saved) -> None:
        """See ``PolicyStage``."""
        names = "policy_moments", "moments_by_critic", "scale"
        policy, critics, policy_adam, critic_adam, scale = to_device(
            [part("policy", weights), part("critics", weights), *(state[name] for name in names)],
            self.device,
        )
        self.training = CellState(
            policy,
            AdamState(*policy_adam),
            critics,
            AdamState(*critic_adam),
            ReturnScale(*scale),
        ).laid_out()
        set_states(self.generators, state["generators"])
        if self.models is not None:
            self.models.load(part("world_model", weights), state["models"])
