"""What the planner knows of each task: its reward on batches, shaping, search settings.

A new task is one function for its reward and one entry in `PLAN_TASKS`. The shaping terms only
guide the search where the reward is sparse; recorded rewards are always the environment's.
"""

from __future__ import annotations

import numpy as np

from fmbpo.data.planner_model import Floats, Frames, PlanSettings, PlanTask, Sensor
from fmbpo.errors import UserError, did_you_mean
from fmbpo.tasks.mt30 import task_info

GRAVITY_TERM = 4.905  # pendulum: g / 2, so that energy is v^2 / 8 + this x cos, per unit of mass


def gaussian(distance: Floats, margin: float) -> Floats:
    """dm_control's default tolerance: 1 at distance 0, 0.1 at ``margin``."""
    return np.asarray(np.exp(np.log(0.1) * (distance / margin) ** 2))


def linear(distance: Floats, margin: float, at_margin: float) -> Floats:
    """dm_control's linear tolerance: 1 at distance 0, ``at_margin`` at ``margin``."""
    return np.asarray(np.maximum(0.0, 1.0 - (1.0 - at_margin) * distance / margin))


def below(value: Floats, bound: float) -> Floats:
    """How far ``value`` is under ``bound``, 0 above it."""
    return np.asarray(np.maximum(0.0, bound - value))


def _indicator(condition: object) -> Floats:
    return np.asarray(condition, np.float64)


# --- reacher: finger at the target ----------------------------------------------------------

_FINGER = Sensor("pos", "geom", "finger")
_TARGET_GEOM = Sensor("pos", "geom", "target")


def _finger_distance(f: Frames) -> Floats:
    return np.asarray(
        np.linalg.norm((f.sensor(_TARGET_GEOM) - f.sensor(_FINGER))[..., :2], axis=-1)
    )


def _reacher(f: Frames) -> Floats:
    radii = f.model.geom("target").size[0] + f.model.geom("finger").size[0]
    return _indicator(_finger_distance(f) <= radii)


def _reacher_shaping(f: Frames) -> Floats:
    return np.asarray(-3.0 * _finger_distance(f) - 0.002 * (f.qvel**2).sum(-1))


# --- pendulum -------------------------------------------------------------------------------


def _pendulum(f: Frames) -> Floats:
    return _indicator(np.cos(f.position("hinge")) >= np.cos(np.deg2rad(8)))


def _pendulum_shaping(f: Frames) -> Floats:
    cos = np.cos(f.position("hinge"))
    energy = f.velocity("hinge") ** 2 / 8 + GRAVITY_TERM * cos
    return np.asarray(0.3 * (1 + cos) / 2 - 0.06 * np.abs(energy - GRAVITY_TERM))


# --- cartpole -------------------------------------------------------------------------------


def _cartpole(f: Frames) -> Floats:
    upright = (np.cos(f.position("hinge_1")) + 1) / 2
    centred = (1 + gaussian(f.position("slider"), 2)) / 2
    small_control = (4 + np.maximum(0.0, 1 - f.ctrl[..., 0] ** 2)) / 5
    small_velocity = (1 + gaussian(f.velocity("hinge_1"), 5)) / 2
    return np.asarray(upright * small_control * small_velocity * centred)


# --- cup: ball in the cup -------------------------------------------------------------------

_CUP_TARGET = Sensor("pos", "site", "target")
_BALL = Sensor("pos", "xbody", "ball")


def _ball_to_target(f: Frames) -> Floats:
    return (f.sensor(_CUP_TARGET) - f.sensor(_BALL))[..., [0, 2]]


def _cup_catch(f: Frames) -> Floats:
    room = f.model.site("target").size[[0, 2]] - f.model.geom("ball").size[0]
    return _indicator((np.abs(_ball_to_target(f)) < room).all(-1))


def _cup_catch_shaping(f: Frames) -> Floats:
    offset = _ball_to_target(f)
    distance = np.linalg.norm(offset, axis=-1)
    # The ball has to come over the rim, so being above the cup counts for something.
    above = np.linalg.norm(offset + np.array([0.0, 0.15]), axis=-1)
    near = 0.3 * np.exp(-((distance / 0.1) ** 2)) + 0.1 * np.exp(-((above / 0.15) ** 2))
    return np.asarray(near - 0.2 * distance)


# --- walker ---------------------------------------------------------------------------------

_TORSO = Sensor("pos", "xbody", "torso")
_TORSO_UP = Sensor("zaxis", "xbody", "torso")


def _walker_stand(f: Frames) -> Floats:
    standing = gaussian(below(f.sensor(_TORSO)[..., 2], 1.2), 0.6)
    return np.asarray((3 * standing + (1 + f.sensor(_TORSO_UP)[..., 2]) / 2) / 4)


def _walker_stand_shaping(f: Frames) -> Floats:
    moving = np.abs(f.velocity("rooty")) + np.abs(f.sensor("torso_subtreelinvel")[..., 0])
    return np.asarray(0.1 * f.sensor(_TORSO)[..., 2] - 0.003 * moving)


# --- cheetah --------------------------------------------------------------------------------


def _cheetah_run(f: Frames) -> Floats:
    return linear(below(f.sensor("torso_subtreelinvel")[..., 0], 10), 10, 0)


def _cheetah_shaping(f: Frames) -> Floats:
    return -below(-np.abs(f.position("rooty")), -1.2)


# --- finger ---------------------------------------------------------------------------------


def _finger_spin(f: Frames) -> Floats:
    return _indicator(f.velocity("hinge") <= -15)


def _finger_spin_shaping(f: Frames) -> Floats:
    # The dense surrogate replaces the indicator, which misled the search.
    tip = (f.sensor("touchtop_pos") + f.sensor("touchbottom_pos")) / 2
    reach = np.linalg.norm((tip - f.sensor("spinner"))[..., [0, 2]], axis=-1)
    slow = np.maximum(0.0, f.velocity("hinge") + 20)
    return np.asarray(-0.1 * slow - reach - _finger_spin(f))


# --- the table ------------------------------------------------------------------------------

_REACHER = PlanSettings(samples=32, horizon=20, knots=5, sigma=0.4)
_CARTPOLE = PlanSettings(samples=32, horizon=50, knots=10, sigma=0.7)

PLAN_TASKS: dict[str, PlanTask] = {
    "walker-stand": PlanTask(
        _walker_stand,
        PlanSettings(samples=32, horizon=20, knots=8, sigma=0.8, coarse=4),
        _walker_stand_shaping,
        (_TORSO, _TORSO_UP),
    ),
    "cheetah-run": PlanTask(
        _cheetah_run,
        PlanSettings(samples=48, horizon=25, knots=8, sigma=0.9, elites=10),
        _cheetah_shaping,
    ),
    "reacher-easy": PlanTask(_reacher, _REACHER, _reacher_shaping, (_FINGER, _TARGET_GEOM)),
    "reacher-hard": PlanTask(_reacher, _REACHER, _reacher_shaping, (_FINGER, _TARGET_GEOM)),
    "pendulum-swingup": PlanTask(
        _pendulum, PlanSettings(samples=32, horizon=50, knots=10, sigma=0.8), _pendulum_shaping
    ),
    "cartpole-balance": PlanTask(_cartpole, _CARTPOLE),
    "cartpole-swingup": PlanTask(_cartpole, _CARTPOLE),
    "cup-catch": PlanTask(
        _cup_catch,
        PlanSettings(samples=24, horizon=25, knots=8, sigma=0.6, elites=6, coarse=5),
        _cup_catch_shaping,
        (_CUP_TARGET, _BALL),
    ),
    "finger-spin": PlanTask(
        _finger_spin,
        PlanSettings(samples=96, horizon=12, knots=8, sigma=1.2, temperature=0.1, elites=10),
        _finger_spin_shaping,
    ),
}


def plan_task(name: str) -> PlanTask:
    """The planner's entry for a task.

    Raises:
        UserError: MT30 has no such task, or the planner has no entry for it yet.
    """
    known = task_info(name).name
    if known not in PLAN_TASKS:
        raise UserError(
            f"the planner has no entry for {known!r}",
            remedy=f"collect one of: {', '.join(PLAN_TASKS)}; {did_you_mean(known, PLAN_TASKS)}",
        )
    return PLAN_TASKS[known]
