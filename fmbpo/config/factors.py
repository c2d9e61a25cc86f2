"""The differences between experiments, declared and undeclared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from fmbpo.config.identity import leaves, resolved
from fmbpo.config.schema import Experiment
from fmbpo.errors import UserError, did_you_mean

FACTORS = ("world_model", "policy")
"""The study's own: the plugin, and with it the settings that the other plugin does not have."""
_NAMES = ("name", "description", "aliases", "protocol.world_model")
"""Keys that name an experiment and do not change it."""
_ABSENT = object()


def differences(
    experiments: Sequence[Experiment], factors: Sequence[str] = FACTORS, where: str = "--factor"
) -> tuple[list[str], list[str]]:
    """Declared and undeclared differences, one line per key: ``key: value | value``.

    A factor is a plugin's table, ``world_model`` or ``policy``: the plugin may differ, and the
    settings that not all of the plugins have; a setting that they share may not. Any other factor
    is a key, ``table.key``, whose value may differ. Raises ``UserError`` for a factor that no
    experiment has; ``where`` says where the factors were named.
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
        own = table in factors and (setting == "plugin" or _ABSENT in values)
        shown = ["–" if value is _ABSENT else json.dumps(value) for value in values]
        (declared if own or key in factors else undeclared).append(f"{key}: {' | '.join(shown)}")
    return declared, undeclared
