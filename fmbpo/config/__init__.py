"""Experiment files: TOML with ``extends``, scales and overrides, to one checked ``Experiment``."""

from __future__ import annotations

from fmbpo.config.identity import config_hash, from_resolved, identifying, origins, resolved
from fmbpo.config.load import load_experiment
from fmbpo.config.protocols import Finetuned, Frozen, Protocol, Scratch
from fmbpo.config.schema import (
    CriticConfig,
    DataConfig,
    EvaluationConfig,
    Experiment,
    GridConfig,
    PluginTable,
    PolicyLearningConfig,
    PretrainConfig,
    SystemConfig,
    WandbConfig,
)

__all__ = [
    "CriticConfig",
    "DataConfig",
    "EvaluationConfig",
    "Experiment",
    "Finetuned",
    "Frozen",
    "GridConfig",
    "PluginTable",
    "PolicyLearningConfig",
    "PretrainConfig",
    "Protocol",
    "Scratch",
    "SystemConfig",
    "WandbConfig",
    "config_hash",
    "from_resolved",
    "identifying",
    "load_experiment",
    "origins",
    "resolved",
]
