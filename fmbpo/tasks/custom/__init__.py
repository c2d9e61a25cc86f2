"""The 11 tasks that TD-MPC2 adds to the DeepMind Control suite, written from their formulas.

Nine are stock models with another reward (cup-spin also has another initial state);
reacher-three is a model of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import ModuleType

from dm_control import suite
from dm_control.rl import control

from fmbpo.tasks.custom import ball_in_cup, cheetah, hopper, pendulum, reacher_three, walker


def _build(
    task: Callable[..., control.Task],
    domain: ModuleType,
    time_limit: float,
    control_timestep: float | None = None,
    model: Callable[[], tuple[str, dict[str, bytes]]] | None = None,
) -> control.Environment:
    """An environment whose random stream starts at 0.

    ``domain``: the stock domain, whose physics and (without ``model``) model it has; times in
    seconds, those of the stock tasks.
    """
    physics = domain.Physics.from_xml_string(*(model or domain.get_model_and_assets)())
    limits = {"time_limit": time_limit, "control_timestep": control_timestep}
    return control.Environment(physics, task(random=0), **limits)


_WALKER = (suite.walker, 25.0, 0.025)
_CHEETAH = (suite.cheetah, 10.0)
_REACHER = (suite.reacher, 20.0, None, reacher_three.get_model_and_assets)

BUILDERS: Mapping[str, Callable[[], control.Environment]] = {
    "walker-walk-backwards": partial(_build, partial(walker.Backwards, 1.0), *_WALKER),
    "walker-run-backwards": partial(_build, partial(walker.Backwards, 8.0), *_WALKER),
    "cheetah-run-backwards": partial(_build, cheetah.RunBackwards, *_CHEETAH),
    "cheetah-run-front": partial(_build, partial(cheetah.RunOnOneFoot, "bfoot"), *_CHEETAH),
    "cheetah-run-back": partial(_build, partial(cheetah.RunOnOneFoot, "ffoot"), *_CHEETAH),
    "cheetah-jump": partial(_build, cheetah.Jump, *_CHEETAH),
    "hopper-hop-backwards": partial(_build, hopper.HopBackwards, suite.hopper, 20.0, 0.02),
    "reacher-three-easy": partial(_build, reacher_three.easy, *_REACHER),
    "reacher-three-hard": partial(_build, reacher_three.hard, *_REACHER),
    "cup-spin": partial(_build, ball_in_cup.Spin, suite.ball_in_cup, 20.0, 0.02),
    "pendulum-spin": partial(_build, pendulum.Spin, suite.pendulum, 20.0),
}
"""By MT30's name, what builds a task's environment."""
