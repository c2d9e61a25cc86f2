"""MuJoCo and dm_control, imported without a renderer.

Both look for the renderer that ``MUJOCO_GL`` names when they are imported, and fail without it.
States need none, and `fmbpo.tasks.drawing` finds its own. The variable keeps its value, since other
libraries of the process may want to draw.
"""

import os
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
