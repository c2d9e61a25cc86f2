"""Measures what several processes gain, and calculates what many GPUs could gain.

    python benchmarks/scaling.py --json benchmarks/results/scaling.json
    python benchmarks/scaling.py --processes 2 --world-model flow --policy flow

Strong scaling shares the same batch, or the same policies, among the processes; weak scaling gives
each of them as much as one process has. Every process has one thread. The stages are those of a
run; one process and all processes take turns, and the medians count. Processes are started by
torchrun, and talk as those of a run do.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
import update as updates
from rich.console import Console
from rich.table import Table

from fmbpo.config import load_experiment
from fmbpo.config.schema import Experiment
from fmbpo.distributed.group import ALONE, Group
from fmbpo.errors import UserError
from fmbpo.measure.evaluation import Evaluator
from fmbpo.running.following import follow
from fmbpo.running.spread import policy_stage
from fmbpo.runs.summary import versions
from fmbpo.tasks.vector import EpisodeRunner
from fmbpo.training.cells import Cell
from fmbpo.training.context import Context
from fmbpo.training.dataset import load_dataset
from fmbpo.training.initial_model import InitialModel
from fmbpo.training.pretraining import Pretraining

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
CPU = torch.device("cpu")
WARM_UP = 3
"""Steps before the first that counts: one is recorded, one is checked."""

NVLINK = 450e9
"""Bytes per second and direction of a GPU's NVLink (H100, H200)."""
NETWORK = 200e9 / 8
"""Bytes per second and direction of a node's adapter, which its GPUs share."""
GPUS_PER_NODE = 8
PAPER_BATCH = 1024
PAPER_UPDATES = {"mlp": 6.0, "flow": 20.0}
"""The goals for a pretraining update of 48M parameters on one H100, in ms: the shortest times that
are hoped for, so the largest shares of communication."""


class TimedGroup(Group):
    """A group that keeps the seconds of the leader's messages, with the waits for the others."""

    def __init__(self, group: Group) -> None:
        super().__init__(group.rank, group.size, group.local_size)
        self._orders, self._answers = group._orders, group._answers
        self._trainings = group._trainings
        self.seconds = 0.0

    def order_step(self, iteration: int) -> None:
        """See ``Group``."""
        self._timed(lambda: Group.order_step(self, iteration))

    def mean(self, vector: torch.Tensor, weight: float) -> torch.Tensor:
        """See ``Group``."""
        return self._timed(lambda: Group.mean(self, vector, weight))

    def received(self, like: torch.Tensor, counts: Sequence[int]) -> list[torch.Tensor]:
        """See ``Group``."""
        return self._timed(lambda: Group.received(self, like, counts))

    def _timed(self, call: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        try:
            return call()
        finally:
            self.seconds += time.perf_counter() - began


@attrs.define
class Measured:
    """Updates of one process and of all processes."""

    work: str
    world_model: str
    policy: str | None
    scaling: str
    processes: int
    alone_ms: list[float] = attrs.field(factory=list)
    together_ms: list[float] = attrs.field(factory=list)
    messages_ms: list[float] = attrs.field(factory=list)
    """Of ``together_ms``: the leader's messages, with its waits for the others."""

    @property
    def gain(self) -> float:
        """Work per second of all processes, relative to that of one: the median over the turns, of
        which both halves meet the machine at the same speed."""
        factor = self.processes if self.scaling == "weak" else 1
        turns = zip(self.alone_ms, self.together_ms, strict=True)
        return factor * statistics.median(alone / together for alone, together in turns)

    @property
    def messages(self) -> float:
        """Share of the leader's time."""
        return sum(self.messages_ms) / sum(self.together_ms)


def main(argv: Sequence[str] | None = None) -> int:
    """Start the processes, which measure; rank 0 prints and writes the JSON."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    options = parsed(arguments)
    if "RANK" in os.environ:
        return member(options)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone",
               "--nproc-per-node", str(options.processes), __file__, *arguments]  # fmt: skip
    return subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}).returncode


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--world-model", nargs="+", default=["mlp", "flow"], metavar="PLUGIN")
    parser.add_argument("--policy", nargs="*", default=["mlp", "flow"], metavar="PLUGIN")
    parser.add_argument("--size", choices=list(updates.SIZES), default="5M")
    parser.add_argument(
        "--batch", type=int, nargs=2, default=[256, 64], metavar=("WM", "POLICY"),
        help="sub-trajectories of an update",
    )  # fmt: skip
    parser.add_argument("--horizon", type=int, default=16)
    parser.add_argument("--cells", type=int, default=4, help="policies of one process")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args(arguments)


def member(options: argparse.Namespace) -> int:
    """One of the processes."""
    torch.set_num_threads(1)
    group, load = Group.joined(), os.getloadavg()
    exchanges = [exchange(group, kind, options) for kind in options.world_model]
    try:
        if group.rank:
            follow(group)
            return 0
        rows = measurements(group, options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    finally:
        group.leave()
    bound = limits()
    console = Console(width=110)
    console.print(gains_table(rows, options), exchanges_table(exchanges), limits_table(bound))
    if options.json:
        names = ("processes", "size", "batch", "horizon", "cells", "repeats")
        content = {
            "settings": {name: getattr(options, name) for name in names},
            "machine": updates.machine("cpu"),
            "load_average": load,
            "versions": versions(),
            "gains": [
                {**attrs.asdict(row), "gain": row.gain, "messages": row.messages} for row in rows
            ],
            "exchanges": exchanges,
            "limits": bound,
        }
        options.json.write_text(json.dumps(content, indent=2) + "\n")
    return 0


# -- measured --------------------------------------------------------------------------------


def measurements(group: Group, options: argparse.Namespace) -> list[Measured]:
    """All that was asked for, by the leader; the others follow."""
    timed, rows = TimedGroup(group), list[Measured]()
    for kind in options.world_model:
        for scaling in ("strong", "weak"):
            rows.append(pretraining(timed, kind, scaling, options))
            print(f"{kind} world model, {scaling}: {rows[-1].gain:.2f}", file=sys.stderr)
        for policy in options.policy:
            for scaling in ("strong", "weak"):
                rows.append(policies(timed, kind, policy, scaling, options))
                print(f"{policy} in {kind}, {scaling}: {rows[-1].gain:.2f}", file=sys.stderr)
    return rows


def pretraining(
    group: TimedGroup, kind: str, scaling: str, options: argparse.Namespace
) -> Measured:
    """Updates of a world model."""
    name, batch = f"phase8_pretrain_{kind}wm", options.batch[0]
    factor = group.size if scaling == "weak" else 1
    row = Measured("pretraining", kind, None, scaling, group.size)
    alone = Pretraining(begun(ALONE, experiment(name, batch, group, options)), 42)
    whole = begun(group, experiment(name, batch * factor, group, options))
    return taken_in_turns(row, alone, Pretraining(whole, 42), group, options)


def policies(
    group: TimedGroup, kind: str, policy: str, scaling: str, options: argparse.Namespace
) -> Measured:
    """Updates of policies in one frozen world model."""
    name = f"phase8_{kind}wm_{policy}policy"
    factor = group.size if scaling == "weak" else 1
    row = Measured("policies", kind, policy, scaling, group.size)
    e = experiment(name, options.batch[1], group, options)
    with EpisodeRunner(0, updates.SUITE) as runner:
        evaluator = Evaluator(runner, e.evaluation.seed)

        def stage(group: Group, count: int) -> Any:
            context, model = begun(group, e), InitialModel()
            cells = [Cell(context.data.tasks[0], seed) for seed in range(count)]
            return policy_stage("policies", cells, context, model, model.build(context), evaluator)

        alone = stage(ALONE, options.cells)
        return taken_in_turns(row, alone, stage(group, options.cells * factor), group, options)


def experiment(name: str, batch: int, group: Group, options: argparse.Namespace) -> Experiment:
    """The study's experiment with the paper's settings, but for the size of its world model."""
    sizes = updates.SIZES[options.size]
    learning = "pretrain" if "pretrain" in name else "policy_learning"
    overrides = [
        *(f"world_model.{key}={json.dumps(value)}" for key, value in sizes.items()),
        f"{learning}.batch={batch}",
        f"{learning}.horizon={options.horizon}",
        "system.device=cpu",
        f"system.threads={group.size}",
    ]
    return load_experiment(EXPERIMENTS / f"{name}.toml", overrides=overrides, data="embedded")


def begun(group: Group, e: Experiment) -> Context:
    """The context of a stage; the followers prepare the same."""
    group.order("experiment", e, Path())
    return Context(e, load_dataset(e.data, CPU), CPU, group, say=print)


def taken_in_turns(
    row: Measured, alone: Any, together: Any, group: TimedGroup, options: argparse.Namespace
) -> Measured:
    """Step both stages in turns."""
    for iteration in range(1, WARM_UP + options.repeats + 1):
        began = time.perf_counter()
        alone.step(iteration)
        middle, group.seconds = time.perf_counter(), 0.0
        together.step(iteration)
        end = time.perf_counter()
        if iteration > WARM_UP:
            row.alone_ms.append((middle - began) * 1000)
            row.together_ms.append((end - middle) * 1000)
            row.messages_ms.append(group.seconds * 1000)
    return row


def exchange(group: Group, kind: str, options: argparse.Namespace) -> dict[str, Any]:
    """The mean of a world model's gradient over processes that have nothing else to do."""
    e = experiment(f"phase8_pretrain_{kind}wm", options.batch[0], group, options)
    data = load_dataset(e.data, CPU)
    module = updates.build_world_model(e.world_model, data.suite, 0, CPU)
    vector, found = torch.zeros(updates.count(module)), list[float]()
    for _ in range(options.repeats + WARM_UP):
        began = time.perf_counter()
        group.mean(vector, 1 / group.size)
        found.append((time.perf_counter() - began) * 1000)
    ms = statistics.median(found[WARM_UP:])
    return {"world_model": kind, "megabytes": vector.nbytes / 1e6, "ms": ms}


# -- calculated ------------------------------------------------------------------------------


def limits() -> list[dict[str, Any]]:
    """Pretraining of 48M parameters on many GPUs: the time of the gradient's exchange, and the
    gains with the paper's batch shared among them and with such a batch for each.

    A ring moves ``2 (n - 1) / n`` of the vector through each link of n members; between nodes each
    GPU moves its own eighth through the adapter that the node's GPUs share. Latencies, waits and
    the update's other parts are left out, and no exchange overlaps with arithmetic.
    """
    found = []
    for kind, ms in PAPER_UPDATES.items():
        size = paper_bytes(kind)
        for gpus in (GPUS_PER_NODE, 8 * GPUS_PER_NODE):
            nodes = gpus // GPUS_PER_NODE
            inside = ring(GPUS_PER_NODE) * size / NVLINK * 1000
            between = ring(nodes) * size / NETWORK * 1000
            exchange = inside + between
            strong, weak = ms / (ms / gpus + exchange), gpus * ms / (ms + exchange)
            found.append({
                "world_model": kind, "gpus": gpus, "megabytes": size / 1e6, "update_ms": ms,
                "nvlink_ms": inside, "network_ms": between, "strong": strong, "weak": weak,
            })  # fmt: skip
    return found


def ring(members: int) -> float:
    """The share of a vector that each member of a ring sends in a reduction to all."""
    return 2 * (members - 1) / members


def paper_bytes(kind: str) -> int:
    """The gradient of the world model of the paper's size."""
    options = argparse.Namespace(size="48M")
    _, table = updates.model_table(kind, options)
    module = updates.build_world_model(table, updates.SUITE, 0, torch.device("meta"))
    return 4 * updates.count(module)


# -- printed ---------------------------------------------------------------------------------


def gains_table(rows: Sequence[Measured], options: argparse.Namespace) -> Table:
    """The measured gains."""
    title = (
        f"{options.processes} processes of one thread, size {options.size}, batches "
        f"{options.batch[0]} and {options.batch[1]}, median of {options.repeats}"
    )
    table = Table("updates", "scaling", title=title)
    for name in ("one process, ms", "all, ms", "gain", "messages and waits"):
        table.add_column(name, justify="right")
    for row in rows:
        of = f"{row.policy} in {row.world_model}" if row.policy else row.world_model
        times = (f"{statistics.median(ms):,.0f}" for ms in (row.alone_ms, row.together_ms))
        table.add_row(
            f"{row.work}, {of}", row.scaling, *times, f"{row.gain:.2f}", f"{row.messages:.1%}"
        )
    return table


def exchanges_table(exchanges: Sequence[dict[str, Any]]) -> Table:
    """The exchange alone."""
    table = Table("world model", title="the mean of a gradient, alone")
    for name in ("MB", "ms"):
        table.add_column(name, justify="right")
    for one in exchanges:
        table.add_row(one["world_model"], f"{one['megabytes']:.1f}", f"{one['ms']:.1f}")
    return table


def limits_table(limits: Sequence[dict[str, Any]]) -> Table:
    """The calculated limits."""
    table = Table("48M world model", title=f"calculated; batch {PAPER_BATCH} in all, or each")
    for name in ("GPUs", "update, ms", "NVLink, ms", "network, ms", "gain, in all", "gain, each"):
        table.add_column(name, justify="right")
    for one in limits:
        numbers = (one[name] for name in ("update_ms", "nvlink_ms", "network_ms", "strong", "weak"))
        texts = (f"{number:,.3g}" for number in numbers)
        table.add_row(f"{one['world_model']}, {one['megabytes']:.0f} MB", str(one["gpus"]), *texts)
    return table


if __name__ == "__main__":
    sys.exit(main())
