"""Times fmbpo's updates beside PWM's own code, in one process and in turns, on a CPU or a GPU.

    python benchmarks/beside_pwm.py --pwm PATH

PATH is a checkout of github.com/imgeorgiev/PWM, which needs hydra-core (pip install hydra-core) but
none of its simulators. Both sides have the same networks, batch and horizon, on random numbers.
The last column is the speed of an update's matrix products alone, one after the other, in the same
shapes and memory: the limit that other operations keep an update from.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.machinery
import io
import json
import os
import statistics
import sys
import tempfile
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import update as ours
from rich.console import Console
from rich.table import Table

from fmbpo.config.schema import CriticConfig, PolicyLearningConfig, PretrainConfig
from fmbpo.errors import UserError
from fmbpo.measure.sizes import dims_of
from fmbpo.runs.summary import versions
from fmbpo.tasks.mt30 import SUITE

DIMS = dims_of(SUITE)

SIZES: dict[str, dict[str, Any]] = {
    size: {**ours.SIZES[size], "task_dim": 96} for size in ("5M", "48M")
}
"""PWM's task embedding is wider than that of fmbpo's sizes."""
PRODUCTS = ("mm", "bmm", "addmm", "baddbmm")
HIDDEN = [400, 200, 100]
"""Widths of PWM's actor, fmbpo's default."""


UNUSED = {
    "gym": "Env",
    "pwm.utils.buffer": "Buffer",
    "tensorboardX": "SummaryWriter",
    "rl_games": "",
}
"""Modules that PWM imports and an update does not use, with the class that it takes from each."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pwm", type=Path, required=True, metavar="PATH")
    parser.add_argument("--size", choices=list(SIZES), default="5M")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--horizon", type=int, default=16)
    parser.add_argument("--cells", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", action="store_true", help="with compiled kernels too")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.world_model, options.policy = ["mlp"], ["mlp"]
    options.precision = "float32"
    ours.SIZES |= SIZES
    load = os.getloadavg()
    try:
        theirs = pwm_jobs(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    jobs = ours.world_model_jobs("mlp", options)
    times: dict[str, list[float]] = {name: [] for name in theirs}
    for call in theirs.values():
        ours.timed(call, options.device)
    for _ in range(options.repeats):
        for name, call in theirs.items():
            times[name].append(ours.timed(call, options.device))
        for job in jobs:
            job.milliseconds.append(ours.timed(job.call, options.device))
    rows = [row(job, statistics.median(times[job.update]), options) for job in jobs]
    medians = {name: statistics.median(found) for name, found in times.items()}
    console = Console()
    console.width = max(console.width, 110)
    console.print(table(rows, medians, options))
    if options.json:
        names = ("size", "batch", "horizon", "device", "repeats")
        content = {
            "settings": {name: getattr(options, name) for name in names},
            "machine": ours.machine(options.device),
            "load_average": load,
            "versions": versions(),
            "pwm_milliseconds": medians,
            "updates": rows,
        }
        options.json.write_text(json.dumps(content, indent=2) + "\n")
    return 0


def row(job: ours.Job, theirs: float, options: argparse.Namespace) -> dict[str, Any]:
    """The results of one update; ``theirs``: PWM's milliseconds for one policy or model."""
    values = job.to_json()
    ratio = theirs * job.cells / job.median
    return {**values, "pwm_over_ours": ratio, "products_gflop_per_second": products(job, options)}


def products(job: ours.Job, options: argparse.Namespace) -> float | None:
    """GFLOP/s of the update's matrix products alone; None for one that is no recorded CPU graph."""
    if job.mode != "graph" or options.device != "cpu":
        return None
    (program,) = job.function.programs.values()
    calls = [c for c in program.replay.calls if name_of(c) in PRODUCTS]

    def all_products() -> None:
        with torch.inference_mode():
            for call in calls:
                call()

    found = [ours.timed(all_products, options.device) for _ in range(options.repeats)]
    return job.gflop / statistics.median(found) * 1000


def name_of(call: Any) -> str:
    """The name of a replay's operation."""
    packet = getattr(call.func, "overloadpacket", None)
    return packet.__name__ if packet else ""


def table(
    rows: list[dict[str, Any]], medians: dict[str, float], options: argparse.Namespace
) -> Table:
    what = ", ".join(f"{name} {ms:,.1f} ms" for name, ms in medians.items())
    found = Table(title=f"size {options.size}, batch {options.batch}; PWM's own: {what}")
    for name in ("update", "cells", "mode"):
        found.add_column(name)
    for name in ("ms/update", "PWM / ours per cell", "GFLOP/s", "products alone, GFLOP/s"):
        found.add_column(name, justify="right")
    for one in rows:
        alone = one["products_gflop_per_second"]
        numbers = one["median_milliseconds"], one["pwm_over_ours"], one["gflop_per_second"]
        texts = [f"{numbers[0]:,.1f}", f"{numbers[1]:.2f}", f"{numbers[2]:.1f}"]
        texts.append("" if alone is None else f"{alone:.1f}")
        found.add_row(one["update"], str(one["cells"]), one["mode"], *texts)
    return found


# -- PWM's side ------------------------------------------------------------------------------


def pwm_jobs(options: argparse.Namespace) -> dict[str, Callable[[], object]]:
    """PWM's policy update in a frozen model, and its world-model step."""
    agent = pwm_agent(options)
    shape, device = (options.horizon, options.batch), options.device
    obs = torch.randn(shape[0] + 1, shape[1], DIMS.obs, device=device)
    act = torch.rand(*shape, DIMS.action, device=device) * 2 - 1
    reward = torch.rand(*shape, 1, device=device)
    task = torch.randint(DIMS.tasks, (options.batch,), device=device)

    def world_model() -> None:
        agent.wm_optimizer.zero_grad()
        found = agent.compute_wm_loss(obs, act, reward, task)
        loss = found[0] if isinstance(found, tuple) else found
        loss.backward()
        torch.nn.utils.clip_grad_norm_(agent.wm.parameters(), PretrainConfig().grad_clip)
        agent.wm_optimizer.step()

    return {
        "policy": lambda: agent.update(obs, act, reward, task, finetune_wm=False),
        "world model": world_model,
    }


def pwm_agent(options: argparse.Namespace) -> Any:
    """PWM's agent with the sizes of ours. Its simulators' and loggers' modules are stood in for,
    and its hydra calls are given classes."""
    source = options.pwm / "src"
    if not (source / "pwm" / "algorithms" / "pwm.py").is_file():
        what = "no checkout of PWM: it has no src/pwm/algorithms/pwm.py"
        remedy = "git clone https://github.com/imgeorgiev/PWM, and give that folder"
        raise UserError(what, where=str(options.pwm), remedy=remedy)
    for name, content in UNUSED.items():
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        if content:
            setattr(module, content, type(content, (), {"__init__": lambda self, *a, **k: None}))
        sys.modules[name] = module
    sys.path.insert(0, str(source))
    try:
        from hydra.utils import get_class
        from hydra.utils import instantiate as by_hydra
        from pwm.algorithms import pwm
        from pwm.models import mlp, model_utils, world_model
    except ImportError as error:
        remedy = "pip install hydra-core"
        raise UserError(f"PWM cannot be imported: {error}", remedy=remedy) from error

    def built(config: Any, **more: Any) -> Any:
        if not isinstance(config, dict) or "_target_" not in config:
            return by_hydra(config, **more)
        given = {k: v for k, v in config.items() if k != "_target_"}
        return get_class(config["_target_"])(**given, **more)

    for module in (pwm, mlp, model_utils, world_model):
        if hasattr(module, "instantiate"):
            module.instantiate = built

    class Attributes(dict[str, Any]):
        __getattr__ = dict.__getitem__

    sizes, learning = SIZES[options.size], PolicyLearningConfig()
    normed = Attributes(last_layer="normedlinear", last_layer_kwargs=Attributes(act=mlp.SimNorm(8)))
    model = Attributes(
        _target_="pwm.models.world_model.WorldModel", units=sizes["units"],
        encoder_units=sizes["encoder_units"], num_bins=101, vmin=-10.0, vmax=10.0,
        task_dim=sizes["task_dim"], multitask=True, action_dims=[DIMS.action] * DIMS.tasks,
        tasks=[str(i) for i in range(DIMS.tasks)], encoder=normed, dynamics=normed,
        reward=Attributes(last_layer="linear", last_layer_kwargs=Attributes()),
    )  # fmt: skip
    actor = {
        "_target_": "pwm.models.actor.ActorStochasticMLP", "units": HIDDEN,
        "activation_class": torch.nn.Mish, "init_gain": 1.0, "init_logstd": -1.0,
        "min_logstd": -1.427,
    }  # fmt: skip
    critic = {
        "_target_": "pwm.models.critic.CriticMLP", "units": CriticConfig().units,
        "activation_class": torch.nn.Mish,
    }  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        return pwm.PWM(
            env=None, actor_config=actor, critic_config=critic, world_model_config=model,
            horizon=options.horizon, max_epochs=15_000, logdir=tempfile.mkdtemp(),
            latent_dim=sizes["latent_dim"], obs_dim=DIMS.obs, act_dim=DIMS.action,
            actor_grad_norm=learning.actor_grad_clip, critic_grad_norm=learning.critic_grad_clip,
            num_critics=CriticConfig().count, actor_lr=5e-4, critic_lr=5e-4, model_lr=3e-4,
            ret_rms=True, critic_iterations=learning.critic_iterations,
            critic_batches=learning.critic_minibatches, wm_grad_norm=20.0, device=options.device,
            detach=True,
        )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
