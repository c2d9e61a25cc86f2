"""A whole experiment: its world model, its policies, the final evaluation."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import attrs

from fmbpo.base.lock import Taken
from fmbpo.base.metrics import SHOWN
from fmbpo.config import identifying, origins, pretraining, resolved
from fmbpo.config.schema import Experiment
from fmbpo.distributed.group import Group
from fmbpo.measure.evaluation import Evaluator, threads
from fmbpo.measure.health import size_health, world_model_health
from fmbpo.measure.sizes import size_line, size_parity
from fmbpo.measure.validation import summarised
from fmbpo.running.blame import Role, reporting
from fmbpo.running.earlier import (
    check_complete,
    check_plugins,
    config_in,
    finished,
    first_models,
    versions_of,
    weights_of,
)
from fmbpo.running.final_returns import FinalReturns
from fmbpo.running.loop import Cadence, Trainer
from fmbpo.running.names import check_known, pretraining_name, run_names
from fmbpo.running.parts import policy_part, suite_part, world_model_part
from fmbpo.running.replicates import replicates
from fmbpo.running.session import Result, Session
from fmbpo.running.side_by_side import Replicate, train_missing
from fmbpo.running.spread import policy_stage
from fmbpo.running.stop import Stop
from fmbpo.runs.checkpoint import checkpoint_exists, save_checkpoint
from fmbpo.runs.folder import BEST, RunFolder, checkpoint_of, worker
from fmbpo.runs.forecast import Outlook
from fmbpo.runs.progress import ProgressDisplay
from fmbpo.runs.sinks import JsonLines, MetricSinks
from fmbpo.runs.status import state_of
from fmbpo.runs.summary import Summary, read_summary, versions
from fmbpo.runs.wandb_sink import WandbSink
from fmbpo.tasks.vector import EpisodeRunner
from fmbpo.training.cells import grid_cells, grid_tasks, stages
from fmbpo.training.context import Context, settled
from fmbpo.training.dataset import Dataset, load_dataset
from fmbpo.training.device import hardware, resolve_device
from fmbpo.training.initial_model import (
    InitialModel,
    distinct,
    health_of,
    initial_models,
    mean_validation,
)
from fmbpo.training.policy_stage import PolicyStage
from fmbpo.training.pretraining import Pretraining

PRETRAIN_CONVENTIONS = "corrected"
"""PWM took its pretrained models from TD-MPC2, whose training has no departures."""

SAY_EVERY = 60.0
"""Seconds between two lines of a run that waits."""


class Runner:
    """Runs one experiment that the preflight has checked."""

    def __init__(
        self,
        experiment: Experiment,
        session: Session,
        data: Dataset | None = None,
        group: str = "",
    ) -> None:
        """``data``: the experiment's data set, if already loaded. ``group``: its study, for W&B."""
        self.session, self.say = session, session.say
        self.group = group or experiment.name
        self.device = resolve_device(experiment.system.device)
        self.say(f"{experiment.name}: scale {experiment.scale} ({experiment.scale_reason})")
        self.data = data or load_dataset(experiment.data, self.device, experiment.tasks)
        residence = self.data.train.residence.kind
        self.experiment = experiment = settled(experiment, residence, self.device)
        self.context = Context(experiment, self.data, self.device, session.group, session.say)
        self.say(
            f"data: {len(self.data.train.start_E)} training and "
            f"{len(self.data.held_out.start_E)} held-out episodes of {len(self.data.tasks)} tasks "
            f"({self.data.id[:19]}), device {self.device}, residence {residence}"
        )
        self.names = run_names(experiment, self.data.id)

    def run(self, stop: Stop, only: Collection[str] = ()) -> Result:
        """Run the experiment to its end, or continue an interrupted run.

        ``only``: the names of the runs to do, for which everything else is ready; by default all.
        Waits for another process that works on a part, and uses the result. Raises ``UserError``
        for the user's mistakes, ``Interrupted`` on a request to stop, ``Taken`` if the session does
        not wait.
        """
        check_known(only, list(self.names))
        while True:
            try:
                with threads(self.experiment.system.threads, self.context.group.local_size):
                    return self._run(stop, only)
            except Taken as other:
                if not self.session.wait:
                    raise
                folder = other.place
            self._wait(folder, stop)

    def _wait(self, folder: Path, stop: Stop) -> None:
        """Wait until no other process works on the run in ``folder``."""
        said = -SAY_EVERY
        with stop.ends_at_once():
            while other := worker(folder):
                stop.check(f"waits for {folder}")
                if time.monotonic() - said >= SAY_EVERY:
                    said, beat = time.monotonic(), RunFolder(folder).heartbeat()
                    at = f", at {beat.stage} {beat.iteration}/{beat.total}" if beat else ""
                    stale = f"; {reason}" if (reason := state_of(folder)[1]) else ""
                    self.say(f"waits for {other}, which works on {folder}{at}{stale}")
                time.sleep(1.0)

    def _run(self, stop: Stop, only: Collection[str]) -> Result:
        e, root, names = self.experiment, self.session.root, self.names
        check_plugins(e, names, root, self.session.accept_versions)
        done, pretrained = finished(e, names, root), dict[int, Result]()
        seeds = list(self._needed(done, only))
        missing = {seed: names.pretraining[seed] for seed in seeds}
        train = partial(train_alone, self.context, self.say)
        train_missing(missing, e, self.session, self.group, train, stop)
        for seed in seeds:
            stop.check(f"before the world model with seed {seed}")
            pretrained[seed] = self._pretrain(seed, stop)
        summaries = {seed: result.summary for seed, result in pretrained.items()}
        if e.policy is None or (only and names.policies not in only):
            return attrs.evolve(list(pretrained.values())[-1], models=summaries)
        folder = root / names.policies
        if done is not None:
            return self._found(done, folder, f"policies: {folder} is complete; nothing to do")
        with reporting(root, Role("world model", e.world_model)):
            models = initial_models(self.context, first_models(e, names, root), summaries)
        if RunFolder(folder).is_complete:
            what = "complete except for the evaluation with the planner"
            self.say(f"policies: {folder} is {what}")
        return self._policies(models, stop)

    def _needed(self, done: Summary | None, only: Collection[str]) -> Iterator[int]:
        """The replicates whose world models are to be trained or reused. ``done``: that of complete
        policies, which need no world model any more."""
        root, names = self.session.root, self.names
        for seed, run in names.pretraining.items():
            needed = done is None or (root / run).exists()
            if only and run not in only:
                if not needed or names.policies not in only:
                    continue
                check_complete(root / run)
            if needed or only:
                yield seed

    def _pretrain(self, seed: int, stop: Stop) -> Result:
        """Train the world model of a replicate, or reuse a finished one."""
        e, suite, table = self.experiment, self.data.suite, self.experiment.world_model
        name, run = pretraining_name(e), self.names.pretraining[seed]
        version, place = e.world_model.component.version, self.session.root / run
        config = {
            "name": name,
            "phase": e.phase,
            **pretraining(e, seed),
            "versions": {"world_model": version},
            "distributions": {"world_model": e.world_model.component.distribution},
            **suite_part(self.data.suite),
            "data_id": self.data.id,
        }
        with ExitStack() as stack:
            if (done := read_summary(place)) is not None:
                return self._found(done, place, f"world model: {place} is complete; reusing it")
            folder, trainer = self._open(stack, run, config, {"pretrain": []}, stop, "world_model")
            stage = Pretraining(self.context, seed)
            here = self.context.group.local_size, stage.group.local_size
            stack.enter_context(threads(e.system.threads, *here))
            self.say(size_line("world model", e.world_model, stage.module, self.data.suite))
            p = e.pretrain
            cost = self._say_cost("pretraining", stage.count_flops(), p.iterations)
            cadence = Cadence(p.iterations, p.log_every, p.validate_every, p.checkpoint_every)
            trainer.train(stage, cadence, Outlook(seconds=self._expected_after(run)))
            best, measures = checkpoint_of(folder.path, BEST), summarised(stage.measures)
            save_checkpoint(
                best,
                manifest={**trainer.manifest, "step": stage.best_step, "measures": measures},
                weights=stage.best,
                state=None,
            )
            summary = Summary(
                experiment=name,
                scale=e.scale,
                protocol=None,
                conventions=PRETRAIN_CONVENTIONS,
                world_model=world_model_part(table, stage.module, suite, {seed: best}, version),
                policy=None,
                tasks={},
                wm_validation=measures,
                flops=cost,
                seconds=trainer.seconds("pretrain"),
                versions=versions(),
                health=[
                    *trainer.watch(stage).dated(world_model_health(stage.measures)),
                    *size_health(size_parity(e.world_model, self.data.suite)),
                ],
                planning=None,
            )
            return self._complete(folder, trainer, summary)

    def _expected_after(self, run: str) -> float | None:
        """Expected seconds of the runs behind ``run``; None if they are not known."""
        names = list(self.names)
        behind = [self.session.root / name for name in names[names.index(run) + 1 :]]
        known = [self.session.expected[path] for path in behind if path in self.session.expected]
        return sum(known) if len(known) == len(behind) else None

    def _policies(self, models: Mapping[int, InitialModel], stop: Stop) -> Result:
        """Train the grid of policies group by group, evaluate and summarise it."""
        e, tables = self.experiment, self.experiment.of_policies
        suite, table = self.data.suite, e.world_model
        parity = size_health(size_parity(table, suite))
        for finding in parity:
            self.say(f"WARNING: {finding.message}: {finding.detail}")
        tasks = grid_tasks(e, self.data)
        groups = stages(e, grid_cells(e, tasks))
        # Of another version only if they are complete, and get a further evaluation.
        made = versions_of(config_in(self.session.root / self.names.policies)) or {
            "world_model": e.world_model.component.version,
            "policy": tables.policy.component.version,
        }
        # Two versions may have trained a model that learned beside the policies.
        learns = tables.protocol.kind != "frozen"
        trainers = [model.version for model in models.values()]
        trainers += [made["world_model"]] if learns else []
        checkpoints = {seed: model.checkpoint for seed, model in models.items()}
        config = {
            **resolved(e),
            "versions": made,
            "distributions": {
                "world_model": e.world_model.component.distribution,
                "policy": tables.policy.component.distribution,
            },
            # A run must not change its world models halfway.
            "world_model_weights": weights_of(e, checkpoints),
            **suite_part(self.data.suite),
            "data_id": self.data.id,
        }
        names = {name: [str(cell) for cell in group] for name, group in groups.items()}
        with ExitStack() as stack:
            run = self.names.policies
            folder, trainer = self._open(stack, run, config, names, stop, "policies")
            simulators = e.evaluation.simulators(self.context.group.local_size)
            runner = stack.enter_context(EpisodeRunner(simulators, self.data.suite))
            evaluator = Evaluator(runner, e.evaluation.seed, folder.moved)
            returns = FinalReturns(self.say, e.evaluation)
            cost, health, begun_with = 0, [*health_of(models), *parity], None
            for number, (name, group) in enumerate(groups.items(), 1):
                if models[group[0].seed] is not begun_with:  # one module at a time in memory
                    begun_with = models[group[0].seed]
                    module = begun_with.build(self.context)
                    self.say(size_line("world model", e.world_model, module, self.data.suite))
                stage = policy_stage(name, group, self.context, begun_with, module, evaluator)
                cost += self._train(stage, trainer, len(groups) - number)
                self.say(f"{name}: final evaluation, {e.evaluation.final_episodes} episodes each")
                with stop.ends_at_once():
                    returns.add(stage)
                health += trainer.watch(stage).dated(stage.health())
            with stop.ends_at_once():
                returns.add_baselines(evaluator, self.data, self.session.baselines)
                returns.add_predictions(
                    replicates(self.context, models, groups, folder.path, stage.pair)
                )
            summary = Summary(
                experiment=e.name,
                scale=e.scale,
                protocol=tables.protocol.kind,
                conventions=tables.conventions.recorded(),
                world_model=world_model_part(table, module, suite, checkpoints, *trainers),
                policy=policy_part(tables.policy, stage.pair.policy, made["policy"]),
                tasks=returns.tasks(self.data),
                wm_validation={**mean_validation(models), **returns.validation()},
                flops={
                    "pretraining": sum(model.flops for model in distinct(models)),
                    "policy_learning": cost,
                },
                seconds={
                    "pretraining": sum(model.seconds for model in distinct(models)),
                    "policy_learning": sum(trainer.seconds(name) for name in groups),
                },
                versions=versions(),
                health=[*health, *returns.health(self.data)],
                planning=self._planning() if returns.unplanned is None else None,
            )
            result = self._complete(folder, trainer, summary)
            if returns.unplanned is not None:
                raise returns.unplanned
            return result

    def _train(self, stage: PolicyStage, trainer: Trainer, behind: int) -> int:
        """Train one group of cells, which ``behind`` more follow; returns the FLOP of updates."""
        table, learning = self.experiment.of_policies.policy, stage.learning
        what, suite = f"{len(stage.cells)} policies, each", self.data.suite
        self.say(size_line(what, table, stage.pair.policy, suite))
        cost = self._say_cost(stage.name, stage.count_flops(), learning.iterations)
        evaluation = self.experiment.evaluation
        ends = 1 + 3 * evaluation.final_episodes / evaluation.episodes
        every = learning.log_every, learning.evaluate_every, learning.checkpoint_every
        cadence = Cadence(learning.iterations, *every, learning.diagnose_every)
        trainer.train(stage, cadence, Outlook(behind, ends))
        return cost

    def _planning(self) -> dict[str, object] | None:
        """The settings of the final evaluation's planner, if it has one."""
        evaluation, planning = self.experiment.evaluation, self.experiment.planning
        return attrs.asdict(planning) if evaluation.planner == "mppi" else None

    def _complete(self, folder: RunFolder, trainer: Trainer, summary: Summary) -> Result:
        """Write the summary, and only then draw pictures and call the sinks."""
        content = summary.to_json()
        folder.write_summary(content)
        trainer.sinks.results(content, [*self.session.draw(folder.path), *folder.records])
        return Result(summary, folder.path)

    def _found(self, summary: Summary, folder: Path, said: str) -> Result:
        """A complete run; draws the pictures that a killed process left out."""
        self.say(said)
        self.session.draw(folder)
        return Result(summary, folder)

    def _open(
        self,
        stack: ExitStack,
        run: str,
        config: Mapping[str, object],
        stages: Mapping[str, Sequence[str]],
        stop: Stop,
        kind: str,
    ) -> tuple[RunFolder, Trainer]:
        """Create or continue the folder, lock it, connect the sinks, and report plugins' errors.

        ``stages``: the cells of each stage.
        """
        e = self.experiment
        folder = stack.enter_context(
            RunFolder.create_or_resume(self.session.root, run, config, origins(e), identifying)
        )
        stack.enter_context(folder.at_work(hardware(self.device), stages))
        self.context.group.order("experiment", e, folder.path)
        continued = checkpoint_exists(checkpoint_of(folder.path, next(iter(stages))))
        self.say(f"{'continues' if continued else 'writes to'} {folder.path}")
        of_model = kind == "world_model"
        iterations = (e.pretrain if of_model else e.of_policies.policy_learning).iterations
        wandb = WandbSink(
            mode=e.wandb.mode,
            project=e.wandb.pretrain_project if of_model else e.wandb.project,
            group=self.group,
            folder=folder.path,
            config=config,
            stages=dict.fromkeys(stages, iterations),
        )
        listeners = [JsonLines(folder.metrics), ProgressDisplay(main=SHOWN), wandb]
        sinks = stack.enter_context(MetricSinks(listeners))
        roles = [Role("policy", e.policy)] if e.policy and not of_model else []
        roles.append(Role("world model", e.world_model))
        stack.enter_context(reporting(folder.path, *roles))
        manifest = {
            "kind": kind,
            "config": dict(config),
            "data": self.data.id,
            "conventions": e.conventions.recorded() if e.conventions else PRETRAIN_CONVENTIONS,
            "protocol": e.protocol.kind if e.protocol and kind == "policies" else None,
            "versions": versions(),
        }
        return folder, Trainer(folder, sinks, manifest, stop)

    def _say_cost(self, what: str, an_update: int, iterations: int) -> int:
        """Print the cost of training; returns the floating-point operations of all updates."""
        total = an_update * iterations
        self.say(f"{what}: {an_update / 1e9:.4g} GFLOP per update, {total / 1e12:.4g} TFLOP in all")
        return total


def train_alone(context: Context, say: Callable[[str], None], one: Replicate, stop: Stop) -> None:
    """Train a world model in this process alone, with its share of the threads. Raises as
    ``Runner.run``."""
    alone = Group(0, 1, context.group.local_size)
    session = Session(
        root=one.root, say=say, group=alone, accept_versions=one.accept_versions, wait=one.wait
    )
    Runner(one.experiment, session, context.data, one.study).run(stop, [one.name])
