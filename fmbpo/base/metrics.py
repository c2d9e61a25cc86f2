"""Metrics: their names, their titles, and their record ``metrics.jsonl``.

The record has one JSON object per line. A row of metrics belongs to one cell::

    {"stage": "policies", "step": 100, "task": "cartpole-balance", "seed": 42, "return": 812.5}

with ``"policy": N`` if the replicate with this seed has several, and it is not the first (0), or,
without task and seed, to the whole stage: means over its cells, or measures of a world model
that has no cell. Events are ``{"event": NAME, "payload": {...}}``. NaN and infinities, which JSON
lacks, are the strings ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import attrs

from fmbpo.base.files import CHECK_FILE, DAMAGED
from fmbpo.errors import UserError

Value: TypeAlias = float | int | str
"""A metric. 0-d tensors and numpy scalars also work, but cost a device synchronisation."""

# -- names -----------------------------------------------------------------------------------

HOST = "host/"
"""Prefix of facts about this machine and moment, which the record excludes."""
DIAGNOSTICS_SECONDS = f"{HOST}diagnostics_seconds"
RETURN = "return"
"""Mean return over the episodes of an evaluation."""

# Held-out measures of a world model; ``fmbpo.measure.validation.Validator`` defines them.
SCORE = "score"
REWARD_R2 = "reward_r2"
REWARD_STD = "reward_std"
REAL_REWARD_STD = "real_reward_std"
REWARD_CROSS_ENTROPY = "reward_cross_entropy"
REWARD_ACTION_GRADIENT = "reward_action_gradient"
EFFECTIVE_RANK = "effective_rank"
CURVATURE = "curvature"
SIMPLEX_ERROR = "simplex_error"
# One measure per horizon; see ``at_horizon``.
OBS_ERROR, COPY_ERROR, CONSTANT_ERROR = "obs_error", "copy_error", "constant_error"
REWARD_RMSE, CONSTANT_REWARD_RMSE = "reward_rmse", "constant_reward_rmse"
OBS_CRPS, REWARD_CRPS = "obs_crps", "reward_crps"

# Metrics of updates. The loss of every plugin reports the first, that of a policy also ``RETURN``,
# that of a world model the next two; policy learning adds the others.
LOSS = "loss"
CONSISTENCY, REWARD_LOSS = "consistency", "reward_loss"
CONTINUATION_LOSS = "continuation_loss"
GRAD_NORM = "grad_norm"
REWARD = "reward"
# Diagnostics of policy learning; ``fmbpo.pwm.diagnostics.diagnose`` defines them.
ESNR, GROWTH = "esnr", "growth"
ACTION_NOISE = "action_noise"
"""The actions' standard deviation over the policy's noise (``fmbpo.pwm.acting``)."""


def imagined_mean(quantity: str) -> str:
    """The mean of a quantity over imagined steps."""
    return f"imagined_{quantity}"


def of_actor(metric: str) -> str:
    """A metric of the actor's update."""
    return f"actor_{metric}"


def of_critic(metric: str) -> str:
    """A metric of the critics' update."""
    return f"critic_{metric}"


def grad_norm_of(part: str) -> str:
    """The norm of the actor's gradient with respect to a top-level part of the policy."""
    return f"{GRAD_NORM}/{part}"


def jacobian(source: str, target: str) -> str:
    """The size of the Jacobian of one imagined step."""
    return f"jacobian/{source}_to_{target}"


def held_out(measure: str) -> str:
    """The metric of a held-out measure."""
    return f"held_out/{measure}"


def of_model(metric: str) -> str:
    """A metric of the update of a world model that learns beside a policy."""
    return f"model_{metric}"


def before(measure: str) -> str:
    """A held-out measure of a world model before it learned beside a policy."""
    return f"before_{measure}"


def after(measure: str) -> str:
    """The same measure after it learned."""
    return f"after_{measure}"


def at_horizon(measure: str, steps: int) -> str:
    """A measure this number of steps ahead."""
    return f"{measure}_h{steps}"


def by_horizon(measures: Mapping[str, Any], measure: str) -> dict[int, float]:
    """A measure by horizon, the inverse of ``at_horizon``; empty if there are none."""
    found = ((re.fullmatch(rf"{measure}_h(\d+)", name), value) for name, value in measures.items())
    return {int(match[1]): float(value) for match, value in found if match}


# -- for display ----------------------------------------------------------------------------

SHOWN = (
    RETURN,
    of_actor(RETURN),
    imagined_mean(REWARD),
    of_critic(LOSS),
    ESNR,
    DIAGNOSTICS_SECONDS,
    held_out(SCORE),
    held_out(REWARD_R2),
    LOSS,
    CONSISTENCY,
    REWARD_LOSS,
)
"""The metrics that the display shows, if a stage has them."""
TITLES = {
    RETURN: "return",
    REWARD_R2: "held-out reward R²",
    REWARD_STD: "spread of the decoded reward",
    REAL_REWARD_STD: "spread of the real reward",
    SCORE: "held-out score (lower is better)",
}
"""Measures in tables and pictures."""
GRADIENTS = {
    ESNR: "signal-to-noise ratio (ESNR)",
    jacobian("latent", "latent"): "next latent by latent",
    jacobian("action", "latent"): "next latent by action",
    jacobian("latent", "action"): "action by latent",
}
"""Measures of the actor's gradients in reports."""
POLICY_PANELS = {TITLES[RETURN]: RETURN} | {
    TITLES[measure]: held_out(measure) for measure in (REWARD_R2, REWARD_STD)
}
"""Titles and metrics of the panels in a policy study's picture, which omits empty panels."""
PRETRAINING_PANELS = {
    TITLES[measure]: held_out(measure) for measure in (SCORE, REWARD_R2, REWARD_STD)
}
"""The same for a study of world models."""
REAL = {held_out(REWARD_STD): held_out(REAL_REWARD_STD)}
"""The metric of the real quantity, by the metric of its prediction; equal in all cells."""


# -- rows and their written form -------------------------------------------------------------


@attrs.frozen
class Row:
    """Metrics by name, of one cell, or of the whole stage if there is no task."""

    values: Mapping[str, Any]
    task: str = ""
    seed: int | None = None
    policy: int = 0

    def full_name(self, name: str) -> str:
        """``TASK/SEED/NAME`` of a cell's metric, ``NAME`` of the stage's."""
        return f"{self.task}/{seed_label(self.seed, self.policy)}/{name}" if self.task else name


def seed_label(seed: object, policy: int) -> str:
    """A policy's seed in tables: ``42``, and ``42.1``, ``42.2`` for further ones of a replicate."""
    return f"{seed}.{policy}" if policy else str(seed)


def replicate_of(label: str) -> str:
    """The seed of the replicate that a policy's ``seed_label`` names."""
    return label.partition(".")[0]


FIELDS = frozenset({"stage", "step", "task", "seed", "policy", "event", "payload"})
"""Other fields of a line of the record, whose names no metric may have."""


def row_line(stage: str, step: int, row: Row) -> bytes:
    """A row as a line of the record; empty if all its metrics are about the machine.

    Raises ``ValueError`` for a metric that has the name of another field.
    """
    kept = {name: value for name, value in row.values.items() if not name.startswith(HOST)}
    clash = FIELDS & kept.keys()
    if clash:
        raise ValueError(f"metrics may not be called {sorted(clash)}")
    cell: dict[str, Any] = {"task": row.task, "seed": row.seed} if row.task else {}
    cell |= {"policy": row.policy} if row.policy else {}
    return _line({"stage": stage, "step": step, **cell, **kept}) if kept else b""


def event_line(name: str, payload: Mapping[str, Any]) -> bytes:
    """An event as a line of the record; empty if it is about the machine."""
    return b"" if name.startswith(HOST) else _line({"event": name, "payload": payload})


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """The rows and events of a record, without a last line that a kill cut off.

    Raises ``UserError`` that names the line if another line is damaged.
    """
    numbers = {text: float(text) for text in ("NaN", "Infinity", "-Infinity")}
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        what = f"cannot be read ({error.strerror})"
        raise UserError(what, where=str(path), remedy=CHECK_FILE) from error
    for number, line in enumerate(lines[:-1], 1):
        try:
            entry = json.loads(line)
        except ValueError as error:
            where = f"{path}:{number}"
            raise UserError("not a line of JSON", where=where, remedy=DAMAGED) from error
        if not isinstance(entry, dict):
            raise UserError("not a JSON object", where=f"{path}:{number}", remedy=DAMAGED)
        yield from _rows(
            {k: numbers.get(v, v) if isinstance(v, str) else v for k, v in entry.items()}
        )


CellSeries: TypeAlias = dict[str, dict[str, list[tuple[int, float]]]]
"""A metric over the iterations, by task and seed; both are empty for a stage's own."""


def cell_series(record: Path, metric: str) -> CellSeries:
    """A metric in a record's file; see ``all_series``."""
    return all_series(record, [metric])[metric]


def all_series(record: Path, metrics: Iterable[str]) -> dict[str, CellSeries]:
    """Metrics in a record's file, by name; empty for one that is not there.

    Raises ``UserError`` as ``read_metrics``, and for a point that is no number.
    """
    found: dict[str, CellSeries] = {metric: {} for metric in metrics}
    for row in read_metrics(record):
        for metric in found.keys() & row.keys():
            series = found[metric].setdefault(row.get("task", ""), {})
            point: tuple[Any, Any] = row.get("step"), row[metric]
            if not all(map(_is_number, point)):
                what = f"{metric} has a point that is no number"
                raise UserError(what, where=str(record), remedy=DAMAGED)
            seed = seed_label(row.get("seed", ""), row.get("policy", 0))
            series.setdefault(seed, []).append(point)
    return found


def _is_number(value: object) -> bool:
    """Whether it is a float, or an integer that fits one."""
    return type(value) is float or (type(value) is int and abs(value) < 2**63)


def _line(content: Mapping[str, Any]) -> bytes:
    return json.dumps(_strict(content)).encode() + b"\n"


def _strict(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {key: _strict(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(inner) for inner in value]
    return value


def _rows(entry: dict[str, Any]) -> Iterator[dict[str, Any]]:
    # Records of version 0.1.0 have one row for all cells, with names TASK/SEED/NAME.
    cells: dict[tuple[str, str], dict[str, Any]] = {}
    for key in list(entry):
        if found := re.fullmatch(r"([^/]+)/(\d+)/(.+)", key):
            task, seed, name = found.groups()
            cells.setdefault((task, seed), {})[name] = entry.pop(key)
    yield entry
    for (task, seed), values in cells.items():
        head = {"stage": entry["stage"], "step": entry["step"], "task": task, "seed": int(seed)}
        yield {**head, **values}
