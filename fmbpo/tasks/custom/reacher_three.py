"""Reacher with three links (TD-MPC2): a model of its own under the stock reacher task.

The reward is 1 where finger and target touch, else 0; initial states are drawn as in the stock
task. The target disc is also the stock one, so that small target radii cannot be reached for
long: two joints are limited to 80 degrees, and MuJoCo's soft limits let them pass that a little.
"""

from __future__ import annotations

from functools import partial

from dm_control.suite import common, reacher

# A planar arm with hinges about z; each capsule lies along its link. Angles in degrees. Ground,
# walls and root are visible, as in the stock reacher; nothing collides.
_MODEL = """
<mujoco model="planar reacher, three links">
  <include file="./common/skybox.xml"/>
  <include file="./common/visual.xml"/>
  <include file="./common/materials.xml"/>
  <option timestep="0.02"><flag contact="disable"/></option>
  <default>
    <joint type="hinge" axis="0 0 1" damping="0.01"/>
    <geom type="capsule" size="0.01" material="self"/>
    <motor gear="0.05" ctrllimited="true" ctrlrange="-1 1"/>
  </default>
  <worldbody>
    <light pos="0 0 1"/>
    <camera name="fixed" pos="0 0 0.75"/>
    <geom type="plane" size="0.3 0.3 10" material="grid"/>
    <geom type="plane" pos="-0.3 0 0.02" zaxis="1 0 0" size="0.02 0.3 0.02" material="decoration"/>
    <geom type="plane" pos="0 -0.3 0.02" zaxis="0 1 0" size="0.3 0.02 0.02" material="decoration"/>
    <geom type="plane" pos="0.3 0 0.02" zaxis="-1 0 0" size="0.02 0.3 0.02" material="decoration"/>
    <geom type="plane" pos="0 0.3 0.02" zaxis="0 -1 0" size="0.3 0.02 0.02" material="decoration"/>
    <geom type="cylinder" fromto="0 0 0 0 0 0.02" size="0.011" material="decoration"/>
    <geom name="target" type="sphere" pos="0 0 0.01" size="0.05" material="target"/>
    <body name="arm0" pos="0 0 0.01">
      <joint name="shoulder0"/>
      <geom name="arm0" fromto="0 0 0 0.09 0 0"/>
      <body name="arm1" pos="0.09 0 0">
        <joint name="shoulder1" limited="true" range="-80 80"/>
        <geom name="arm1" fromto="0 0 0 0.09 0 0"/>
        <body name="hand" pos="0.09 0 0">
          <joint name="wrist" limited="true" range="-80 80"/>
          <geom name="hand" fromto="0 0 0 0.1 0 0"/>
          <body name="finger" pos="0.09 0 0">
            <geom name="finger" type="sphere" material="effector"/>
          </body>
        </body>
      </body>
    </body>
  </worldbody>
  <actuator>
    <motor name="shoulder0" joint="shoulder0"/>
    <motor name="shoulder1" joint="shoulder1"/>
    <motor name="wrist" joint="wrist"/>
  </actuator>
</mujoco>
"""


def get_model_and_assets() -> tuple[str, dict[str, bytes]]:
    """The model's XML and its includes, as dm_control's domains give them."""
    return _MODEL, common.ASSETS


# The radius of the target in metres.
easy = partial(reacher.Reacher, 0.05)
hard = partial(reacher.Reacher, 0.015)
