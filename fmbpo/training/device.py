"""The device that trains, and its name."""

from __future__ import annotations

import platform
import re
from pathlib import Path

import torch

from fmbpo.base.cores import usable_cores
from fmbpo.base.text import counted
from fmbpo.errors import UserError


def resolve_device(name: str) -> torch.device:
    """``"auto"`` is the GPU if there is one. ``UserError`` for a device that cannot be used."""
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
