"""The planner's entry for each task: reward, shaping, sensors, search settings.

A new task is one reward function in `fmbpo.data.collecting.planner_rewards` and one entry here.
"""

from __future__ import annotations

from attrs import evolve

from fmbpo.data.collecting import planner_rewards as r
from fmbpo.data.collecting.planner_model import PlanSettings, PlanTask
from fmbpo.errors import UserError, did_you_mean
from fmbpo.tasks.custom import reacher_three
from fmbpo.tasks.mt30 import task_info

_WALKER = PlanSettings(samples=32, horizon=16, knots=8, sigma=0.8, coarse=4)
_CHEETAH = PlanSettings(samples=64, horizon=25, knots=8, sigma=0.9, elites=10, repeats=0.5)
_CHEETAH_LIFTED = PlanSettings(
    samples=64, horizon=30, knots=8, sigma=1.2, temperature=0.1, elites=10, repeats=0.5
)
_REACHER = PlanSettings(samples=32, horizon=20, knots=5, sigma=0.4)
_REACHER_THREE = evolve(_REACHER, samples=48, horizon=30, sigma=1.2)
_PENDULUM = PlanSettings(samples=32, horizon=50, knots=10, sigma=0.8)
_CARTPOLE = PlanSettings(samples=32, horizon=50, knots=10, sigma=0.7)
_CUP = PlanSettings(samples=24, horizon=25, knots=8, sigma=0.6, elites=6, coarse=5)
_FINGER = PlanSettings(samples=48, horizon=25, knots=8, sigma=0.8, elites=10, coarse=2)
_HOPPER = evolve(_CHEETAH_LIFTED, coarse=4)

_STANDING = (r.TORSO, r.TORSO_UP)
_REACHING = (r.FINGER, r.TARGET_GEOM)
_CATCHING = (r.TARGET_SITE, r.BALL)
_HOPPING = (r.TORSO_MASS, r.FOOT_MASS)
_FEET = (r.TORSO, r.HIND_FOOT, r.FORE_FOOT)


def _walker(
    speed: float, samples: int = 32, sigma: float = 1.2, warm: float = 0.1, progress: float = 0.0
) -> PlanTask:
    settings = evolve(_WALKER, samples=samples, sigma=sigma, temperature=warm, repeats=0.5)
    shaping = r.walker_move_shaping(speed, progress)
    return PlanTask(r.walker_move(speed), settings, shaping, _STANDING)


_REACHER_TASKS = {
    name: PlanTask(r.reacher, _REACHER, r.reacher_shaping, _REACHING)
    for name in ("reacher-easy", "reacher-hard")
} | {
    name: PlanTask(
        r.reacher, _REACHER_THREE, r.reacher_shaping, _REACHING, reacher_three.get_model_and_assets
    )
    for name in ("reacher-three-easy", "reacher-three-hard")
}

PLAN_TASKS: dict[str, PlanTask] = {
    "walker-stand": PlanTask(
        r.walker_stand, evolve(_WALKER, horizon=20), r.walker_stand_shaping, _STANDING
    ),
    "walker-walk": _walker(1, sigma=0.8, warm=0.2),
    "walker-run": _walker(8, samples=64, progress=0.3),
    "walker-walk-backwards": _walker(-1),
    "walker-run-backwards": _walker(-8, samples=64, progress=0.3),
    "cheetah-run": PlanTask(r.cheetah_run(10), _CHEETAH, r.cheetah_run_shaping),
    "cheetah-run-backwards": PlanTask(
        r.cheetah_run(-8), evolve(_CHEETAH, sigma=1.2, temperature=0.1), r.cheetah_run_shaping
    ),
    "cheetah-run-front": PlanTask(
        r.cheetah_lifted(r.HIND_FOOT),
        _CHEETAH_LIFTED,
        r.cheetah_lifted_shaping(r.HIND_FOOT, 0.1),
        _FEET,
    ),
    "cheetah-run-back": PlanTask(
        r.cheetah_lifted(r.FORE_FOOT),
        _CHEETAH_LIFTED,
        r.cheetah_lifted_shaping(r.FORE_FOOT, 0.3),
        _FEET,
    ),
    "cheetah-jump": PlanTask(r.cheetah_jump, evolve(_CHEETAH_LIFTED, repeats=0.0), sensors=_FEET),
    **_REACHER_TASKS,
    "acrobot-swingup": PlanTask(
        r.acrobot,
        PlanSettings(samples=64, horizon=75, knots=15, sigma=0.8, elites=12, repeats=0.5),
        sensors=(r.TARGET_SITE, r.TIP),
    ),
    "pendulum-swingup": PlanTask(r.pendulum_swingup, _PENDULUM, r.pendulum_shaping),
    "pendulum-spin": PlanTask(r.pendulum_spin, _PENDULUM),
    "cartpole-balance": PlanTask(r.cartpole, _CARTPOLE),
    "cartpole-swingup": PlanTask(r.cartpole, _CARTPOLE),
    "cartpole-balance-sparse": PlanTask(r.cartpole_sparse, _CARTPOLE, r.cartpole_sparse_shaping),
    "cartpole-swingup-sparse": PlanTask(
        r.cartpole_sparse,
        evolve(_CARTPOLE, samples=48, horizon=75, knots=12, sigma=0.9),
        r.cartpole_sparse_shaping,
    ),
    "cup-catch": PlanTask(r.cup_catch, _CUP, r.cup_catch_shaping, _CATCHING),
    "cup-spin": PlanTask(
        r.cup_spin,
        evolve(_CUP, horizon=20, sigma=1.0, temperature=0.1, repeats=0.4),
        sensors=_CATCHING,
    ),
    "finger-spin": PlanTask(
        r.finger_spin,
        PlanSettings(
            samples=96, horizon=12, knots=8, sigma=1.2, temperature=0.1, elites=10, repeats=0.5
        ),
        r.finger_spin_shaping,
    ),
    "finger-turn-easy": PlanTask(r.finger_turn, _FINGER, r.finger_turn_shaping),
    "finger-turn-hard": PlanTask(r.finger_turn, _FINGER, r.finger_turn_shaping),
    "fish-swim": PlanTask(
        r.fish_swim,
        PlanSettings(samples=32, horizon=20, knots=8, sigma=0.8, coarse=2),
        r.fish_shaping,
        (r.TARGET_GEOM, r.MOUTH, r.TORSO_UP),
    ),
    "hopper-stand": PlanTask(
        r.hopper_stand, evolve(_HOPPER, repeats=0.25), r.hopper_shaping, _HOPPING
    ),
    "hopper-hop": PlanTask(
        r.hopper_hop(2), evolve(_HOPPER, samples=96), r.hopper_hop_shaping(2), _HOPPING
    ),
    "hopper-hop-backwards": PlanTask(
        r.hopper_hop(-1), evolve(_HOPPER, samples=96), r.hopper_hop_shaping(-1), _HOPPING
    ),
}


def plan_task(name: str) -> PlanTask:
    """The planner's entry for a task.

    Raises:
        UserError: MT30 has no such task, or the planner has no entry for it.
    """
    known = task_info(name).name
    if known not in PLAN_TASKS:
        raise UserError(
            f"the planner has no entry for {known!r}", remedy=did_you_mean(known, PLAN_TASKS)
        )
    return PLAN_TASKS[known]
