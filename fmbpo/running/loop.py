"""The loop around an update: logging, evaluation, checkpoints, resume. It has no mathematics."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import torch
from attrs import define
from torch import Tensor

from fmbpo.base.metrics import Row
from fmbpo.errors import UserError
from fmbpo.measure.health import Watch
from fmbpo.running.stop import Stop
from fmbpo.runs.checkpoint import (
    checkpoint_exists,
    load_checkpoint,
    read_manifest,
    save_checkpoint,
)
from fmbpo.runs.findings import by_gate
from fmbpo.runs.folder import RunFolder, checkpoint_of
from fmbpo.runs.forecast import Forecast, Outlook
from fmbpo.runs.sinks import MetricSinks
from fmbpo.training.policy_stage import PolicyStage
from fmbpo.training.pretraining import Pretraining

Stage: TypeAlias = Pretraining | PolicyStage
"""A part of a run that trains. It owns the tensors; the loop owns the order of events."""


@define
class Cadence:
    """The number of iterations in all, and between events."""

    iterations: int
    log_every: int
    evaluate_every: int
    checkpoint_every: int
    diagnose_every: int = 0


class Trainer:
    """Runs stages in one run folder."""

    def __init__(
        self, folder: RunFolder, sinks: MetricSinks, manifest: Mapping[str, object], stop: Stop
    ) -> None:
        self.folder, self.sinks, self.manifest, self.stop = folder, sinks, manifest, stop
        self._watches: dict[str, Watch] = {}  # by stage
        self._records: dict[str, int] = {}  # the lengths of the sinks' records at a checkpoint
        self._sums: dict[str, Tensor] = {}  # of the metrics since the last log
        self._summed = 0  # iterations in these sums
        # An evaluation beside the updates, its iteration, and the rows that wait for it.
        self._underway: tuple[PolicyStage, int] | None = None
        self._held: list[tuple[int, list[Row]]] = []

    def train(self, stage: Stage, cadence: Cadence, outlook: Outlook | None = None) -> None:
        """Train ``stage`` to its end, from its last checkpoint if there is one.

        ``outlook``: the work that follows it. Raises ``Interrupted`` once everything is saved,
        ``UserError`` if a metric is not finite (the last checkpoint is kept).
        """
        last = checkpoint_of(self.folder.path, stage.name)
        start, seconds = self._resume(stage, last)
        self.folder.beat(stage.name, start, cadence.iterations, seconds)
        if start >= cadence.iterations:
            return
        self.stop.check(f"{stage.name}: before iteration {start + 1}")
        self.sinks.truncate(self._records)
        clock = time.monotonic() - seconds
        self.sinks.begin(stage.name, start, cadence.iterations)
        forecast = Forecast(
            stage.name, cadence.iterations, cadence.evaluate_every, start, outlook or Outlook()
        )
        if start % cadence.evaluate_every == 0:  # a checkpoint precedes the evaluation
            self._evaluate(stage, start, forecast)
        for iteration in range(start + 1, cadence.iterations + 1):
            began = time.monotonic()
            metrics = stage.step(iteration)
            sums = self._sums  # on the CPU, if they come from a checkpoint
            sums = {k: sums[k].to(v.device) + v if k in sums else v for k, v in metrics.items()}
            self._sums, self._summed = sums, self._summed + 1
            at_end = iteration == cadence.iterations
            log, evaluate, save = (
                iteration % every == 0 or at_end
                for every in (cadence.log_every, cadence.evaluate_every, cadence.checkpoint_every)
            )
            # A model whose metrics are not finite is neither measured nor saved.
            if log or evaluate or save or self.stop.requested:
                rows = stage.describe({k: v / self._summed for k, v in sums.items()})
                self._check_finite(stage, iteration, rows)
                if log:
                    self._log(stage, iteration, rows)
                    self._sums, self._summed = {}, 0
            if iteration > start + 1:  # the first one records a graph, or compiles
                self.stop.took("iteration", time.monotonic() - began)
            if cadence.diagnose_every and iteration % cadence.diagnose_every == 0:
                began = time.monotonic()
                self._log(stage, iteration, stage.diagnose())
                self.stop.took("diagnosis", time.monotonic() - began)
            stopping = self.stop.requested
            if evaluate or save or stopping or self._over():
                self._end_evaluation()
            if at_end:
                self._evaluate(stage, iteration, forecast)
            self.folder.beat(stage.name, iteration, cadence.iterations, time.monotonic() - clock)
            if save or stopping:
                self._save(stage, last, iteration, time.monotonic() - clock)
            if stopping and not at_end:
                self.stop.check(f"{stage.name}: saved at iteration {iteration}")
            if evaluate and not at_end:
                self._begin_evaluation(stage, iteration, forecast)
            said = forecast.updated(iteration, time.monotonic(), self.stop.deadline)
            if said is not None:
                self.sinks.event("host/forecast", {"text": said})

    def seconds(self, stage_name: str) -> float:
        """Wall-clock seconds that a stage has trained, over all its processes."""
        return float(read_manifest(checkpoint_of(self.folder.path, stage_name))["seconds"])

    def _resume(self, stage: Stage, last: Path) -> tuple[int, float]:
        """Load the last checkpoint; returns its iteration and the seconds of training so far."""
        self._sums, self._summed = {}, 0
        self._underway, self._held = None, []
        if not checkpoint_exists(last):
            return 0, 0.0
        checkpoint = load_checkpoint(last)
        manifest, state = checkpoint.manifest, checkpoint.state
        saved, own = checkpoint.weights, stage.weights()
        if {k: v.shape for k, v in saved.items()} != {k: v.shape for k, v in own.items()}:
            raise UserError(
                "the checkpoint has different parameters from those of the installed plugin",
                where=str(last),
                remedy="install the plugin version that began the run, or choose another folder",
            )
        try:
            # In the stage's own order: the last bit of sums over all tensors depends on it.
            stage.load({name: saved[name] for name in own}, state["stage"])
            self._records = state["records"]
            self.watch(stage).load(state["watch"])
            if "evaluation_follows" not in state:  # an earlier version evaluated before it saved
                raise KeyError("evaluation_follows")
            self._sums, self._summed = dict(state["sums"]), int(state["summed"])
            return int(manifest["step"]), float(manifest["seconds"])
        except KeyError as error:
            raise UserError(
                f"the training state has no {error}: another version of fmbpo wrote it",
                where=str(last),
                remedy=f"move {self.folder.path} away: the same command starts again",
            ) from error

    def _save(self, stage: Stage, last: Path, iteration: int, seconds: float) -> None:
        began, weights = time.monotonic(), stage.weights()
        for name, weight in weights.items():
            if not bool(weight.isfinite().all()):
                raise self._diverged(stage, iteration, f"the parameter {name} is not finite")
        self._records = self.sinks.checkpoint()
        state = {
            "stage": stage.state(),
            "sums": self._sums,
            "summed": self._summed,
            "records": self._records,
            "watch": self.watch(stage).state(),
            "evaluation_follows": True,
        }
        save_checkpoint(
            last,
            manifest={**self.manifest, "step": iteration, "seconds": seconds},
            weights=weights,
            state=state,
        )
        self.stop.took("checkpoint", time.monotonic() - began)

    def _evaluate(self, stage: Stage, iteration: int, forecast: Forecast) -> None:
        began = time.monotonic()
        try:
            rows = stage.evaluate(iteration)
        except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
            raise self._diverged(stage, iteration, "a measure cannot be computed") from error
        forecast.evaluated(time.monotonic() - began)
        self._evaluated(stage, iteration, rows)
        self.stop.took("evaluation", time.monotonic() - began)

    def _begin_evaluation(self, stage: Stage, iteration: int, forecast: Forecast) -> None:
        """As ``_evaluate``; it goes on beside the next updates if the stage lets it. The first one
        of a stage in a process does not, so that its duration is known."""
        if forecast.timed and isinstance(stage, PolicyStage) and stage.overlaps:
            stage.begin_evaluation()
            self._underway = stage, iteration
        else:
            self._evaluate(stage, iteration, forecast)

    def _over(self) -> bool:
        return self._underway is not None and self._underway[0].returns_over()

    def _end_evaluation(self) -> None:
        """Wait for the evaluation that goes on, if any; record it, then the rows held back."""
        if self._underway is None:
            return
        (stage, iteration), self._underway = self._underway, None
        self._evaluated(stage, iteration, stage.end_evaluation())
        held, self._held = self._held, []
        for at, rows in held:
            self.sinks.log(stage.name, at, rows)

    def _log(self, stage: Stage, iteration: int, rows: list[Row]) -> None:
        """Record rows; behind those of an evaluation that goes on, so that their order does not
        depend on interruptions."""
        if self._underway is None:
            self.sinks.log(stage.name, iteration, rows)
        else:
            self._held.append((iteration, rows))

    def _evaluated(self, stage: Stage, iteration: int, rows: list[Row]) -> None:
        self._check_finite(stage, iteration, rows)
        self.sinks.log(stage.name, iteration, rows)
        if iteration:  # before the first update there is nothing to warn of
            new, mended = self.watch(stage).update(iteration, stage.health())
            for text in by_gate(new):
                self.sinks.event("WARNING", {"text": text})
            for gate, where in mended:
                text = f"{where}: {gate}" if where else gate
                self.sinks.event("mended", {"text": f"{text}, iteration {iteration}"})

    def watch(self, stage: Stage) -> Watch:
        """The gates that a stage fails while it trains."""
        return self._watches.setdefault(stage.name, Watch())

    def _check_finite(self, stage: Stage, iteration: int, rows: Sequence[Row]) -> None:
        for row in rows:
            for name, value in row.values.items():
                if not math.isfinite(value):
                    found = self._diverged(stage, iteration, f"{row.full_name(name)} is {value}")
                    try:
                        self._end_evaluation()  # it belongs to an earlier iteration
                    except UserError as error:
                        raise found from error
                    raise found

    def _diverged(self, stage: Stage, iteration: int, what: str) -> UserError:
        return UserError(
            f"{what} at iteration {iteration}: training has diverged",
            where=f"{self.folder.path} ({stage.name})",
            remedy="lower the learning rate or the gradient clip; the last checkpoint is kept",
        )
