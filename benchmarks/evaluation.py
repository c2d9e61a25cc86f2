"""Times evaluation: 10 episodes of each of the 30 tasks, and its share of a training run.

    python benchmarks/evaluation.py --json benchmarks/results/evaluation.json

Random actions and policies of laptop size, with 0, 1, 2, ... worker processes; then one update of
an experiment at the scale ``laptop``. All measurements take turns, so that a busy machine
slows all alike; medians are reported. The share of evaluation in a run at the scale ``laptop``
follows from its numbers of updates and episodes. Updates at the scale ``paper`` need a GPU: it
prints the time per update of a policy at which evaluation is a tenth of policy learning.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from update import SIZES, machine, plugin_table

from fmbpo.config import load_experiment
from fmbpo.config.schema import CriticConfig
from fmbpo.measure.evaluation import Evaluator
from fmbpo.plugins import load_plugin
from fmbpo.pwm.acting import Actors
from fmbpo.pwm.pair import Pair
from fmbpo.runs.summary import versions
from fmbpo.tasks.mt30 import MT30, SUITE
from fmbpo.tasks.vector import Act, EpisodeRunner
from fmbpo.training.cells import Cell, grid_tasks
from fmbpo.training.context import Context
from fmbpo.training.dataset import load_dataset
from fmbpo.training.networks import CellNetworks, build_world_model
from fmbpo.training.policies import PolicyTraining
from fmbpo.training.trees import own_params, stack

CPU = torch.device("cpu")
EXPERIMENT = Path(__file__).parent.parent / "experiments/phase8_mlpwm_mlppolicy.toml"


@attrs.define
class Timing:
    """One measurement: seconds, a number per turn."""

    what: str
    workers: int | None
    call: Callable[[], Any]
    seconds: list[float] = attrs.field(factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write the JSON if asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=list(MT30), metavar="TASK")
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--world-model", default="mlp", metavar="PLUGIN")
    parser.add_argument("--policy", default="mlp", metavar="PLUGIN")
    parser.add_argument("--size", choices=list(SIZES), default="laptop")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(argv)
    load = os.getloadavg()
    acts = {"random actions": random_act, "policies": trained_act(options)}
    runners = [EpisodeRunner(workers, SUITE) for workers in options.workers]
    timings = [
        Timing(what, workers, evaluation(runner, act, options))
        for what, act in acts.items()
        for workers, runner in zip(options.workers, runners, strict=True)
    ]
    stage = laptop_stage()

    def update() -> Any:
        return stage.step(1)

    timings.append(Timing(f"an update of {len(stage.cells)} policies", None, update))
    for runner in runners:  # starts the workers and builds the environments
        Evaluator(runner, 0).run(random_act, options.tasks, options.episodes, 1)
    update()
    for turn in range(options.repeats):
        for timing in timings:
            began = time.perf_counter()
            timing.call()
            timing.seconds.append(time.perf_counter() - began)
        print(f"turn {turn + 1} of {options.repeats}", file=sys.stderr)
    for runner in runners:
        runner.close()
    shares = [share(scale, timings, len(stage.cells), options) for scale in ("laptop", "paper")]
    print_tables(timings, shares, options)
    if options.json:
        names = ("tasks", "episodes", "steps", "world_model", "policy", "size", "repeats")
        content = {
            "settings": {name: getattr(options, name) for name in names},
            "machine": machine("cpu"),
            "load_average": load,
            "versions": versions(),
            "timings": [
                {"what": t.what, "workers": t.workers, "seconds": t.seconds, "median": t.median}
                for t in timings
            ],
            "shares": shares,
        }
        options.json.write_text(json.dumps(content, indent=2) + "\n")
    return 0


def random_act(obs: Any, _: int) -> Any:
    """Random actions, to time an evaluation without any network."""
    return np.random.default_rng(0).uniform(-1, 1, (*obs.shape[:2], SUITE.action_width))


def trained_act(options: argparse.Namespace) -> Act:
    """A policy per task, stacked, as training evaluates them; their weights do not matter."""
    models = load_plugin("world_model", options.world_model)
    policies = load_plugin("policy", options.policy)
    model = build_world_model(plugin_table(models, SIZES[options.size]), SUITE, 0, CPU)
    models.freeze(model)
    networks = CellNetworks(plugin_table(policies, {}), CriticConfig(), model, SUITE, CPU)
    modules = [networks.policy(Cell(task, 0)) for task in options.tasks]
    policies.freeze(modules[0])
    index_T = torch.tensor([MT30[task].index for task in options.tasks])
    mask_TA = torch.ones(len(options.tasks), SUITE.action_width)
    params = stack([own_params(module) for module in modules])
    pair = Pair(model, models, modules[0], policies)
    return Actors(pair, params, {}, index_T, mask_TA).deterministic()


def evaluation(runner: EpisodeRunner, act: Act, options: argparse.Namespace) -> Callable[[], Any]:
    """The whole evaluation, as training calls it."""
    evaluator = Evaluator(runner, 0)
    return lambda: evaluator.run(act, options.tasks, options.episodes, options.steps)


def laptop_stage() -> PolicyTraining:
    """The policies of the experiment at the scale ``laptop``, before training."""
    e = experiment("laptop")
    data = load_dataset(e.data, CPU)
    model = build_world_model(e.world_model, SUITE, 0, CPU)
    e.world_model.component.freeze(model)
    cells = [Cell(task, seed) for task in grid_tasks(e, data) for seed in e.grid.seeds]
    evaluator = Evaluator(EpisodeRunner(0, SUITE), 0)
    return PolicyTraining("policies", cells, Context(e, data, CPU), model, evaluator)


def experiment(scale: str) -> Any:
    return load_experiment(EXPERIMENT, scale=scale, data="embedded")


def share(
    scale: str, timings: Sequence[Timing], policies: int, options: argparse.Namespace
) -> dict[str, Any]:
    """Evaluation's share of training at a scale, for one policy, by the fastest number of workers;
    ``policies``: those that the timed update trains."""
    e = experiment(scale)
    learning = e.policy_learning
    evaluated = min(t.median for t in timings if t.what == "policies")
    an_episode = evaluated / options.episodes / len(options.tasks) * (500 / options.steps)
    during = (learning.iterations // learning.evaluate_every + 1) * e.evaluation.episodes
    seconds = during * an_episode
    found = {
        "scale": scale,
        "updates": learning.iterations,
        "updates_between_evaluations": learning.evaluate_every,
        "episodes_during_training": during,
        "seconds_an_episode": an_episode,
        "milliseconds_an_update_for_a_tenth": 1000 * 9 * seconds / learning.iterations,
    }
    if scale == "laptop":  # the scale of the timed update
        an_update = timings[-1].median / policies
        found["milliseconds_an_update"] = 1000 * an_update
        found["share"] = seconds / (seconds + learning.iterations * an_update)
    return found


def print_tables(
    timings: Sequence[Timing], shares: Sequence[dict[str, Any]], options: argparse.Namespace
) -> None:
    title = f"{options.episodes} episodes x {len(options.tasks)} tasks x {options.steps} steps"
    table = Table("what", "workers", "seconds", "steps per second", title=title)
    count = options.episodes * len(options.tasks) * options.steps
    for t in timings:
        rate = "" if t.workers is None else f"{count / t.median:,.0f}"
        table.add_row(t.what, str(t.workers or 0) if rate else "", f"{t.median:.3g}", rate)
    Console().print(table)
    for each in shares:
        tenth = each["milliseconds_an_update_for_a_tenth"]
        text = f"a tenth of policy learning if an update of a policy takes {tenth:.3g} ms"
        if "share" in each:
            text += f"; {each['share']:.1%} with the {each['milliseconds_an_update']:.3g} ms above"
        print(f"scale {each['scale']}: evaluation is {text}")


if __name__ == "__main__":
    sys.exit(main())
