"""The 30 tasks of MT30 in the study's order: names, widths and the published scores."""

from __future__ import annotations

import re

from attrs import frozen

from fmbpo.errors import UserError
from fmbpo.tasks.suite import Environment, Suite, TaskInfo

ACTION_REPEAT = 2
EPISODE_STEPS = 500


@frozen(kw_only=True)
class Mt30Task(TaskInfo):
    """A task of MT30. Rewards are in [0, 2] per agent step, published returns at most 1000.

    Attributes:
        index: the task id of the MT30 data set, 0..29.
        domain: dm_control's domain (``ball_in_cup``).
        task: dm_control's task within the domain (``catch``).
    """

    index: int
    domain: str
    task: str
    episode_steps: int = EPISODE_STEPS
    action_repeat: int = ACTION_REPEAT
    largest_reward: float | None = 2.0

    def make(self, drawable: bool = False) -> Environment:
        """See `TaskInfo`."""
        try:
            from fmbpo.tasks.env import TaskEnv  # dm_control takes a second to import
        except ImportError as error:
            what = f"MT30's simulator cannot be imported: {type(error).__name__}: {error}"
            raise UserError(what, remedy="repair or reinstall dm_control and mujoco") from error
        return TaskEnv(self.name, drawable)


# name, observation width, action width, published mean return of PWM and of TD-MPC2
_ROWS: tuple[tuple[str, int, int, float, float], ...] = (
    ("walker-stand", 24, 6, 995.400, 989.177),
    ("walker-walk", 24, 6, 985.790, 978.961),
    ("walker-run", 24, 6, 857.758, 617.596),
    ("cheetah-run", 17, 6, 414.524, 148.058),
    ("reacher-easy", 6, 2, 991.700, 981.400),
    ("reacher-hard", 6, 2, 988.300, 974.500),
    ("acrobot-swingup", 6, 1, 116.356, 9.683),
    ("pendulum-swingup", 3, 1, 869.100, 814.800),
    ("cartpole-balance", 5, 1, 999.701, 990.538),
    ("cartpole-balance-sparse", 5, 1, 1000.000, 1000.000),
    ("cartpole-swingup", 5, 1, 896.596, 0.542),
    ("cartpole-swingup-sparse", 5, 1, 953.400, 0.000),
    ("cup-catch", 8, 2, 471.600, 964.300),
    ("finger-spin", 9, 2, 977.600, 928.200),
    ("finger-turn-easy", 12, 2, 879.700, 983.400),
    ("finger-turn-hard", 12, 2, 871.200, 981.100),
    ("fish-swim", 24, 5, 844.398, 487.622),
    ("hopper-stand", 15, 4, 394.674, 493.129),
    ("hopper-hop", 15, 4, 162.372, 69.605),
    ("walker-walk-backwards", 24, 6, 977.772, 959.926),
    ("walker-run-backwards", 24, 6, 791.590, 186.736),
    ("cheetah-run-backwards", 17, 6, 600.995, 324.551),
    ("cheetah-run-front", 17, 6, 549.365, 122.821),
    ("cheetah-run-back", 17, 6, 825.926, 156.763),
    ("cheetah-jump", 17, 6, 793.809, 301.842),
    ("hopper-hop-backwards", 15, 4, 165.079, 273.032),
    ("reacher-three-easy", 8, 3, 989.100, 979.100),
    ("reacher-three-hard", 8, 3, 974.900, 580.800),
    ("cup-spin", 8, 2, 839.647, 828.846),
    ("pendulum-spin", 3, 1, 866.880, 820.534),
)


def _info(index: int, row: tuple[str, int, int, float, float]) -> Mt30Task:
    name, obs_dim, action_dim, pwm, tdmpc2 = row
    domain, _, task = name.replace("-", "_").partition("_")
    return Mt30Task(
        name=name,
        index=index,
        domain="ball_in_cup" if domain == "cup" else domain,
        task=task,
        obs_dim=obs_dim,
        action_dim=action_dim,
        pwm_return=pwm,
        tdmpc2_return=tdmpc2,
    )


MT30: dict[str, Mt30Task] = {row[0]: _info(i, row) for i, row in enumerate(_ROWS)}

_PREFIX = re.compile(r"^(dm[_-]?control|dmc|mt30)[-_/]")


def _canonical(name: str) -> str:
    """The name may have underscores or dm_control's domain (``walker_walk``,
    ``ball_in_cup-catch``), and a prefix such as ``dmcontrol-`` or ``dm_control/``."""
    key = _PREFIX.sub("", name.strip().lower()).replace("_", "-").replace("/", "-")
    return re.sub("^ball-in-cup-", "cup-", key)


SUITE = Suite("MT30", tuple(MT30.values()), _canonical)
"""MT30 as a suite of the entry-point group ``fmbpo.tasks``."""


def mt30_task(name: str) -> Mt30Task:
    """The task called ``name``; UserError, naming the closest, if MT30 does not have it."""
    return MT30[SUITE[name].name]
