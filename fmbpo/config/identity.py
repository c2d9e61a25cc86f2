"""An experiment as plain values, and the hash that identifies its results."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from fmbpo.base.structure import plain
from fmbpo.config.load import structured
from fmbpo.config.schema import Experiment, PluginTable

_PRETRAIN = ("scale", "tasks", "data", "world_model", "pretrain", "system")
_NOT_RESULTS = (
    "name",
    "phase",
    "description",
    "aliases",
    "scale_reason",
    "distributions",  # beside "versions", in newer runs
    "data_id",  # the hash in a run's name covers it separately
    "data.path",  # ``data_identity`` identifies the data
    "pretrain.log_every",
    "pretrain.checkpoint_every",
    "policy_learning.log_every",
    "policy_learning.checkpoint_every",
    "policy_learning.diagnose_every",
    "evaluation.workers",
    "evaluation.planner",  # its returns are added to a finished run
    "planning",
    "wandb",
    "system.device",
    "system.graph",  # replayed updates are equal to the bit
    "system.threads",
    "world_model.level",
    "policy.level",
)
"""Keys that change no result: names, write intervals, and settings of the machine."""
_UNSAID: dict[str, tuple[object, ...]] = {
    "data.weights": (None, {}, "auto"),
    # Both memories give the same batches; the disk gives them in another order.
    "data.residence": (None, "auto", "device", "host"),
    "system.compile": (False, "auto", "off"),
    "system.precision": (None, "auto", "float32"),
    # Without them, models had these values.
    "world_model.continuation_coef": (None, 0.0),
    "world_model.reward_bound": (None, 10.0),
}
"""Values that change no result."""


def resolved(experiment: Experiment) -> dict[str, Any]:
    """The experiment as JSON values, with defaults and without the tables that it does not use.

    A factor's level is left out if it is the plugin's name, and so is an empty table of tasks.
    """
    result: dict[str, Any] = {}
    for key in (field.name for field in attrs.fields(Experiment)):
        value = getattr(experiment, key)
        if isinstance(value, PluginTable):
            level = {} if value.level == value.plugin else {"level": value.level}
            result[key] = {"plugin": value.plugin, **level, **plain(value.config)}
        elif value is not None and key != "origin" and (value or key != "tasks"):
            result[key] = plain(value)
    return result


def from_resolved(values: Mapping[str, Any]) -> Experiment:
    """The inverse of ``resolved``. Raises ``UserErrors`` for values that do not fit the installed
    plugins; the data set need not exist."""
    return structured({**values, "origin": {}}, Experiment, {}, "resolved configuration")


def origins(experiment: Experiment) -> dict[str, str]:
    """The origin of each value of ``resolved``, by key path: a file, ``scale NAME (file)``,
    ``override``, ``--data``, the environment, or ``default``."""
    values = leaves(resolved(experiment))
    return {path: experiment.origin.get(path, "default") for path, _ in values}


def pretraining(experiment: Experiment, seed: int) -> dict[str, Any]:
    """The part of ``resolved`` that identifies the world model of the replicate ``seed``.

    A pretraining experiment and every policy experiment with the same tables share it.
    """
    values = resolved(experiment)
    tables = {key: values[key] for key in _PRETRAIN if key in values}
    return {**tables, "pretrain": {"seed": seed, **tables["pretrain"]}}


def config_hash(
    experiment: Experiment, model: int | None = None, *, data_identity: str = ""
) -> str:
    """Twelve hexadecimal digits of the SHA-256 of the values that identify the results.

    ``model``: the seed of a replicate, for the hash of its ``pretraining`` alone. ``data_identity``
    is the data store's id; the path to it does not count.
    """
    values = resolved(experiment) if model is None else pretraining(experiment, model)
    part = "all" if model is None else "pretrain"
    content = {
        "part": part,
        "data_identity": data_identity,
        "values": canonical(identifying(values)),
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def identifying(values: Mapping[str, Any]) -> dict[str, Any]:
    """The part of ``resolved`` that identifies results; a continued run may change the rest."""
    kept: dict[str, Any] = copy.deepcopy(dict(values))
    none = [path for path, unsaid in _UNSAID.items() if _at(kept, path) in unsaid]
    for path in (*_NOT_RESULTS, *none):
        *tables, key = path.split(".")
        node = kept
        for name in tables:
            node = node.get(name, {})
        node.pop(key, None)
    return kept


def _at(values: Mapping[str, Any], path: str) -> Any:
    table, key = path.split(".")
    return values.get(table, {}).get(key)


def canonical(value: Any) -> Any:
    """20.0 as 20, so that an integer and an equal float have the same hash."""
    if isinstance(value, Mapping):
        return {key: canonical(item) for key, item in value.items()}
    if isinstance(value, list):
        return [canonical(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def leaves(table: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of nested tables with its key path."""
    for key, value in table.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{at}{key}.")
        else:
            yield f"{at}{key}", value
