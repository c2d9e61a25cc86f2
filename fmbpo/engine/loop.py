"""The loop around an update: logging, evaluation, checkpoints, resume. No mathematics."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from attrs import define
from torch import Tensor

from fmbpo.errors import UserError
from fmbpo.runs.checkpoint import checkpoint_exists, load_checkpoint, save_checkpoint
from fmbpo.runs.folder import RunFolder
from fmbpo.runs.sinks import MetricSinks


class Stage(Protocol):
    """What is trained: it owns the tensors, the loop owns the order of events."""

    name: str

    def step(self, iteration: int) -> dict[str, Tensor]:
        """One update; metrics stay on the device."""

    def describe(self, metrics: Mapping[str, Tensor]) -> dict[str, float]:
        """Metrics as they are logged."""

    def evaluate(self, iteration: int) -> dict[str, float]:
        """Held-out measures or returns."""

    def weights(self) -> dict[str, Tensor]:
        """What a user of the checkpoint needs."""

    def state(self) -> Any:
        """What continuing needs beside the weights."""

    def load(self, weights: Mapping[str, Tensor], state: Any) -> None:
        """Continue from a checkpoint."""


@define
class Cadence:
    """Iterations in all, and between events."""

    iterations: int
    log_every: int
    evaluate_every: int
    checkpoint_every: int


class Interrupted(Exception):
    """The user asked to stop (Ctrl-C, SIGTERM); everything is saved."""


class Stop:
    """Turns SIGINT and SIGTERM into a request that the loop answers between two iterations."""

    def __init__(self) -> None:
        self.requested = False

    @contextmanager
    def listening(self) -> Iterator[Stop]:
        """Handlers are in place inside the block."""

        def ask(*_: Any) -> None:
            self.requested = True

        previous = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


class Trainer:
    """Runs stages in one run folder."""

    def __init__(
        self, folder: RunFolder, sinks: MetricSinks, manifest: Mapping[str, Any], stop: Stop
    ) -> None:
        self.folder, self.sinks, self.manifest, self.stop = folder, sinks, manifest, stop

    def train(self, stage: Stage, cadence: Cadence) -> None:
        """Train ``stage`` to its end, from its last checkpoint where there is one.

        Raises ``Interrupted`` once everything is saved, ``UserError`` where a metric is no longer
        finite (the last checkpoint is kept).
        """
        last = self.folder.checkpoints / stage.name.replace("/", "-")
        start, seconds, sums = self._resume(stage, last)
        if start >= cadence.iterations:
            return
        clock = time.monotonic() - seconds
        self.sinks.begin(stage.name, start, cadence.iterations)
        if start == 0:
            self.sinks.log(stage.name, 0, stage.evaluate(0))
        for iteration in range(start + 1, cadence.iterations + 1):
            metrics = stage.step(iteration)
            sums = {k: sums[k] + v if k in sums else v for k, v in metrics.items()}
            at_end = iteration == cadence.iterations
            if iteration % cadence.log_every == 0 or at_end:
                count = (iteration - 1) % cadence.log_every + 1
                self._log(stage, iteration, {k: v / count for k, v in sums.items()})
                sums = {}
            if iteration % cadence.evaluate_every == 0 or at_end:
                self.sinks.log(stage.name, iteration, stage.evaluate(iteration))
            if iteration % cadence.checkpoint_every == 0 or at_end or self.stop.requested:
                self._save(stage, last, iteration, time.monotonic() - clock, sums)
            if self.stop.requested and not at_end:
                raise Interrupted(f"{stage.name}: saved at iteration {iteration}")
            self.folder.beat(stage.name, iteration)

    def seconds(self, stage_name: str) -> float:
        """Wall-clock seconds that a stage has trained, over all its processes."""
        folder = self.folder.checkpoints / stage_name.replace("/", "-")
        return float(load_checkpoint(folder).state["seconds"])

    def _resume(self, stage: Stage, last: Any) -> tuple[int, float, dict[str, Tensor]]:
        if not checkpoint_exists(last):
            return 0, 0.0, {}
        checkpoint = load_checkpoint(last)
        state = checkpoint.state
        stage.load(checkpoint.weights, state["stage"])
        if not self.folder.is_complete:
            self.sinks.truncate(state["records"])
        return int(checkpoint.manifest["step"]), float(state["seconds"]), dict(state["sums"])

    def _save(
        self, stage: Stage, last: Any, iteration: int, seconds: float, sums: dict[str, Tensor]
    ) -> None:
        state = {
            "stage": stage.state(),
            "sums": sums,
            "seconds": seconds,
            "records": self.sinks.checkpoint(),
        }
        save_checkpoint(
            last,
            manifest={**self.manifest, "step": iteration},
            weights=stage.weights(),
            state=state,
        )

    def _log(self, stage: Stage, iteration: int, means: dict[str, Tensor]) -> None:
        values = stage.describe(means)
        bad = [name for name, value in values.items() if not torch.isfinite(torch.tensor(value))]
        if bad:
            raise UserError(
                f"{bad[0]} is {values[bad[0]]} at iteration {iteration}: training has diverged",
                where=f"{self.folder.path} ({stage.name})",
                remedy="lower the learning rate or the gradient clip; the last checkpoint is kept",
            )
        self.sinks.log(stage.name, iteration, values)
