"""Everything that is worth measuring on a GPU, within eight minutes: one command, one JSON file.

    python benchmarks/gpu.py --json gpu.json
    python benchmarks/gpu.py --device cpu --size tiny --seconds 60        a dry run without a GPU

In this order, so that a lack of time costs the last ones: the card's ceilings, parity with the CPU,
waits of the host, an evaluation beside updates, and all updates, eager and as CUDA graphs, in each
precision.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
import update as updates
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils._pytree import tree_leaves

from fmbpo.config import load_experiment
from fmbpo.errors import UserError
from fmbpo.measure.evaluation import Evaluator
from fmbpo.runs.summary import versions
from fmbpo.tasks.mt30 import SUITE
from fmbpo.tasks.vector import EpisodeRunner
from fmbpo.training.cells import grid_cells
from fmbpo.training.context import Context
from fmbpo.training.dataset import load_dataset
from fmbpo.training.initial_model import InitialModel
from fmbpo.training.policies import PolicyTraining
from fmbpo.training.precision import computing
from fmbpo.training.pretraining import Pretraining

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
PAIRS = [("mlp", "mlp"), ("mlp", "flow"), ("flow", "mlp"), ("flow", "flow")]
PRECISIONS = ("float32", "tf32", "bfloat16")
ITERATIONS = 10_000
"""Policy updates of the paper's scale."""
LAUNCHES = 1000
"""Kernels in the measurement of a launch."""


class Report:
    """All results, printed as they come."""

    def __init__(self, seconds: float) -> None:
        self.found: dict[str, list[Any]] = {}
        self._end = time.monotonic() + seconds

    @property
    def late(self) -> bool:
        """Whether the time for the whole is used."""
        return time.monotonic() > self._end

    def add(self, section: str, value: Any) -> None:
        """Keep and print a result."""
        self.found.setdefault(section, []).append(value)
        print(section, json.dumps(value), flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure all, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--size", choices=list(updates.SIZES), default="48M")
    parser.add_argument("--batch", type=int, nargs=2, default=[1024, 512], metavar=("WM", "POLICY"))
    parser.add_argument("--horizon", type=int, default=16)
    parser.add_argument("--cells", type=int, nargs="+", default=[1, 30])
    parser.add_argument("--seconds", type=float, default=460)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(argv)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("error: there is no GPU here\n  -> --device cpu --size tiny is a dry run",
              file=sys.stderr)  # fmt: skip
        return 2
    report, load = Report(options.seconds), os.getloadavg()
    for section in (ceilings, parity, waits, overlap, speeds):
        try:
            section(report, options)
        except (UserError, RuntimeError) as error:  # the others are still worth having
            report.add("errors", {"section": section.__name__, "error": str(error)[:500]})
    Console(width=140).print(table(report.found.get("updates", [])))
    if options.json:
        names = ("device", "size", "batch", "horizon", "cells", "repeats")
        content = {
            "settings": {name: getattr(options, name) for name in names},
            "machine": updates.machine(options.device),
            "load_average": load,
            "versions": versions(),
            **report.found,
        }
        options.json.write_text(json.dumps(content, indent=2) + "\n")
    return 1 if "errors" in report.found else 0


# -- the card --------------------------------------------------------------------------------


def ceilings(report: Report, options: argparse.Namespace) -> None:
    """Speed of large products in each precision, of copies, and of launches."""
    width = 8192 if options.device == "cuda" else 256
    square = torch.randn(width, width, device=options.device)
    for precision in PRECISIONS:
        if precision == "tf32" and options.device == "cpu":
            continue
        with computing(precision, torch.device(options.device)):
            ms = median(lambda: square @ square, options)
        report.add("ceilings", {"product": precision, "teraflops": 2 * width**3 / ms / 1e9})
    copy = torch.empty_like(square)
    ms = median(lambda: copy.copy_(square), options)
    report.add("ceilings", {"copy": "float32", "gigabytes_per_second": 8 * width**2 / ms / 1e6})
    one = torch.zeros(1, device=options.device)

    def launch() -> None:
        for _ in range(LAUNCHES):
            one.add_(1)

    report.add("ceilings", {"microseconds_per_launch": median(launch, options)})


def median(call: Callable[[], object], options: argparse.Namespace) -> float:
    """Milliseconds, after two calls to warm up."""
    found = [updates.timed(call, options.device) for _ in range(options.repeats + 2)]
    return statistics.median(found[2:])


# -- the same numbers as on the CPU ----------------------------------------------------------


def parity(report: Report, options: argparse.Namespace) -> None:
    """Updates at laptop size, in float32: the largest difference between the device and the CPU,
    relative to the largest entry of a tensor. After one update, since differences grow."""
    for world in ("mlp", "flow"):
        here, there = (eager_jobs(world, options, name) for name in ("cpu", options.device))
        for own, job in zip(here, there, strict=True):
            pairs = zip(tree_leaves(job.call()), tree_leaves(own.call()), strict=True)
            off = max(difference(a.cpu(), b) for a, b in pairs)
            row = {"update": job.update, "world_model": world, "policy": job.policy, "off": off}
            report.add("parity", row)


def eager_jobs(world: str, options: argparse.Namespace, device: str) -> list[updates.Job]:
    """The same updates on the same numbers, on any device."""
    torch.manual_seed(0)
    size = "tiny" if options.size == "tiny" else "laptop"
    jobs = updates.world_model_jobs(world, given(options, size, 16, [2], device=device))
    return [job for job in jobs if job.mode == "eager"]


def given(
    options: argparse.Namespace, size: str, batch: int, cells: Sequence[int], **more: Any
) -> argparse.Namespace:
    """Options of ``updates.world_model_jobs``, with both kinds of policies."""
    values = {
        "size": size, "batch": batch, "horizon": options.horizon, "device": options.device,
        "precision": "float32", "policy": ["mlp", "flow"], "cells": cells,
        "compile": options.device == "cuda",
    }  # fmt: skip
    return argparse.Namespace(**{**values, **more})


def difference(a: Tensor, b: Tensor) -> float:
    """The largest difference, relative to the largest entry."""
    return float((a.double() - b.double()).abs().max() / b.double().abs().max().clamp(min=1e-12))


# -- waits of the host -----------------------------------------------------------------------


def waits(report: Report, options: argparse.Namespace) -> None:
    """Real stages on the package's data at laptop scale: steps after the first, under torch's check
    for waits, in which each wait is an error."""
    for world, policy in PAIRS:
        file = EXPERIMENTS / f"phase8_{world}wm_{policy}policy.toml"
        overrides = [f'system.device="{options.device}"']
        e = load_experiment(file, scale="laptop", overrides=overrides)
        device = torch.device(options.device)
        context = Context(e, load_dataset(e.data, device), device)
        stages: list[Any] = [Pretraining(context, 1)] if policy == "mlp" else []
        model = InitialModel().build(context)
        cells = grid_cells(e, context.data.tasks)[:4]
        with EpisodeRunner(0, SUITE) as runner:
            stages.append(PolicyTraining("p", cells, context, model, Evaluator(runner, 0)))
        for stage in stages:
            row = {"stage": stage.name, "world_model": world, "policy": policy}
            report.add("waits", {**row, "wait": wait_in(stage, options)})


def wait_in(stage: Any, options: argparse.Namespace) -> str:
    """The first wait in steps after the first one; empty if there is none."""
    stage.step(1)
    on_gpu = options.device == "cuda"
    if on_gpu:
        torch.cuda.set_sync_debug_mode("error")
    try:
        for iteration in range(2, 6):
            stage.step(iteration)
    except RuntimeError as error:
        return str(error)[:300]
    finally:
        if on_gpu:
            torch.cuda.set_sync_debug_mode("default")
    return ""


def overlap(report: Report, options: argparse.Namespace) -> None:
    """Seconds of an evaluation in the simulator and of as many updates: apart, and at once."""
    if report.late:
        report.add("left_out", {"section": "overlap"})
        return
    steps = 200 if options.device == "cuda" else 5
    overrides = [f'system.device="{options.device}"']
    file = EXPERIMENTS / "phase8_mlpwm_mlppolicy.toml"
    e, device = load_experiment(file, scale="laptop", overrides=overrides), options.device
    context = Context(e, load_dataset(e.data, torch.device(device)), torch.device(device))
    cells, model = grid_cells(e, context.data.tasks), InitialModel().build(context)
    episodes, row = e.evaluation.episodes, {"steps": float(steps)}
    with EpisodeRunner(e.evaluation.simulators(1), SUITE) as runner:
        stage = PolicyTraining("p", cells, context, model, Evaluator(runner, 0))
        stage.step(1)
        stage.returns(episodes, steps=2)
        with timed(row, "evaluation_s", options):
            stage.returns(episodes, steps=steps)
        with timed(row, "updates_s", options):
            for iteration in range(steps):
                stage.step(iteration)
        with timed(row, "both_s", options):
            stage.begin_returns(episodes, steps)
            for iteration in range(steps):
                stage.step(iteration)
            stage.end_returns()
    report.add("overlap", row)


@contextmanager
def timed(row: dict[str, float], name: str, options: argparse.Namespace) -> Iterator[None]:
    """Seconds of the block, with all that it left the device to do."""
    began = time.monotonic()
    yield
    if options.device == "cuda":
        torch.cuda.synchronize()
    row[name] = time.monotonic() - began


# -- updates ---------------------------------------------------------------------------------


def speeds(report: Report, options: argparse.Namespace) -> None:
    """All updates: eager and as graphs, by precision, kind and number of cells."""
    of_models, of_policies = options.batch
    for precision in ("tf32", "bfloat16", "float32"):
        if precision == "tf32" and options.device == "cpu":
            continue
        for world in ("mlp", "flow"):
            options_of = partial(given, options, options.size, precision=precision)
            jobs = [partial(updates.model_jobs, world, options_of(of_models, []))]
            jobs += [
                partial(updates.all_policy_jobs, world, options_of(of_policies, [n], policy=[p]))
                for p in ("mlp", "flow")
                for n in options.cells
            ]
            for make in jobs:
                if report.late:
                    report.add("left_out", {"precision": precision, "world_model": world})
                    return
                measure(report, options, precision, make)


def measure(
    report: Report,
    options: argparse.Namespace,
    precision: str,
    make: partial[list[updates.Job]],
) -> None:
    """Time one update, eager and as a graph."""
    on_gpu = options.device == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    try:
        jobs = make()
    except RuntimeError as error:  # out of memory
        report.add("errors", {"updates": str(make.args), "error": str(error)[:200]})
        return
    for job in jobs:
        for _ in range(options.repeats):
            job.milliseconds.append(updates.timed(job.call, options.device))
        row = {**job.to_json(), "precision": precision}
        if job.mode == "graph":
            (program,) = job.function.programs.values()
            row["kernels"] = program.kernels
        if on_gpu:
            row["peak_gigabytes"] = torch.cuda.max_memory_allocated() / 1e9
        if job.update == "policy" and job.cells == 30:
            row["minutes_of_a_quadrant"] = ITERATIONS * job.median / 60_000
        report.add("updates", row)


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """The updates."""
    columns = ("update", "world_model", "policy", "cells", "precision", "mode", "kernels",
               "median_milliseconds", "gflop_per_second", "peak_gigabytes")  # fmt: skip
    found = Table(*columns)
    for row in rows:
        values = [row.get(name, "") for name in columns]
        texts = [f"{v:,.4g}" if isinstance(v, float) else str(v or "") for v in values]
        found.add_row(*texts)
    return found


if __name__ == "__main__":
    sys.exit(main())
