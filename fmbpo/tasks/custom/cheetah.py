"""Cheetah: run backwards, on one foot, and jump (TD-MPC2). All but the reward is stock.

Heights are those of body frames: a foot's is that of its joint, not of its lowest point.
"""

from __future__ import annotations

from dm_control.suite import cheetah

from fmbpo.tasks.custom.shaping import gaussian, linear

_BACK_SPEED = 8.0  # metres per second
_ONE_FOOT_SPEED = 6.0
_JUMP_SPEED = 0.5  # the most at which a jump is still on the spot
_HEIGHT = 1.2  # metres


def _high(height: float) -> float:
    return gaussian(_HEIGHT - height, _HEIGHT / 2)


def _z(physics: cheetah.Physics, body: str) -> float:
    return float(physics.named.data.xpos[body, "z"])


class RunBackwards(cheetah.Cheetah):  # type: ignore[misc]
    """Moving at -8 m/s or faster: L(vx + 8; 8, 0)."""

    def get_reward(self, physics: cheetah.Physics) -> float:
        """Reward of one control step, in [0, 1]."""
        return linear(float(physics.speed()) + _BACK_SPEED, _BACK_SPEED, 0.0)


class RunOnOneFoot(cheetah.Cheetah):  # type: ignore[misc]
    """Moving forward at 6 m/s or faster with torso and the named foot at 1.2 m or more.

    up = (3 G(1.2 - z_foot; 0.6) + 2 G(1.2 - z_torso; 0.6)) / 5;
    reward = up (5 L(6 - vx; 6, 0) + 1) / 6.
    """

    def __init__(self, raised_foot: str, random: int) -> None:
        super().__init__(random=random)
        self._raised_foot = raised_foot

    def get_reward(self, physics: cheetah.Physics) -> float:
        """Reward of one control step, in [0, 1]."""
        up = (3 * _high(_z(physics, self._raised_foot)) + 2 * _high(_z(physics, "torso"))) / 5
        fast = linear(_ONE_FOOT_SPEED - float(physics.speed()), _ONE_FOOT_SPEED, 0.0)
        return up * (5 * fast + 1) / 6


class Jump(cheetah.Cheetah):  # type: ignore[misc]
    """In the air on the spot: the mean over both feet of (5 G(1.2 - z; 0.6) + s) / 6.

    z is the mean height of the torso and the foot, s = L(|vx| - 0.5; 0.5, 0).
    """

    def get_reward(self, physics: cheetah.Physics) -> float:
        """Reward of one control step, in [0, 1]."""
        torso = _z(physics, "torso")
        still = linear(abs(float(physics.speed())) - _JUMP_SPEED, _JUMP_SPEED, 0.0)
        hind = (5 * _high((torso + _z(physics, "bfoot")) / 2) + still) / 6
        front = (5 * _high((torso + _z(physics, "ffoot")) / 2) + still) / 6
        return (hind + front) / 2
