"""The Weights & Biases sink."""

from __future__ import annotations

import functools
import itertools
import json
import os
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from unittest import mock

from fmbpo.base.files import path_of
from fmbpo.base.metrics import Row
from fmbpo.base.text import one_line
from fmbpo.runs.sinks import sinkimpl

_MODES = ("online", "offline", "shared", "run", "dryrun")
"""W&B's own, of which the last two are older names of the first two."""


class WandbSink:
    """Weights & Biases. Its failure never stops a run: it warns once and switches itself off.

    The run's name is its W&B id, so that a resumed run continues the same W&B run. It does not
    resend steps that W&B has already, since it computes the same values. W&B needs a single step
    that never decreases: a stage of N iterations takes N + 1 of them, in order.
    """

    def __init__(
        self,
        *,
        mode: Literal["online", "offline", "disabled"],
        project: str,
        group: str,
        folder: Path,
        config: Mapping[str, Any],
        stages: Mapping[str, int],
    ) -> None:
        """``group``: the study's name. ``folder``: the run's, which gets a folder ``wandb``.
        ``stages``: the run's stages and their iterations, in order. Of W&B's own environment,
        ``WANDB_MODE``, ``_PROJECT``, ``_ENTITY`` and ``_DIR`` win over all this."""
        ends = list(itertools.accumulate((total + 1 for total in stages.values()), initial=0))
        self.begins, self.end = dict(zip(stages, ends, strict=False)), ends[-1]
        self._name = folder.name
        self._run: Any = None
        wanted: Any = os.environ.get("WANDB_MODE") or mode
        if wanted == "disabled":
            return
        with self._no_harm():
            if wanted not in _MODES:
                raise ValueError(f"WANDB_MODE is {wanted!r}, not {', '.join(_MODES)} or disabled")
            import wandb

            place = path_of(os.environ.get("WANDB_DIR") or str(folder)).resolve()
            init = functools.partial(
                wandb.init,
                project=os.environ.get("WANDB_PROJECT") or project,
                group=group,
                name=" ".join(folder.name.split("__")[:-1]),
                id=folder.name,
                resume="allow",
                dir=str(place),
                config=dict(config),
                # Without a network, a run must not wait forever.
                settings=wandb.Settings(silent=True, console="off", init_timeout=30),
            )
            try:
                # Without a key, W&B asks at a terminal; and nobody may be there.
                with open(os.devnull) as nobody, mock.patch("sys.stdin", nobody):
                    self._run = init(mode=wanted)
            except Exception as error:
                if wanted == "offline":
                    raise
                what = one_line(str(error)) or type(error).__name__
                upload = f"wandb sync {place}/wandb/offline-run-*"
                print(f"W&B is not online ({what}): `{upload}` uploads the run", file=sys.stderr)
                wandb.teardown()  # it still holds the run's id
                self._run = init(mode="offline")

    @sinkimpl
    def log(self, stage: str, step: int, rows: Sequence[Row]) -> None:
        """Send a cell's metrics as ``STAGE/TASK/SEED/NAME``, the stage's own as ``STAGE/NAME``."""
        if self._run is None:
            return
        place = self.begins[stage] + step
        with self._no_harm():
            if place >= self._run.step:
                named = {
                    f"{stage}/{row.full_name(name)}": value
                    for row in rows
                    for name, value in row.values.items()
                }
                self._run.log({f"{stage}/step": step, **named}, step=place)

    @sinkimpl
    def event(self, name: str, payload: Mapping[str, Any]) -> None:
        """Put an event into the W&B run's summary."""
        with self._no_harm():
            if self._run is not None:
                self._run.summary.update({f"event/{name}": dict(payload)})

    @sinkimpl
    def results(self, summary: Mapping[str, Any], files: Sequence[Path]) -> None:
        """Send numbers for the run's summary, all returns, pictures, and an artefact of all."""
        if self._run is None:
            return
        with self._no_harm():
            import wandb

            columns = ["task", "seed", "return_mean", "return_std", "episodes"]
            rows = [
                [task, seed, *(entry[key] for key in columns[2:])]
                for task, result in summary["tasks"].items()
                for seed, entry in result["seeds"].items()
            ]
            pictures = [file for file in files if file.suffix == ".png"]
            shown = {f"results/{file.stem}": wandb.Image(str(file)) for file in pictures}
            if rows:
                shown["results/returns"] = wandb.Table(columns=columns, data=rows)
            if shown:
                self._run.log(shown, step=self.end)
            self._run.summary.update({"results": _numbers(summary)})
            artefact = wandb.Artifact(self._name, type="results")
            with artefact.new_file("summary.json") as file:
                file.write(json.dumps(summary))
            for path in files:
                artefact.add_file(str(path))
            self._run.log_artifact(artefact)

    @sinkimpl
    def close(self) -> None:
        """Finish the W&B run."""
        run, self._run = self._run, None
        with self._no_harm():
            if run is not None:
                run.finish()

    @contextmanager
    def _no_harm(self) -> Iterator[None]:
        """Switch W&B off on any failure inside the block."""
        try:
            yield
        except Exception as error:
            self._run = None
            what = one_line(str(error)) or type(error).__name__
            print(f"warning: W&B failed and is off for this run ({what})", file=sys.stderr)


def _numbers(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers to sort and filter runs by: mean returns and held-out measures."""
    returns = {
        task: statistics.fmean(entry["return_mean"] for entry in result["seeds"].values())
        for task, result in summary["tasks"].items()
    }
    numbers: dict[str, Any] = {"held_out": dict(summary["wm_validation"])}
    if returns:
        numbers |= {"return": returns, "mean_return": statistics.fmean(returns.values())}
    return {**numbers, "warnings": len(summary["health"])}
