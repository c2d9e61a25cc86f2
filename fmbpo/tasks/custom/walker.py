"""Walker: walk and run backwards (TD-MPC2). Model, initial states and observations are stock."""

from __future__ import annotations

from dm_control.suite import walker

from fmbpo.tasks.custom.shaping import gaussian, linear

_STAND_HEIGHT = 1.2  # metres, of the torso


class Backwards(walker.PlanarWalker):  # type: ignore[misc]
    """Upright and moving at ``-speed`` (m/s) or faster.

    stand = (3 G(1.2 - h; 0.6) + (1 + u) / 2) / 4, h and u the torso's height and uprightness;
    move = L(vx + speed; speed / 2, 0.5); reward = stand (5 move + 1) / 6.
    """

    def __init__(self, speed: float, random: int) -> None:
        super().__init__(move_speed=-speed, random=random)
        self._speed = speed

    def get_reward(self, physics: walker.Physics) -> float:
        """Reward of one control step, in [0, 1]."""
        tall = gaussian(_STAND_HEIGHT - float(physics.torso_height()), _STAND_HEIGHT / 2)
        stand = (3 * tall + (1 + float(physics.torso_upright())) / 2) / 4
        too_slow = float(physics.horizontal_velocity()) + self._speed
        return stand * (5 * linear(too_slow, self._speed / 2, 0.5) + 1) / 6
