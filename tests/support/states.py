"""Gymnasium environments whose state is in odd places; ``"states:states/Noisy-v0"`` as a task."""

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from gymnasium.utils import EzPickle

from fmbpo.tasks.simulator import mujoco


class Point(gymnasium.Env):
    """A point that the action moves; the reward is its place."""

    observation_space = Box(-np.inf, np.inf, (1,))
    action_space = Box(-1, 1, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at = self.np_random.uniform(-1, 1)
        return self.seen(), {}

    def step(self, action):
        self.at += 0.1 * float(action[0]) + self.push()
        return self.seen(), self.at, abs(self.at) > 2, False, {}

    def push(self):
        return 0.0

    def seen(self):
        return np.array([self.at], np.float32)


class Noisy(Point):
    """Steps draw from the random stream."""

    def push(self):
        return float(self.np_random.normal(scale=0.1))


class Bound(Point):
    """An attribute is a bound method, as a chosen reward function is."""

    def reset(self, *, seed=None, options=None):
        self.at, self.chosen = 0.0, self.drift
        return super().reset(seed=seed)

    def drift(self):
        return 0.1 * self.at

    def push(self):
        return self.chosen()


class Heavy(gymnasium.Env):
    """A pendulum in MuJoCo whose reset draws the strength of gravity."""

    observation_space = Box(-np.inf, np.inf, (2,))
    action_space = Box(-1, 1, (1,))
    XML = """<mujoco><worldbody><body><joint name="j" axis="0 1 0"/>
    <geom type="capsule" fromto="0 0 0 0 0 0.5" size="0.05"/></body></worldbody>
    <actuator><motor joint="j"/></actuator></mujoco>"""

    def __init__(self):
        self.model = mujoco.MjModel.from_xml_string(self.XML)
        self.data = mujoco.MjData(self.model)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        mujoco.mj_resetData(self.model, self.data)
        self.model.opt.gravity[2] = self.np_random.uniform(-20, -1)
        self.data.qpos[0] = self.np_random.uniform(-1, 1)
        return self.seen(), {}

    def step(self, action):
        self.data.ctrl[:] = action
        mujoco.mj_step(self.model, self.data, nstep=5)
        return self.seen(), float(np.cos(self.data.qpos[0])), False, False, {}

    def seen(self):
        return np.array([self.data.qpos[0], self.data.qvel[0]], np.float32)


class Tired(gymnasium.Wrapper):
    """Rewards fall with the wrapper's own count of steps."""

    def reset(self, **given):
        self.steps = 0
        return super().reset(**given)

    def step(self, action):
        obs, reward, *ends = super().step(action)
        self.steps += 1
        return obs, reward / self.steps, *ends


PUSHES = {"next": 0.0}


class Global(Point):
    """A part of the state is the module's."""

    def push(self):
        PUSHES["next"] = (PUSHES["next"] + 0.01) % 0.07
        return PUSHES["next"]


class Rebuilt(Point, EzPickle):
    """A copy is built anew."""

    def __init__(self):
        EzPickle.__init__(self)
        self.at = 0.0


class Inner(Point):
    """Another environment, whose copies are built anew, is an attribute."""

    def __init__(self):
        self.inner = Rebuilt()

    def push(self):
        self.inner.at += 0.01
        return self.inner.at


class Uncopied(Point):
    """An attribute cannot be copied."""

    def __init__(self):
        self.pushes = (0.01 for _ in iter(int, 1))

    def push(self):
        return next(self.pushes)


def tired():
    """Wrapped, with a limit of time within the wrapper."""
    return Tired(gymnasium.wrappers.TimeLimit(Noisy(), 12))


for name, made in {
    "Noisy": Noisy, "Bound": Bound, "Heavy": Heavy, "Tired": tired, "Global": Global,
    "Inner": Inner, "Uncopied": Uncopied,
}.items():  # fmt: skip
    gymnasium.register(f"states/{name}-v0", entry_point=made, max_episode_steps=20)
