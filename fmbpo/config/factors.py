"""The differences between experiments, declared and undeclared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from fmbpo.config.identity import leaves, resolved
from fmbpo.config.schema import Experiment
from fmbpo.errors import UserError, did_you_mean

Factor: TypeAlias = Literal["world_model", "policy"]
FACTORS: tuple[Factor, Factor] = ("world_model", "policy")
"""The study's factors: the plugin or level, and settings that the other plugin lacks."""
_NAMES = ("name", "description", "aliases", "protocol.world_model")
"""Keys that name or describe an experiment."""
_ABSENT = object()


def differences(
    experiments: Sequence[Experiment], factors: Sequence[str] = FACTORS, where: str = "--factor"
) -> tuple[list[str], list[str]]:
    """Declared and undeclared differences, one line per key: ``key: value | value``.

    The factors ``world_model`` and ``policy`` declare that the plugin may differ, and settings that
    some of the plugins lack, but not settings that they share. Any other factor is a key,
    ``table.key``, whose value may differ. Raises ``UserError``, with the place ``where``, for a
    factor that no experiment has.
    """
    found: list[dict[str, Any]] = [dict(leaves(resolved(e))) for e in experiments]
    keys = list(dict.fromkeys(key for values in found for key in values))
    for factor in factors:
        if factor not in FACTORS and factor not in keys:
            what = f"no experiment has a key {factor!r}"
            remedy = did_you_mean(factor, [*FACTORS, *keys])
            raise UserError(what, where=f"{where} {factor}", remedy=remedy)
    declared: list[str] = []
    undeclared: list[str] = []
    for key in keys:
        values = [values.get(key, _ABSENT) for values in found]
        if key in _NAMES or all(value == values[0] for value in values):
            continue
        table, _, setting = key.partition(".")
        own = table in factors and (setting in ("plugin", "level") or _ABSENT in values)
        shown = ["–" if value is _ABSENT else json.dumps(value) for value in values]
        (declared if own or key in factors else undeclared).append(f"{key}: {' | '.join(shown)}")
    return declared, undeclared
