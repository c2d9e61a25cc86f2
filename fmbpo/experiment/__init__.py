"""Experiment files: TOML with ``extends``, scales and overrides, to one checked ``Experiment``."""

from __future__ import annotations

from fmbpo.experiment.identity import config_hash, from_resolved, identifying, origins, resolved
from fmbpo.experiment.load import load_experiment
from fmbpo.experiment.protocols import Finetuned, Frozen, Protocol, Scratch
from fmbpo.experiment.schema import (
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
