"""The MT30 tasks: their table, the environments, and parallel evaluation episodes."""

import os

# State observations need no display, but dm_control looks for one when it is imported.
# fmbpo.tasks.env undoes this afterwards: other libraries of the process may want to draw.
SET_HERE = "MUJOCO_GL" not in os.environ
os.environ.setdefault("MUJOCO_GL", "disable")
