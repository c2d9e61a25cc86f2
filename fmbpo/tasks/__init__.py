"""The MT30 tasks: their table, their environments, and parallel evaluation episodes."""

import os

# State observations need no display, but importing dm_control looks for one. fmbpo.tasks.env
# undoes this afterwards, since other libraries in the process may draw.
SET_HERE = "MUJOCO_GL" not in os.environ
os.environ.setdefault("MUJOCO_GL", "disable")
