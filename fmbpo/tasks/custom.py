"""The 11 tasks that TD-MPC2 adds to the DeepMind Control suite, written from their formulas.

Nine are stock tasks with another reward (cup-spin also has another initial state); reacher-three is
the stock task with its own model. Rewards are for one control step, in [0, 1]; units are metres
and seconds. In the formulas, ``G`` and ``L`` are `gaussian` and `linear`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType

from fmbpo.tasks.simulator import (
    ball_in_cup,
    cheetah,
    common,
    control,
    hopper,
    pendulum,
    reacher,
    walker,
)


def gaussian(distance: float, margin: float) -> float:
    """1 if ``distance`` <= 0, falling as a Gaussian to 0.1 at ``margin``."""
    if distance <= 0.0:
        return 1.0
    return math.exp(math.log(0.1) * (distance / margin) ** 2)


def linear(distance: float, margin: float, at_margin: float) -> float:
    """1 if ``distance`` <= 0, falling linearly to ``at_margin`` at ``margin``, never below 0."""
    if distance <= 0.0:
        return 1.0
    return max(0.0, 1.0 - (1.0 - at_margin) * distance / margin)


def walker_backwards(physics: walker.Physics, speed: float) -> float:
    """Upright and moving at ``-speed`` or faster.

    stand = (3 G(1.2 - h; 0.6) + (1 + u) / 2) / 4, h and u the torso's height and uprightness;
    move = L(vx + speed; speed / 2, 0.5); reward = stand (5 move + 1) / 6.
    """
    tall = gaussian(1.2 - float(physics.torso_height()), 0.6)
    stand = (3 * tall + (1 + float(physics.torso_upright())) / 2) / 4
    move = linear(float(physics.horizontal_velocity()) + speed, speed / 2, 0.5)
    return stand * (5 * move + 1) / 6


def cheetah_run_backwards(physics: cheetah.Physics) -> float:
    """Moving at -8 m/s or faster: L(vx + 8; 8, 0)."""
    return linear(float(physics.speed()) + 8.0, 8.0, 0.0)


def _z(physics: cheetah.Physics, body: str) -> float:
    """Height of a body's frame; for a foot, the height of its joint, not of its lowest point."""
    return float(physics.named.data.xpos[body, "z"])


def cheetah_run_on_one_foot(physics: cheetah.Physics, raised: str) -> float:
    """Moving forward at 6 m/s or faster with torso and the ``raised`` foot at 1.2 m or more.

    up = (3 G(1.2 - z_foot; 0.6) + 2 G(1.2 - z_torso; 0.6)) / 5;
    reward = up (5 L(6 - vx; 6, 0) + 1) / 6.
    """
    foot, torso = (gaussian(1.2 - _z(physics, body), 0.6) for body in (raised, "torso"))
    fast = linear(6.0 - float(physics.speed()), 6.0, 0.0)
    return (3 * foot + 2 * torso) / 5 * (5 * fast + 1) / 6


def cheetah_jump(physics: cheetah.Physics) -> float:
    """Airborne without travelling: the mean over both feet of (5 G(1.2 - z; 0.6) + s) / 6.

    z is the mean height of the torso and the foot, s = L(|vx| - 0.5; 0.5, 0).
    """
    still = linear(abs(float(physics.speed())) - 0.5, 0.5, 0.0)
    middle = [(_z(physics, "torso") + _z(physics, foot)) / 2 for foot in ("bfoot", "ffoot")]
    hind, front = ((5 * gaussian(1.2 - z, 0.6) + still) / 6 for z in middle)
    return (hind + front) / 2


def hopper_hop_backwards(physics: hopper.Physics) -> float:
    """L(vx + 1; 0.5, 0.5) if upright (torso 0.6 m to 2 m above the foot), else 0."""
    if not 0.6 <= physics.height() <= 2.0:
        return 0.0
    return linear(float(physics.speed()) + 1.0, 0.5, 0.5)


def pendulum_spin(physics: pendulum.Physics) -> float:
    """Turning at 9 rad/s or faster, in either direction: L(9 - |w|; 4.5, 0.5)."""
    return linear(9.0 - abs(physics.angular_velocity().item()), 4.5, 0.5)


def cup_spin(physics: ball_in_cup.Physics) -> float:
    """The ball outside the cup, far from it and fast.

    (L(0.5 - d; 0.25, 0.5) + 2 L(6 - w; 3, 0.5)) / 3 outside the cup and 0 inside; d is the distance
    between ball and cup, w the ball's speed in world coordinates.
    """
    if physics.in_target():
        return 0.0
    velocity = physics.named.data.qvel
    speed = math.hypot(velocity["ball_x"].item(), velocity["ball_z"].item())
    far = linear(0.5 - math.hypot(*physics.ball_to_target()), 0.25, 0.5)
    return (far + 2 * linear(6.0 - speed, 3.0, 0.5)) / 3


class CupSpin(ball_in_cup.BallInCup):  # type: ignore[misc]
    """The stock task with another initial state."""

    def initialize_episode(self, physics: ball_in_cup.Physics) -> None:
        """Place the ball without contact: inside the cup, or in 10 % of the episodes anywhere."""
        anywhere = self.random.uniform() < 0.1
        while True:
            physics.named.data.qpos["ball_x"] = self.random.uniform(-0.2, 0.2)
            physics.named.data.qpos["ball_z"] = self.random.uniform(0.2, 0.5)
            physics.after_reset()
            if physics.data.ncon == 0 and (anywhere or physics.in_target()):
                break
        self.after_step(physics)  # as the base class does after placing the ball


def reacher_three_model() -> tuple[str, dict[str, bytes]]:
    """XML and assets of the reacher with three links, in the form of dm_control's domains.

    Targets are placed in the stock disc, so those near its centre cannot be reached for long: two
    joints are limited to 80 degrees, which MuJoCo's soft limits let them exceed slightly.
    """
    return Path(__file__).with_name("reacher_three.xml").read_text("utf-8"), common.ASSETS


def _build(
    domain: ModuleType,
    task: Callable[..., control.Task],
    reward: Callable[..., float] | None = None,
    model: Callable[[], tuple[str, dict[str, bytes]]] | None = None,
    **limits: float,
) -> control.Environment:
    """An environment with random seed 0.

    ``domain``: the stock domain that gives the physics and, without ``model``, the model;
    ``limits``: the stock task's, in seconds.
    """
    physics = domain.Physics.from_xml_string(*(model or domain.get_model_and_assets)())
    made = task(random=0)
    if reward is not None:
        made.get_reward = reward
    return control.Environment(physics, made, **limits)


_walker = partial(
    _build, walker, partial(walker.PlanarWalker, 0.0), time_limit=25.0, control_timestep=0.025
)
_cheetah = partial(_build, cheetah, cheetah.Cheetah, time_limit=10.0)
_fine = partial(_build, time_limit=20.0, control_timestep=0.02)
_reacher = partial(_build, reacher, model=reacher_three_model, time_limit=20.0)

BUILDERS: Mapping[str, Callable[[], control.Environment]] = {
    "walker-walk-backwards": partial(_walker, partial(walker_backwards, speed=1.0)),
    "walker-run-backwards": partial(_walker, partial(walker_backwards, speed=8.0)),
    "cheetah-run-backwards": partial(_cheetah, cheetah_run_backwards),
    "cheetah-run-front": partial(_cheetah, partial(cheetah_run_on_one_foot, raised="bfoot")),
    "cheetah-run-back": partial(_cheetah, partial(cheetah_run_on_one_foot, raised="ffoot")),
    "cheetah-jump": partial(_cheetah, cheetah_jump),
    "hopper-hop-backwards": partial(
        _fine, hopper, partial(hopper.Hopper, True), hopper_hop_backwards
    ),
    "reacher-three-easy": partial(_reacher, partial(reacher.Reacher, 0.05)),  # target's radius
    "reacher-three-hard": partial(_reacher, partial(reacher.Reacher, 0.015)),
    "cup-spin": partial(_fine, ball_in_cup, CupSpin, cup_spin),
    "pendulum-spin": partial(_build, pendulum, pendulum.SwingUp, pendulum_spin, time_limit=20.0),
}
"""Functions that build the environments, by MT30's name."""
