"""The Weights & Biases sink and the one axis of steps that it needs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

from fmbpo.runs.sinks import Value, sinkimpl


class StageSteps:
    """One axis for all stages of a run: W&B wants a single step that never decreases.

    A stage of N iterations takes N + 1 places (0 to N), in the order in which stages are given.
    Resuming yields the same numbers if the same stages are given in the same order.
    """

    def __init__(self, stages: Iterable[tuple[str, int]] = ()) -> None:
        self._offsets: dict[str, int] = {}
        self._next = 0
        for stage, total in stages:
            self.add(stage, total)

    def add(self, stage: str, total: int) -> None:
        """Put a stage of ``total`` iterations at the end; a known one stays where it is."""
        if stage not in self._offsets:
            self._offsets[stage] = self._next
            self._next += total + 1

    def __call__(self, stage: str, step: int) -> int:
        """The place of a stage's step on the common axis. ``KeyError`` for an unknown stage."""
        return self._offsets[stage] + step


WandbMode: TypeAlias = Literal["online", "offline", "disabled"]


class WandbSink:
    """Weights & Biases. Its failure never stops a run: it warns once and falls silent.

    The run's name is its W&B id, so that a resumed run continues the same W&B run; steps that W&B
    has already are not sent again (a resumed run computes the same values). ``stages`` are all
    stages of the run with their lengths, in order. A folder ``wandb`` appears under ``folder``.
    """

    def __init__(
        self,
        *,
        mode: WandbMode,
        project: str,
        group: str,
        name: str,
        folder: Path,
        config: Mapping[str, Any],
        stages: Iterable[tuple[str, int]] = (),
    ) -> None:
        self.steps = StageSteps(stages)
        self._run: Any = None
        if mode == "disabled":
            return
        try:
            import wandb

            # Timeouts: without network, or without a key, a run must not wait for ever.
            settings = wandb.Settings(silent=True, console="off", init_timeout=30, login_timeout=30)
            self._run = wandb.init(
                project=project,
                group=group,
                name=name,
                id=name,
                resume="allow",
                mode=mode,
                dir=str(folder),
                config=dict(config),
                settings=settings,
            )
        except Exception as error:
            self._give_up(error)

    @sinkimpl
    def begin(self, stage: str, step: int, total: int) -> None:
        """Give a stage that was not announced a place at the end of the axis."""
        self.steps.add(stage, total)

    @sinkimpl
    def log(self, stage: str, step: int, values: Mapping[str, Value]) -> None:
        """Send metrics as ``STAGE/NAME``."""
        if self._run is None:
            return
        place = self.steps(stage, step)
        try:
            if place >= self._run.step:
                named = {f"{stage}/{key}": value for key, value in values.items()}
                self._run.log({f"{stage}/step": step, **named}, step=place)
        except Exception as error:
            self._give_up(error)

    @sinkimpl
    def event(self, name: str, payload: Mapping[str, Any]) -> None:
        """Put an event into the W&B run's summary."""
        if self._run is None:
            return
        try:
            self._run.summary.update({f"event/{name}": dict(payload)})
        except Exception as error:
            self._give_up(error)

    @sinkimpl
    def close(self) -> None:
        """Finish the W&B run."""
        run, self._run = self._run, None
        try:
            if run is not None:
                run.finish()
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._run = None
        what = str(error).strip() or type(error).__name__
        print(f"warning: W&B failed and is off for this run ({what})", file=sys.stderr)
