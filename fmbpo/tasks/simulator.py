"""MuJoCo and dm_control, imported without a renderer and without a clock.

Both look for the renderer that ``MUJOCO_GL`` names when they are imported, and fail without it.
States need none, and `fmbpo.tasks.drawing` finds its own. The variable keeps its value, since other
libraries of the process may want to draw.
"""

import ctypes
import os
from contextlib import suppress
from pathlib import Path
from unittest import mock

with mock.patch.dict(os.environ, MUJOCO_GL="disable"):
    import mujoco as mujoco
    from dm_control import suite as suite
    from dm_control.rl import control as control
    from dm_control.rl.control import PhysicsError as PhysicsError
    from dm_control.suite import ball_in_cup as ball_in_cup
    from dm_control.suite import cheetah as cheetah
    from dm_control.suite import common as common
    from dm_control.suite import hopper as hopper
    from dm_control.suite import pendulum as pendulum
    from dm_control.suite import reacher as reacher
    from dm_control.suite import walker as walker
    from mujoco import rollout as rollout


def _stop_the_clock() -> None:
    """Let MuJoCo's callback ``mjcb_time`` be null.

    MuJoCo's package for Python sets it to a clock, which every step reads dozens of times for
    ``mjData.timer``, and cannot unset it. Nobody reads the timers here. Without the clock a step of
    a pendulum takes less than half as long on a virtual machine; no state changes.
    """
    for file in Path(mujoco.__file__).parent.glob("*mujoco.*"):
        with suppress(OSError, ValueError):  # no library, or not one that has the callback
            ctypes.c_void_p.in_dll(ctypes.CDLL(str(file)), "mjcb_time").value = None


_stop_the_clock()
