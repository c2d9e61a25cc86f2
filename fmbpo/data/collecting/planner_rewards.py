"""The tasks' rewards on batches of states, and the shaping that guides the planner's search.

Each function maps `Frames` to [N, K], the reward of one control step. Shaping is added only while
planning; recorded rewards are always the environment's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

Floats = NDArray[np.float64]
# Sensors of the planning model: "pos" (metres) or "zaxis" (a frame's z-axis) in world coordinates;
# of an "xbody" (a body's frame), a "body" (its centre of mass), a "geom" or a "site"; and its name.
TORSO, TORSO_UP = "pos xbody torso", "zaxis xbody torso"
TORSO_MASS, FOOT_MASS = "pos body torso", "pos body foot"
HIND_FOOT, FORE_FOOT = "pos xbody bfoot", "pos xbody ffoot"
FINGER, TARGET_GEOM = "pos geom finger", "pos geom target"
TARGET_SITE, BALL = "pos site target", "pos xbody ball"
TIP, MOUTH = "pos site tip", "pos geom mouth"
SENSORS = (TORSO, TORSO_UP, TORSO_MASS, FOOT_MASS, HIND_FOOT, FORE_FOOT, FINGER, TARGET_GEOM,
           TARGET_SITE, BALL, TIP, MOUTH)  # fmt: skip


@frozen
class Frames:
    """States of N simulated futures at K times.

    Attributes:
        model: the planning model, a ``mujoco.MjModel`` (sizes, names).
        qpos: [N, K, nq] positions.
        qvel: [N, K, nv] velocities.
        ctrl: [N, K, nu] the action that led to the state.
        sensordata: [N, K, nsensordata], of the same states.
    """

    model: Any
    qpos: Floats
    qvel: Floats
    ctrl: Floats
    sensordata: Floats

    def sensor(self, name: str) -> Floats:
        """[N, K, dim] readings of one of `SENSORS`, or of one of the model's own sensors."""
        found = self.model.sensor(name)
        start = int(found.adr[0])
        return self.sensordata[..., start : start + int(found.dim[0])]

    def position(self, joint: str) -> Floats:
        """[N, K] position of a hinge (radians) or slide (metres)."""
        return self.qpos[..., int(self.model.joint(joint).qposadr[0])]

    def velocity(self, joint: str) -> Floats:
        """[N, K] velocity of a hinge or slide, per second."""
        return self.qvel[..., int(self.model.joint(joint).dofadr[0])]


Reward = Callable[[Frames], Floats]

_G_HALF = 4.905  # g / 2; the pendulum's energy per unit of mass and length is v^2 / 8 + g / 2 cos


def gaussian(distance: Floats, margin: float) -> Floats:
    """dm_control's default tolerance: 1 at distance 0, 0.1 at ``margin``."""
    return np.asarray(np.exp(np.log(0.1) * (distance / margin) ** 2))


def linear(distance: Floats, margin: float, at_margin: float) -> Floats:
    """dm_control's linear tolerance: 1 at distance 0, ``at_margin`` at ``margin``."""
    return np.asarray(np.maximum(0.0, 1.0 - (1.0 - at_margin) * distance / margin))


def below(value: Floats, bound: float) -> Floats:
    """The distance of ``value`` below ``bound``; 0 above it."""
    return np.asarray(np.maximum(0.0, bound - value))


def _indicator(condition: object) -> Floats:
    return np.asarray(condition, np.float64)


def _distance(f: Frames, a: str, b: str, axes: tuple[int, ...]) -> Floats:
    offset = (f.sensor(a) - f.sensor(b))[..., list(axes)]
    return np.asarray(np.linalg.norm(offset, axis=-1))


def _speed(f: Frames) -> Floats:
    return f.sensor("torso_subtreelinvel")[..., 0]


def _progress(f: Frames, speed: float) -> Floats:
    """Speed as a fraction of ``speed`` (m/s, backwards if negative), from -1 to 1."""
    return np.asarray(np.clip(_speed(f) / speed, -1.0, 1.0))


def _moving(f: Frames, speed: float, margin: float, at_margin: float) -> Floats:
    """1 at ``speed`` (m/s, backwards if negative) or faster; ``linear`` below it."""
    return linear(below(np.sign(speed) * _speed(f), abs(speed)), margin, at_margin)


def reacher(f: Frames) -> Floats:
    """The finger at the target; for all four reacher tasks."""
    radii = f.model.geom("target").size[0] + f.model.geom("finger").size[0]
    return _indicator(_distance(f, TARGET_GEOM, FINGER, (0, 1)) <= radii)


def reacher_shaping(f: Frames) -> Floats:
    """Nearer is better, and so is moving slowly."""
    distance = _distance(f, TARGET_GEOM, FINGER, (0, 1))
    return np.asarray(-3.0 * distance - 0.002 * (f.qvel**2).sum(-1))


def pendulum_swingup(f: Frames) -> Floats:
    """Upright within 8 degrees."""
    return _indicator(np.cos(f.position("hinge")) >= np.cos(np.deg2rad(8)))


def pendulum_shaping(f: Frames) -> Floats:
    """Near upright, with the energy of standing upright."""
    cos = np.cos(f.position("hinge"))
    energy = f.velocity("hinge") ** 2 / 8 + _G_HALF * cos
    return np.asarray(0.3 * (1 + cos) / 2 - 0.06 * np.abs(energy - _G_HALF))


def pendulum_spin(f: Frames) -> Floats:
    """Turning fast, either way."""
    return linear(below(np.abs(f.velocity("hinge")), 9), 4.5, 0.5)


def acrobot(f: Frames) -> Floats:
    """The tip near the target above."""
    outside = _distance(f, TARGET_SITE, TIP, (0, 1, 2)) - f.model.site("target").size[0]
    return gaussian(np.maximum(0.0, outside), 1)


def cartpole(f: Frames) -> Floats:
    """cartpole-balance and cartpole-swingup."""
    upright = (np.cos(f.position("hinge_1")) + 1) / 2
    centred = (1 + gaussian(f.position("slider"), 2)) / 2
    small_control = (4 + np.maximum(0.0, 1 - f.ctrl[..., 0] ** 2)) / 5
    small_velocity = (1 + gaussian(f.velocity("hinge_1"), 5)) / 2
    return np.asarray(upright * small_control * small_velocity * centred)


def cartpole_sparse(f: Frames) -> Floats:
    """cartpole-balance-sparse and cartpole-swingup-sparse."""
    centred = np.abs(f.position("slider")) <= 0.25
    return _indicator(centred & (np.cos(f.position("hinge_1")) >= 0.995))


def cartpole_sparse_shaping(f: Frames) -> Floats:
    """Replaces the sparse reward, which misleads the search, by the dense one."""
    return cartpole(f) - 0.1 * np.abs(f.position("slider")) - cartpole_sparse(f)


def cup_catch(f: Frames) -> Floats:
    """The ball inside the cup."""
    room = f.model.site("target").size[[0, 2]] - f.model.geom("ball").size[0]
    offset = (f.sensor(TARGET_SITE) - f.sensor(BALL))[..., [0, 2]]
    return _indicator((np.abs(offset) < room).all(-1))


def cup_catch_shaping(f: Frames) -> Floats:
    """Near the target; also above the cup, because the ball has to come over the rim."""
    offset = (f.sensor(TARGET_SITE) - f.sensor(BALL))[..., [0, 2]]
    distance = np.linalg.norm(offset, axis=-1)
    above = np.linalg.norm(offset + np.array([0.0, 0.15]), axis=-1)
    near = 0.3 * np.exp(-((distance / 0.1) ** 2)) + 0.1 * np.exp(-((above / 0.15) ** 2))
    return np.asarray(near - 0.2 * distance)


def cup_spin(f: Frames) -> Floats:
    """The ball fast and far from the cup."""
    speed = np.hypot(f.velocity("ball_x"), f.velocity("ball_z"))
    far = linear(below(_distance(f, TARGET_SITE, BALL, (0, 2)), 0.5), 0.25, 0.5)
    return np.asarray((1 - cup_catch(f)) * (far + 2 * linear(below(speed, 6), 3, 0.5)) / 3)


def walker_stand(f: Frames) -> Floats:
    """High and upright; a factor of every walker task."""
    standing = gaussian(below(f.sensor(TORSO)[..., 2], 1.2), 0.6)
    return np.asarray((3 * standing + (1 + f.sensor(TORSO_UP)[..., 2]) / 2) / 4)


def walker_stand_shaping(f: Frames) -> Floats:
    """Higher is better, and so is keeping still."""
    moving = np.abs(f.velocity("rooty")) + np.abs(_speed(f))
    return np.asarray(0.1 * f.sensor(TORSO)[..., 2] - 0.003 * moving)


def walker_move(f: Frames, speed: float) -> Floats:
    """Standing and moving at ``speed`` (m/s, backwards if negative) or faster."""
    return np.asarray(walker_stand(f) * (5 * _moving(f, speed, abs(speed) / 2, 0.5) + 1) / 6)


def walker_move_shaping(f: Frames, speed: float, weight: float) -> Floats:
    """Standing first; then progress, since the reward is flat at low speed."""
    return np.asarray((0.05 + weight * _progress(f, speed)) * walker_stand(f))


def cheetah_run(f: Frames, speed: float) -> Floats:
    """Moving at ``speed`` (m/s, backwards if negative) or faster."""
    return _moving(f, speed, abs(speed), 0)


def cheetah_run_shaping(f: Frames) -> Floats:
    """Penalises turning over."""
    return -np.maximum(0.0, np.abs(f.position("rooty")) - 1.2)


def _cheetah_up(f: Frames, foot: str) -> Floats:
    high = [gaussian(below(f.sensor(part)[..., 2], 1.2), 0.6) for part in (foot, TORSO)]
    return (3 * high[0] + 2 * high[1]) / 5


def cheetah_lifted(f: Frames, foot: str) -> Floats:
    """Running with ``foot`` in the air."""
    return _cheetah_up(f, foot) * (5 * _moving(f, 6, 6, 0) + 1) / 6


def cheetah_lifted_shaping(f: Frames, foot: str, weight: float) -> Floats:
    """Higher foot and torso, and speed, which the reward nearly ignores until they are high."""
    heights = 0.1 * f.sensor(foot)[..., 2] + 0.05 * f.sensor(TORSO)[..., 2]
    return 0.15 * _cheetah_up(f, foot) + heights / 1.2 + weight * _progress(f, 6)


def cheetah_jump(f: Frames) -> Floats:
    """Torso and feet high, without travelling."""
    still = linear(np.maximum(0.0, np.abs(_speed(f)) - 0.5), 0.5, 0)
    middle = [(f.sensor(TORSO) + f.sensor(foot))[..., 2] / 2 for foot in (HIND_FOOT, FORE_FOOT)]
    high = [gaussian(below(height, 1.2), 0.6) for height in middle]
    return (5 * high[0] + 5 * high[1] + 2 * still) / 12


def _hopper_height(f: Frames) -> Floats:
    return (f.sensor(TORSO_MASS) - f.sensor(FOOT_MASS))[..., 2]


def _hopper_up(f: Frames) -> Floats:
    height = _hopper_height(f)
    return _indicator((height >= 0.6) & (height <= 2))


def hopper_stand(f: Frames) -> Floats:
    """Standing with little effort."""
    return np.asarray(_hopper_up(f) * (4 + np.maximum(0.0, 1 - f.ctrl**2).mean(-1)) / 5)


def hopper_hop(f: Frames, speed: float) -> Floats:
    """Upright and moving at ``speed`` (m/s, backwards if negative) or faster."""
    return _hopper_up(f) * _moving(f, speed, abs(speed) / 2, 0.5)


def hopper_shaping(f: Frames) -> Floats:
    """Torso high above foot and floor, by any path: a hopper on its side must roll first."""
    return np.asarray(0.15 * (_hopper_height(f) + f.sensor(TORSO_MASS)[..., 2]))


def hopper_hop_shaping(f: Frames, speed: float) -> Floats:
    """As for standing, plus speed in proportion to height, so that the hopper does not crawl."""
    up = np.clip(_hopper_height(f) / 0.6, 0.0, 1.0)
    return np.asarray(hopper_shaping(f) + 0.5 * up * _progress(f, speed))


def _reach(f: Frames) -> Floats:
    tip = (f.sensor("touchtop_pos") + f.sensor("touchbottom_pos")) / 2
    return np.asarray(np.linalg.norm((tip - f.sensor("spinner"))[..., [0, 2]], axis=-1))


def finger_spin(f: Frames) -> Floats:
    """The spinner turning fast."""
    return _indicator(f.velocity("hinge") <= -15)


def finger_spin_shaping(f: Frames) -> Floats:
    """Replaces the reward, which misleads the search, by a dense term."""
    slow = np.maximum(0.0, f.velocity("hinge") + 20)
    return np.asarray(-0.1 * slow - _reach(f) - finger_spin(f))


def finger_turn(f: Frames) -> Floats:
    """The spinner's tip at the target."""
    return _indicator(_distance(f, "target", "tip", (0, 2)) - f.model.site("target").size[0] <= 0)


def finger_turn_shaping(f: Frames) -> Floats:
    """Tip nearer the target, fingertip nearer the spinner."""
    return -_distance(f, "target", "tip", (0, 2)) - 0.3 * _reach(f)


def fish_swim(f: Frames) -> Floats:
    """The mouth at the target, the body upright."""
    radii = float(f.model.geom("mouth").size[0] + f.model.geom("target").size[0])
    outside = np.maximum(0.0, _distance(f, TARGET_GEOM, MOUTH, (0, 1, 2)) - radii)
    return (7 * gaussian(outside, 2 * radii) + (f.sensor(TORSO_UP)[..., 2] + 1) / 2) / 8


def fish_shaping(f: Frames) -> Floats:
    """Nearer is better."""
    return -2.0 * _distance(f, TARGET_GEOM, MOUTH, (0, 1, 2))
