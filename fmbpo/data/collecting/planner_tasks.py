"""The planner of each task, and the entries for those of MT30: reward, shaping, search settings.

A new task of MT30 needs a reward function in `fmbpo.data.collecting.planner_rewards`, an entry here
and one in ``planner.toml``. Other tasks need no entry.
"""

from __future__ import annotations

import tomllib
from functools import partial
from pathlib import Path

from fmbpo.data.collecting import planner_rewards as r
from fmbpo.data.collecting.planner import Planner, PlanSettings
from fmbpo.data.collecting.planner_mt30 import Mt30Model, PlanTask
from fmbpo.data.collecting.planner_stepping import STEPPING, SteppingModel
from fmbpo.tasks.mt30 import Mt30Task
from fmbpo.tasks.suite import TaskInfo


def _walker(speed: float, progress: float = 0.0) -> tuple[r.Reward, r.Reward]:
    shaping = partial(r.walker_move_shaping, speed=speed, weight=progress)
    return partial(r.walker_move, speed=speed), shaping


def _lifted(foot: str, weight: float) -> tuple[r.Reward, r.Reward]:
    shaping = partial(r.cheetah_lifted_shaping, foot=foot, weight=weight)
    return partial(r.cheetah_lifted, foot=foot), shaping


def _hop(speed: float) -> tuple[r.Reward, r.Reward]:
    return partial(r.hopper_hop, speed=speed), partial(r.hopper_hop_shaping, speed=speed)


_REWARDS: dict[str, tuple[r.Reward, ...]] = {
    "walker-stand": (r.walker_stand, r.walker_stand_shaping),
    "walker-walk": _walker(1),
    "walker-run": _walker(8, progress=0.3),
    "walker-walk-backwards": _walker(-1),
    "walker-run-backwards": _walker(-8, progress=0.3),
    "cheetah-run": (partial(r.cheetah_run, speed=10), r.cheetah_run_shaping),
    "cheetah-run-backwards": (partial(r.cheetah_run, speed=-8), r.cheetah_run_shaping),
    "cheetah-run-front": _lifted(r.HIND_FOOT, 0.1),
    "cheetah-run-back": _lifted(r.FORE_FOOT, 0.3),
    "cheetah-jump": (r.cheetah_jump,),
    "reacher-easy": (r.reacher, r.reacher_shaping),
    "reacher-hard": (r.reacher, r.reacher_shaping),
    "reacher-three-easy": (r.reacher, r.reacher_shaping),
    "reacher-three-hard": (r.reacher, r.reacher_shaping),
    "acrobot-swingup": (r.acrobot,),
    "pendulum-swingup": (r.pendulum_swingup, r.pendulum_shaping),
    "pendulum-spin": (r.pendulum_spin,),
    "cartpole-balance": (r.cartpole,),
    "cartpole-swingup": (r.cartpole,),
    "cartpole-balance-sparse": (r.cartpole_sparse, r.cartpole_sparse_shaping),
    "cartpole-swingup-sparse": (r.cartpole_sparse, r.cartpole_sparse_shaping),
    "cup-catch": (r.cup_catch, r.cup_catch_shaping),
    "cup-spin": (r.cup_spin,),
    "finger-spin": (r.finger_spin, r.finger_spin_shaping),
    "finger-turn-easy": (r.finger_turn, r.finger_turn_shaping),
    "finger-turn-hard": (r.finger_turn, r.finger_turn_shaping),
    "fish-swim": (r.fish_swim, r.fish_shaping),
    "hopper-stand": (r.hopper_stand, r.hopper_shaping),
    "hopper-hop": _hop(2),
    "hopper-hop-backwards": _hop(-1),
}
_SETTINGS = tomllib.loads(Path(__file__).with_name("planner.toml").read_text("utf-8"))

PLAN_TASKS: dict[str, PlanTask] = {
    name: PlanTask(PlanSettings(**_SETTINGS[name]), *rewards) for name, rewards in _REWARDS.items()
}


def settings_of(task: TaskInfo) -> PlanSettings:
    """The settings of the search in a task."""
    return PLAN_TASKS[task.name].settings if isinstance(task, Mt30Task) else STEPPING


def planner_of(task: TaskInfo, effort: float = 1.0) -> Planner:
    """A planner for one environment of the task, whose state it must be able to set
    (`fmbpo.data.collecting.planner_stepping.check_states`) unless the task is MT30's."""
    if isinstance(task, Mt30Task):
        return Planner(Mt30Model(task.name, PLAN_TASKS[task.name]), settings_of(task), effort)
    return Planner(SteppingModel(task), settings_of(task), effort)
