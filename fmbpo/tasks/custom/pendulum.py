"""Pendulum: spin, in either direction (TD-MPC2). All but the reward is stock."""

from __future__ import annotations

from dm_control.suite import pendulum

from fmbpo.tasks.custom.shaping import linear

_SPEED = 9.0  # radians per second


class Spin(pendulum.SwingUp):  # type: ignore[misc]
    """Turning at 9 rad/s or faster: L(9 - |w|; 4.5, 0.5)."""

    def get_reward(self, physics: pendulum.Physics) -> float:
        """Reward of one control step, in [0, 1]."""
        return linear(_SPEED - abs(physics.angular_velocity().item()), _SPEED / 2, 0.5)
