"""The 11 tasks that TD-MPC2 adds to the DeepMind Control suite, written from their formulas.

Nine are stock models with another reward (cup-spin also has another initial state);
reacher-three is a model of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fmbpo.tasks.custom import ball_in_cup, cheetah, hopper, pendulum, reacher_three, walker

# MT30 name -> builder of a ``dm_control.rl.control.Environment``, whose random stream starts at 0.
BUILDERS: Mapping[str, Callable[[], Any]] = {
    **walker.BUILDERS,
    **cheetah.BUILDERS,
    **hopper.BUILDERS,
    **reacher_three.BUILDERS,
    **ball_in_cup.BUILDERS,
    **pendulum.BUILDERS,
}
