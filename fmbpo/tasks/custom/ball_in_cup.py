"""Ball in cup: spin the ball around the cup (TD-MPC2). Model and observations are stock."""

from __future__ import annotations

import math

from dm_control.suite import ball_in_cup

from fmbpo.tasks.custom.shaping import linear

_ANYWHERE = 0.1  # probability that an episode may start outside the cup
_DISTANCE = 0.5  # metres
_SPEED = 6.0  # metres per second


class Spin(ball_in_cup.BallInCup):  # type: ignore[misc]
    """The ball outside the cup, far from it and fast.

    reward = (L(0.5 - d; 0.25, 0.5) + 2 L(6 - w; 3, 0.5)) / 3 outside the cup and 0 inside,
    d the distance of ball and cup, w the ball's speed in the world.
    """

    def initialize_episode(self, physics: ball_in_cup.Physics) -> None:
        """Place the ball free of contact: inside the cup, but in 10 % of the episodes anywhere."""
        anywhere = self.random.uniform() < _ANYWHERE
        while True:
            physics.named.data.qpos["ball_x"] = self.random.uniform(-0.2, 0.2)
            physics.named.data.qpos["ball_z"] = self.random.uniform(0.2, 0.5)
            physics.after_reset()
            if physics.data.ncon == 0 and (anywhere or physics.in_target()):
                break
        self.after_step(physics)  # as the base class does after placing the ball

    def get_reward(self, physics: ball_in_cup.Physics) -> float:
        """Reward of one control step, in [0, 1]."""
        if physics.in_target():
            return 0.0
        velocity = physics.named.data.qvel
        speed = math.hypot(velocity["ball_x"].item(), velocity["ball_z"].item())
        distance = math.hypot(*physics.ball_to_target())
        far = linear(_DISTANCE - distance, _DISTANCE / 2, 0.5)
        return (far + 2 * linear(_SPEED - speed, _SPEED / 2, 0.5)) / 3
