"""The MT30 tasks: their table, the environments, and parallel evaluation episodes."""

import os

# State observations need no display; without this dm_control looks for one when imported.
os.environ.setdefault("MUJOCO_GL", "disable")
