"""Experiment files: TOML with ``extends``, scales and overrides, to one checked ``Experiment``."""

from __future__ import annotations

from fmbpo.config.identity import (
    config_hash,
    from_resolved,
    identifying,
    origins,
    pretraining,
    resolved,
)
from fmbpo.config.load import load_experiment
from fmbpo.config.protocols import Finetuned, Frozen, Scratch

__all__ = [
    "Finetuned",
    "Frozen",
    "Scratch",
    "config_hash",
    "from_resolved",
    "identifying",
    "load_experiment",
    "origins",
    "pretraining",
    "resolved",
]
