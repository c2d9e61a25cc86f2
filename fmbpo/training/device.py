"""The device that trains, and its name."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

import torch

from fmbpo.base.cores import usable_cores
from fmbpo.base.text import counted
from fmbpo.errors import UserError


def resolve_device(name: str) -> torch.device:
    """``"auto"`` is the GPU if there is one; of several processes that torchrun started, each has a
    GPU of its own. ``UserError`` for a device that cannot be used."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if name.startswith("cuda") and processes > 1:
        name = _own_gpu(name, processes)
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


def _own_gpu(name: str, processes: int) -> str:
    """The GPU of this process, one of several on this machine."""
    gpus = torch.cuda.device_count()
    if name != "cuda" or processes > gpus:
        what = f"{processes} processes cannot share {name}"
        if name == "cuda":
            what = f"{processes} processes need a GPU each, and this machine has {gpus}"
        remedy = 'use "auto" and at most one process per GPU, or "cpu"'
        raise UserError(what, where="system.device", remedy=remedy)
    own = f"cuda:{os.environ['LOCAL_RANK']}"
    torch.cuda.set_device(own)
    return own


def hardware(device: torch.device) -> str:
    """The name of the GPU, or the processor's model and the number of usable cores."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    model = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    name = model[1].strip() if model else platform.processor() or platform.machine()
    cores = usable_cores()
    return f"{name}, {counted(cores, 'core')}"
