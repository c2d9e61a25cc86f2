"""Hopper: hop backwards (TD-MPC2). Model, initial states and observations are stock."""

from __future__ import annotations

from dm_control.suite import hopper

from fmbpo.tasks.custom.shaping import linear

_STAND_HEIGHTS = (0.6, 2.0)  # metres, torso over foot
_HOP_SPEED = 1.0  # metres per second


class HopBackwards(hopper.Hopper):  # type: ignore[misc]
    """Upright (torso 0.6 m to 2 m over the foot, else 0) times L(vx + 1; 0.5, 0.5)."""

    def __init__(self, random: int) -> None:
        super().__init__(hopping=True, random=random)

    def get_reward(self, physics: hopper.Physics) -> float:
        """Reward of one control step, in [0, 1]."""
        low, high = _STAND_HEIGHTS
        if not low <= physics.height() <= high:
            return 0.0
        return linear(float(physics.speed()) + _HOP_SPEED, _HOP_SPEED / 2, 0.5)
