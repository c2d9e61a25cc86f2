"""The two functions that the rewards consist of, on plain floats."""

from __future__ import annotations

import math

_LOG_AT_MARGIN = math.log(0.1)


def gaussian(distance: float, margin: float) -> float:
    """1 where ``distance`` <= 0, falling as a Gaussian to 0.1 at ``margin``."""
    if distance <= 0.0:
        return 1.0
    return math.exp(_LOG_AT_MARGIN * (distance / margin) ** 2)


def linear(distance: float, margin: float, at_margin: float) -> float:
    """1 where ``distance`` <= 0, falling in a line to ``at_margin`` at ``margin``, never < 0."""
    if distance <= 0.0:
        return 1.0
    return max(0.0, 1.0 - (1.0 - at_margin) * distance / margin)
