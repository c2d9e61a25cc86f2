"""Times one world-model update and one policy update, for kinds, sizes, batches and cells.

    python benchmarks/update.py                      all four pairs, laptop size
    python benchmarks/update.py --world-model flow --policy mlp --size 48M --batch 256 --compile

All measurements of a run take turns, so that a busy machine slows all of them alike; the median of
the turns counts, after a warm-up. The data are random numbers, on which time does not depend.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import torch
from rich.console import Console
from rich.table import Table

from fmbpo.base.cores import usable_cores
from fmbpo.config.conventions import ConventionsConfig
from fmbpo.config.schema import CriticConfig, PluginTable, PolicyLearningConfig, PretrainConfig
from fmbpo.errors import UserError
from fmbpo.hookspecs import Batch, Module
from fmbpo.measure.cost import flops, parameters
from fmbpo.measure.sizes import dims_of
from fmbpo.nn.compiled import compiling
from fmbpo.plugins import Component, load_plugin
from fmbpo.pwm.pair import Pair
from fmbpo.pwm.policy import CellState, PolicyUpdate, Rates
from fmbpo.pwm.start import Start
from fmbpo.pwm.world_model import WorldModelState, WorldModelUpdate
from fmbpo.replay import Replayed
from fmbpo.runs.summary import versions
from fmbpo.tasks.mt30 import SUITE
from fmbpo.training.cells import Cell
from fmbpo.training.networks import CellNetworks, build_world_model
from fmbpo.training.precision import computing, resolve_precision
from fmbpo.training.trees import own_params, stack

DIMS = dims_of(SUITE)

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"encoder_units": [16], "units": [16], "latent_dim": 16, "task_dim": 4},
    "laptop": {"encoder_units": [256], "units": [256] * 2, "latent_dim": 128, "task_dim": 16},
    "1M": {"encoder_units": [256], "units": [384] * 2, "latent_dim": 128, "task_dim": 64},
    "5M": {"encoder_units": [256], "units": [512] * 2, "latent_dim": 512, "task_dim": 64},
    "48M": {"encoder_units": [1792] * 3, "units": [1792] * 2, "latent_dim": 768, "task_dim": 64},
}
"""The experiments' two sizes, TD-MPC2's 1M and 5M, and one for tests."""


@attrs.define
class Job:
    """One update that is timed."""

    update: str
    world_model: str
    policy: str | None
    cells: int
    mode: str
    parameters: int
    gflop: float
    call: Callable[[], Any]
    function: Callable[..., Any] | None = None
    milliseconds: list[float] = attrs.field(factory=list)

    @property
    def median(self) -> float:
        """Milliseconds per update."""
        return statistics.median(self.milliseconds)

    def to_json(self) -> dict[str, Any]:
        """Without the functions."""
        values = attrs.asdict(self, filter=lambda field, _: field.name not in ("call", "function"))
        rate = self.gflop / self.median * 1000
        return {**values, "median_milliseconds": self.median, "gflop_per_second": rate}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write the JSON if asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--world-model", nargs="+", default=["mlp", "flow"], metavar="PLUGIN")
    parser.add_argument("--policy", nargs="*", default=["mlp", "flow"], metavar="PLUGIN")
    parser.add_argument("--size", choices=list(SIZES), default="laptop")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--horizon", type=int, default=16)
    parser.add_argument("--cells", type=int, nargs="+", default=[1, 4], help="policies stacked")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=0, help="0: torch's default")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--precision", choices=["float32", "tf32", "bfloat16"], default="float32")
    parser.add_argument("--compile", action="store_true", help="with compiled kernels too")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(argv)
    if options.threads:
        torch.set_num_threads(options.threads)
    console = Console()
    console.width = max(console.width, 110)
    try:
        load = os.getloadavg()
        jobs = [job for kind in options.world_model for job in world_model_jobs(kind, options)]
        for turn in range(options.repeats):
            for job in jobs:
                job.milliseconds.append(timed(job.call, options.device))
            console.print(f"turn {turn + 1} of {options.repeats}", style="dim")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    ratios = all_ratios(jobs)
    console.print(updates_table(jobs, options))
    console.print(ratios_table(ratios))
    if options.json:
        names = ("size", "batch", "horizon", "device", "precision", "repeats")
        content = {
            "settings": {name: getattr(options, name) for name in names},
            "machine": machine(options.device),
            "load_average": load,
            "versions": versions(),
            "updates": [job.to_json() for job in jobs],
            "ratios": ratios,
        }
        options.json.write_text(json.dumps(content, indent=2) + "\n")
    return 0


def world_model_jobs(kind: str, options: argparse.Namespace) -> list[Job]:
    """The update of a world model, and of every policy in it."""
    return [*model_jobs(kind, options), *all_policy_jobs(kind, options)]


def model_jobs(kind: str, options: argparse.Namespace) -> list[Job]:
    """The update of a world model."""
    component, table = model_table(kind, options)
    module = build_world_model(table, SUITE, 0, torch.device(options.device))
    state = WorldModelState.initial(own_params(module)).laid_out()
    noise = torch.randn(options.horizon, options.batch, module.loss_noise_dim).to(options.device)
    rate, done = torch.tensor([1e-4, 0.0], device=options.device)
    arguments = state, random_batch(options), noise, rate, done
    update = WorldModelUpdate(module, component.loss, PretrainConfig().optimiser)
    return modes(update, arguments, options, ("world model", kind, None, 1), count(module))


def all_policy_jobs(kind: str, options: argparse.Namespace) -> list[Job]:
    """The updates of all policies asked for, in one frozen world model."""
    component, table = model_table(kind, options)
    frozen = build_world_model(table, SUITE, 0, torch.device(options.device))
    component.freeze(frozen)
    data, jobs = random_batch(options), []
    for policy in options.policy:
        for cells in options.cells:
            jobs += policy_jobs(kind, component, frozen, policy, cells, data, options)
    return jobs


def model_table(kind: str, options: argparse.Namespace) -> tuple[Component, PluginTable]:
    """A world model's plugin, with the settings of its size."""
    component, settings = load_plugin("world_model", kind), dict(SIZES[options.size])
    has_substeps = any(field.name == "substeps" for field in attrs.fields(component.Config))
    if has_substeps and options.size in ("tiny", "laptop"):
        settings["substeps"] = 2  # as in the experiments' laptop scale
    return component, plugin_table(component, settings)


def random_batch(options: argparse.Namespace) -> Batch:
    """Random numbers, drawn on the CPU, so that a seed means the same ones on all devices."""
    batch, horizon = options.batch, options.horizon
    drawn = Batch(
        torch.randn(horizon + 1, batch, DIMS.obs),
        torch.rand(horizon, batch, DIMS.action) * 2 - 1,
        torch.rand(horizon, batch),
        torch.randint(DIMS.tasks, (batch,)),
        torch.ones(batch, DIMS.action),
        torch.zeros(horizon, batch),
    )
    return Batch(*(part.to(options.device) for part in drawn))


def policy_jobs(
    kind: str,
    world_model: Component,
    model: Any,
    policy: str,
    cells: int,
    data: Batch,
    options: argparse.Namespace,
) -> list[Job]:
    """The update of stacked policies of one kind, with the study's defaults."""
    device, batch, horizon = torch.device(options.device), options.batch, options.horizon
    learning = PolicyLearningConfig(batch=batch, horizon=horizon)
    component = load_plugin("policy", policy)
    networks = CellNetworks(plugin_table(component, {}), CriticConfig(), model, SUITE, device)
    grid = [Cell("any", seed) for seed in range(cells)]
    state = stack(
        [CellState.initial(own_params(networks.policy(c)), networks.critics(c)) for c in grid]
    ).laid_out()
    module, critic = networks.policy(grid[0]), networks.critic(grid[0], "critic 0")
    start = Start(
        data.obs_HBO[0].expand(cells, -1, -1).contiguous(),
        data.index_B.expand(cells, -1).contiguous(),
        data.mask_BA.expand(cells, -1, -1).contiguous(),
        torch.randn(cells, horizon, batch, module.noise_dim).to(device),
        torch.randn(cells, horizon, batch, model.noise_dim).to(device),
        torch.zeros(cells, device=device),
    )
    rates = Rates(torch.tensor(1e-4, device=device), torch.tensor(1e-4, device=device))
    pair = Pair(model, world_model, module, component)
    update = PolicyUpdate(pair, critic, learning, ConventionsConfig())
    label = ("policy", kind, policy, cells)
    return modes(update, (state, start, rates), options, label, count(module))


def plugin_table(component: Component, settings: dict[str, Any]) -> PluginTable:
    """A plugin's table as in an experiment, with these settings."""
    config = component.Config(**settings)
    name = component.name
    return PluginTable(plugin=name, level=name, config=config, component=component)


def modes(
    update: Callable[..., Any],
    arguments: tuple[Any, ...],
    options: argparse.Namespace,
    label: tuple[str, str, str | None, int],
    parameters: int,
) -> list[Job]:
    """The update eager, as a graph, and with compiled kernels if asked for; each is called twice to
    warm up, in which a graph is recorded and checked."""
    gflop = flops(update, *arguments) / 1e9
    device = torch.device(options.device)
    precision = resolve_precision(options.precision, device)

    def settled(kernels: bool, *inputs: Any) -> Any:
        with computing(precision, device), compiling(kernels):
            return update(*inputs)

    eager = partial(settled, False)
    calls: dict[str, Callable[..., Any]] = {
        "eager": eager,
        "graph": Replayed(eager, "the update", required=True, say=print),
    }
    if options.compile:
        compiled = partial(settled, True)
        calls["compiled"] = Replayed(compiled, "the update", required=True, say=print)
    jobs = []
    for mode, function in calls.items():

        def call(function: Callable[..., Any] = function) -> Any:
            return function(*arguments)

        for _ in range(2):
            timed(call, options.device)
        jobs.append(Job(*label, mode, parameters, gflop, call, function))
    return jobs


def timed(call: Callable[[], Any], device: str) -> float:
    """Milliseconds of one call, finished on the device."""
    cuda = torch.device(device).type == "cuda"
    if cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if cuda:
        torch.cuda.synchronize()
    return (time.perf_counter() - start) * 1000


def all_ratios(jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """The ratios of comparable measurements."""
    by = {(j.update, j.world_model, j.policy, j.cells, j.mode): j.median for j in jobs}
    found = []

    def ratio(what: str, above: Any, below: Any, factor: int = 1) -> None:
        if above in by and below in by and above != below:
            found.append({"what": what, "ratio": by[above] / by[below] / factor})

    for update, world, policy, cells, mode in by:
        pair = f"{world} world model" + (f", {policy} policy" if policy else "")
        each = f"{update} update, {pair}, {cells} cell{'s' * (cells > 1)}, {mode}"
        key = (update, world, policy, cells, mode)
        if world == "flow":
            ratio(f"flow / mlp world model: {each}", key, (update, "mlp", policy, cells, mode))
        if policy == "flow":
            ratio(f"flow / mlp policy: {each}", key, (update, world, "mlp", cells, mode))
        if mode != "eager":
            ratio(f"{mode} / eager: {each}", key, (update, world, policy, cells, "eager"))
        if cells > 1:
            what = f"stacked / {cells} times one cell: {each}"
            ratio(what, key, (update, world, policy, 1, mode), cells)
    return found


def machine(device: str) -> dict[str, Any]:
    """The machine, without names of hosts or users."""
    cuda = torch.device(device).type == "cuda"
    return {
        "cpu": cpu_model(),
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(device) if cuda else None,
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def cpu_model() -> str:
    """The CPU's name, as the system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def updates_table(jobs: Sequence[Job], options: argparse.Namespace) -> Table:
    title = (
        f"size {options.size}, batch {options.batch}, horizon {options.horizon}, "
        f"{options.device}, median of {options.repeats}"
    )
    table = Table(title=title)
    for name in ("update", "world model", "policy", "cells", "mode"):
        table.add_column(name)
    for name in ("ms/update", "GFLOP/update", "GFLOP/s"):
        table.add_column(name, justify="right")
    for job in jobs:
        row = job.to_json()
        texts = [job.update, job.world_model, job.policy or "", str(job.cells), job.mode]
        numbers = (job.median, job.gflop, row["gflop_per_second"])
        table.add_row(*texts, *(f"{number:,.4g}" for number in numbers))
    return table


def ratios_table(ratios: Sequence[dict[str, Any]]) -> Table:
    table = Table("what", "ratio", title="ratios of times")
    for each in ratios:
        table.add_row(each["what"], f"{each['ratio']:.2f}")
    return table


def count(module: Module) -> int:
    return sum(parameters(module).values())


if __name__ == "__main__":
    sys.exit(main())
