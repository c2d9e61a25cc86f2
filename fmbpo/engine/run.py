"""A whole experiment: the world model it needs, its policies, the final evaluation."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import nn

from fmbpo.engine import results
from fmbpo.engine.blame import Role, reporting
from fmbpo.engine.cost import flops, parameters
from fmbpo.engine.dataset import Dataset, check_horizon, load_dataset
from fmbpo.engine.evaluation import Evaluator
from fmbpo.engine.health import world_model_health
from fmbpo.engine.loop import Cadence, Stop, Trainer
from fmbpo.engine.policy_training import Cell, PolicyTraining
from fmbpo.engine.pretraining import Pretraining, build_world_model
from fmbpo.errors import UserError
from fmbpo.experiment import config_hash, identifying, origins, resolved
from fmbpo.experiment.schema import Experiment, Frozen, PluginTable, WandbConfig
from fmbpo.runs.checkpoint import (
    checkpoint_exists,
    load_checkpoint,
    save_checkpoint,
    weights_sha256,
)
from fmbpo.runs.folder import RunFolder, run_name
from fmbpo.runs.progress import ProgressDisplay
from fmbpo.runs.sinks import JsonLines, MetricSinks
from fmbpo.runs.summary import Part, Summary, versions
from fmbpo.runs.wandb_sink import WandbSink
from fmbpo.tasks.vector import EpisodeRunner

CONVENTIONS = "corrected"
BEST = "best"
"""Name of the checkpoint that held-out episodes chose."""

Say = Callable[[str], None]


@attrs.frozen
class Result:
    """What a run ended with."""

    summary: Summary
    folder: Path


class Runner:
    """Runs one experiment under ``root``; ``say`` takes lines for people."""

    def __init__(self, experiment: Experiment, root: Path, say: Say) -> None:
        self.experiment, self.root, self.say = experiment, root, say
        system = experiment.system
        self.device = resolve_device(system.device)
        if system.threads:
            torch.set_num_threads(system.threads)
        say(f"{experiment.name}: scale {experiment.scale} ({experiment.scale_reason})")
        self.data: Dataset = load_dataset(experiment.data, self.device)
        say(
            f"data: {len(self.data.train.start_E)} training and "
            f"{len(self.data.held_out.start_E)} held-out episodes of {len(self.data.tasks)} tasks "
            f"({self.data.id[:19]}), device {self.device}"
        )
        # Before hours of training, not after.
        check_horizon(self.data.train, experiment.pretrain.horizon)
        if experiment.grid is not None:
            grid_tasks(experiment, self.data)
        self.pretraining_run, self.policy_run = run_names(experiment, self.data.id)

    def run(self) -> Result:
        """The experiment to its end, continuing what an interrupted run left.

        Raises ``UserError`` for what the user can mend and ``Interrupted`` when asked to stop.
        """
        with Stop().listening() as stop:
            pretrained = self._pretrain(stop)
            if self.experiment.kind == "pretrain":
                return pretrained
            return self._policies(pretrained, stop)

    # -- the world model ---------------------------------------------------------------------

    def _pretrain(self, stop: Stop) -> Result:
        """The pretrained world model of this configuration: trained now, or found."""
        e = self.experiment
        name, run = _pretraining(e), self.pretraining_run
        tables = ("scale", "data", "world_model", "pretrain", "system")
        config = {
            "name": name,
            **{k: v for k, v in resolved(e).items() if k in tables},
            "versions": {"world_model": e.world_model.component.version},
        }
        with ExitStack() as stack:
            done = self._finished(run)
            if done is not None:
                self.say(f"world model: {done.folder} is complete and is used as it is")
                return done
            folder, trainer = self._open(stack, run, config, ["pretrain"], stop, "world_model")
            stack.enter_context(reporting(folder.path, Role("world model", e.world_model)))
            stage = Pretraining(e.world_model, e.pretrain, self.data, self.device, e.system.compile)
            self._say_size("world model", e.world_model, stage.module)
            cost = flops(stage.eager_update, *stage.example()) * e.pretrain.iterations
            cadence = Cadence(
                e.pretrain.iterations,
                e.pretrain.log_every,
                e.pretrain.validate_every,
                e.pretrain.checkpoint_every,
            )
            trainer.train(stage, cadence)
            best = folder.checkpoints / BEST
            save_checkpoint(
                best,
                manifest={**trainer.manifest, "step": stage.best_step, "measures": stage.measures},
                weights=stage.best,
                state=None,
            )
            summary = Summary(
                experiment=name,
                scale=e.scale,
                protocol=None,
                conventions=CONVENTIONS,
                world_model=self._part(e.world_model, stage.module, str(best)),
                policy=None,
                tasks={},
                wm_validation=stage.measures,
                flops=cost,
                seconds=trainer.seconds("pretrain"),
                versions=versions(),
                health=world_model_health(stage.measures),
            )
            results.draw_pretraining(folder, summary, stage.validator.horizons)
            folder.write_summary(summary.to_json())
            return Result(summary, folder.path)

    def _load_world_model(self, checkpoint: Path) -> Any:
        """The frozen module of a checkpoint of the experiment's own kind of world model."""
        table = self.experiment.world_model
        try:
            loaded = load_checkpoint(
                checkpoint, device=self.device, with_state=False, expect_kind="world_model"
            )
        except UserError as error:
            remedy = f"move {checkpoint.parent.parent} away: the same command trains it again"
            raise UserError(error.what, where=error.where, remedy=remedy) from error
        made_by = loaded.manifest["config"]["world_model"]["plugin"]
        if made_by != table.plugin:
            raise UserError(
                f"the checkpoint is of world model {made_by!r}, not {table.plugin!r}",
                where=str(checkpoint),
                remedy="give a checkpoint of the experiment's own kind",
            )
        module = build_world_model(table, self.experiment.pretrain.seed, self.device)
        module.load_state_dict(loaded.weights)
        table.component.freeze(module)
        return module

    # -- the policies ------------------------------------------------------------------------

    def _policies(self, pretrained: Result, stop: Stop) -> Result:
        e = self.experiment
        assert e.policy and e.grid and e.policy_learning and e.critic and e.protocol
        run = self.policy_run
        done = self._finished(run)
        if done is not None:
            self.say(f"policies: {done.folder} is complete; nothing to do")
            return done
        checkpoint = pretrained.folder / "checkpoints" / BEST
        model = self._load_world_model(checkpoint)
        self._say_size("world model", e.world_model, model)
        cells = [Cell(task, seed) for task in grid_tasks(e, self.data) for seed in e.grid.seeds]
        size = e.policy_learning.stack or len(cells)
        groups = [cells[i : i + size] for i in range(0, len(cells), size)]
        names = ["policies"] if len(groups) == 1 else [f"policies/{i}" for i in range(len(groups))]
        learning = e.policy_learning
        cadence = Cadence(
            learning.iterations,
            learning.log_every,
            learning.evaluate_every,
            learning.checkpoint_every,
        )
        with ExitStack() as stack:
            config = {
                **resolved(e),
                "versions": {
                    "world_model": e.world_model.component.version,
                    "policy": e.policy.component.version,
                },
                # Half a run in one world model and half in another would be nobody's result.
                "world_model_weights": weights_sha256(checkpoint),
            }
            folder, trainer = self._open(stack, run, config, names, stop, "policies")
            roles = Role("policy", e.policy), Role("world model", e.world_model)
            stack.enter_context(reporting(folder.path, *roles))
            workers = e.evaluation.workers or os.cpu_count() or 1
            runner = stack.enter_context(EpisodeRunner(workers))
            evaluator = Evaluator(runner, e.evaluation.seed)
            outcome, cost = results.GridOutcome(), 0
            for name, group in zip(names, groups, strict=True):
                stage = PolicyTraining(
                    name, group, model, e.world_model.component, e.policy, learning, e.critic,
                    e.evaluation, evaluator, self.data, self.device, e.system.compile,
                )  # fmt: skip
                policy = stage.roles.policy
                self._say_size(f"{len(group)} policies, each", e.policy, policy)
                cost += flops(stage.eager_update, *stage.example()) * learning.iterations
                untrained = stage.training.policy
                trainer.train(stage, cadence)
                self.say(f"{name}: final evaluation, {e.evaluation.final_episodes} episodes each")
                with stop.ends_at_once():
                    outcome.add(stage, untrained, e.evaluation.final_episodes)
            with stop.ends_at_once():
                outcome.add_random(evaluator, e.evaluation.final_episodes)
            summary = Summary(
                experiment=e.name,
                scale=e.scale,
                protocol=e.protocol.kind,
                conventions=CONVENTIONS,
                world_model=self._part(e.world_model, model, str(checkpoint)),
                policy=self._part(e.policy, policy),
                tasks=outcome.tasks(self.data.planner_return),
                wm_validation=pretrained.summary.wm_validation,
                flops={"pretraining": _number(pretrained.summary.flops), "policy_learning": cost},
                seconds={
                    "pretraining": _number(pretrained.summary.seconds),
                    "policy_learning": sum(trainer.seconds(name) for name in names),
                },
                versions=versions(),
                health=[*pretrained.summary.health, *outcome.health()],
            )
            results.draw_policies(folder, summary)
            folder.write_summary(summary.to_json())
            return Result(summary, folder.path)

    # -- shared ------------------------------------------------------------------------------

    def _finished(self, run: str) -> Result | None:
        path = self.root / run
        if not (path / "summary.json").is_file():
            return None
        folder = RunFolder.open(path)
        try:
            return Result(Summary.from_json(folder.summary(), where=str(path)), path)
        except UserError as error:
            remedy = "move summary.json away: the same command makes it again from the checkpoints"
            raise UserError(error.what, where=error.where, remedy=remedy) from error

    def _open(
        self,
        stack: ExitStack,
        run: str,
        config: Mapping[str, Any],
        stages: list[str],
        stop: Stop,
        kind: str,
    ) -> tuple[RunFolder, Trainer]:
        """Create or continue the folder, lock it, connect the sinks."""
        e = self.experiment
        folder = stack.enter_context(
            RunFolder.create_or_resume(self.root, run, config, origins(e), identifying)
        )
        continued = checkpoint_exists(folder.checkpoints / stages[0].replace("/", "-"))
        self.say(f"{'continues' if continued else 'writes to'} {folder.path}")
        iterations = (
            e.pretrain.iterations
            if kind == "world_model" or e.policy_learning is None
            else e.policy_learning.iterations
        )
        wandb: WandbConfig = e.wandb
        sinks = stack.enter_context(
            MetricSinks(
                [
                    JsonLines(folder.metrics),
                    ProgressDisplay(main=MAIN_METRICS),
                    WandbSink(
                        mode=wandb.mode,
                        project=wandb.pretrain_project if kind == "world_model" else wandb.project,
                        group=e.name,
                        name=folder.name,
                        folder=folder.path,
                        config=config,
                        stages=[(name, iterations) for name in stages],
                    ),
                ]
            )
        )
        manifest = {
            "kind": kind,
            "config": dict(config),
            "data": self.data.id,
            "conventions": CONVENTIONS,
            "protocol": e.protocol.kind if e.protocol and kind == "policies" else None,
            "versions": versions(),
        }
        return folder, Trainer(folder, sinks, manifest, stop)

    def _part(self, table: PluginTable, module: nn.Module, checkpoint: str | None = None) -> Part:
        count = sum(p.numel() for p in module.parameters())
        return Part(table.plugin, table.component.version, count, checkpoint)

    def _say_size(self, what: str, table: PluginTable, module: nn.Module) -> None:
        counts = parameters(module)
        parts = ", ".join(f"{part} {count:,}" for part, count in counts.items())
        self.say(
            f"{what}: {table.plugin} {table.component.version}, {sum(counts.values()):,} "
            f"parameters ({parts}), {module.evaluations} network evaluation(s) a step"
        )


MAIN_METRICS = (
    "return",
    "actor_return",
    "imagined_reward",
    "critic_loss",
    "held_out/score",
    "held_out/reward_r2",
    "loss",
    "consistency",
    "reward_cross_entropy",
)


def _pretraining(experiment: Experiment) -> str:
    """Name of the pretraining experiment."""
    protocol = experiment.protocol
    return protocol.world_model if isinstance(protocol, Frozen) else experiment.name


def run_names(experiment: Experiment, data_identity: str) -> tuple[str, str]:
    """Folder names of the world model's run and of the policies' run (empty where there is none).

    ``UserError`` for a name that a folder cannot have.
    """
    e = experiment
    digest = config_hash(e, "pretrain", data_identity=data_identity)
    pretraining = _folder_name(_pretraining(e), e.world_model.plugin, [e.pretrain.seed], digest)
    if e.policy is None or e.grid is None:
        return pretraining, ""
    cell = f"{e.world_model.plugin}-{e.policy.plugin}"
    digest = config_hash(e, data_identity=data_identity)
    return pretraining, _folder_name(e.name, cell, e.grid.seeds, digest)


def _folder_name(experiment: str, cell: str, seeds: Sequence[int], config_hash: str) -> str:
    try:
        return run_name(experiment, cell, seeds, config_hash)
    except ValueError as error:
        raise UserError(
            f"{error}, which names the run's folder",
            where=experiment,
            remedy="use letters, digits, dots and hyphens, and single underscores between them",
        ) from error


def _number(value: float | dict[str, float]) -> float:
    assert not isinstance(value, dict)  # a pretraining run has one part
    return value


def grid_tasks(experiment: Experiment, data: Dataset) -> list[str]:
    """The tasks to train policies for; ``UserError`` for one that the data set does not have."""
    assert experiment.grid is not None
    for task in experiment.grid.tasks:
        if task not in data.tasks:
            raise UserError(
                f"the data set has no episodes of task {task!r} to start imagination from",
                where="grid.tasks",
                remedy=f"choose among {', '.join(data.tasks)}, or give other data",
            )
    return experiment.grid.tasks or data.tasks


def resolve_device(name: str) -> torch.device:
    """``"auto"`` is the GPU where there is one. ``UserError`` for a device that is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"device {name!r} cannot be used: {str(error).splitlines()[0]}",
            where="system.device",
            remedy='use "auto" or "cpu"',
        ) from error
    return device
