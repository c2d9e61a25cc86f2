"""What an experiment comes to on this machine and data: its device, its tasks, its runs' names."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import torch

from fmbpo.engine.dataset import Dataset
from fmbpo.errors import UserError
from fmbpo.experiment import Finetuned, Frozen, config_hash
from fmbpo.experiment.schema import Experiment
from fmbpo.runs.folder import run_name

T = TypeVar("T")


def pretraining_name(experiment: Experiment) -> str:
    """Name of the pretraining experiment."""
    protocol = experiment.protocol
    if isinstance(protocol, Frozen | Finetuned) and protocol.world_model:
        return protocol.world_model
    return experiment.name


def needs_pretraining(experiment: Experiment) -> bool:
    """Whether it takes the world model from a pretraining run, or is one."""
    protocol = experiment.protocol
    pretrained = isinstance(protocol, Frozen | Finetuned) and not protocol.checkpoint
    return pretrained or experiment.policy is None


def run_names(experiment: Experiment, data_identity: str) -> tuple[str, str]:
    """Folder names of the world model's run and of the policies' run (empty where there is none).

    ``UserError`` for a name that a folder cannot have.
    """
    e = experiment
    digest = config_hash(e, "pretrain", data_identity=data_identity)
    pretraining = _folder_name(pretraining_name(e), e.world_model.plugin, [e.pretrain.seed], digest)
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


def stages(cells: Sequence[T], stack: int) -> dict[str, Sequence[T]]:
    """The cells of each training stage by its name; at most ``stack`` are trained at once, 0: all.

    A stage's checkpoint has its name, with a hyphen for the slash.
    """
    size = stack or len(cells)
    groups = [cells[i : i + size] for i in range(0, len(cells), size)]
    return {f"policies/{i}" if groups[1:] else "policies": g for i, g in enumerate(groups)}


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


def hardware(device: torch.device) -> str:
    """The device's name: that of the GPU, or the processor's model and the cores we may use."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    model = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    name = model[1].strip() if model else platform.processor() or platform.machine()
    cores = len(os.sched_getaffinity(0))
    return f"{name}, {cores} core{'s' if cores > 1 else ''}"
