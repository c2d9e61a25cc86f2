"""The simulator as the planner uses it: many futures at once, and rewards from their states.

MuJoCo's batched rollout replaces environment steps, and the task's reward is written in numpy
over all states of the rollout: through dm_control, a reward costs as much as 16 physics steps.
"""

from __future__ import annotations

import os

os.environ.setdefault("MUJOCO_GL", "disable")

import importlib
import warnings
from collections.abc import Callable

import mujoco
import numpy as np
from attrs import frozen
from dm_control.rl import control
from mujoco import rollout
from numpy.typing import NDArray

from fmbpo.tasks.env import ACTION_REPEAT
from fmbpo.tasks.mt30 import task_info

Floats = NDArray[np.float64]

_OBJECTS = {
    "xbody": mujoco.mjtObj.mjOBJ_XBODY,
    "body": mujoco.mjtObj.mjOBJ_BODY,
    "geom": mujoco.mjtObj.mjOBJ_GEOM,
    "site": mujoco.mjtObj.mjOBJ_SITE,
}
_KINDS = {"pos": mujoco.mjtSensor.mjSENS_FRAMEPOS, "zaxis": mujoco.mjtSensor.mjSENS_FRAMEZAXIS}
# The fields of the model that tasks change at a reset (targets, sizes, damping).
_RESET_FIELDS = ("geom_pos", "geom_size", "site_pos", "site_size", "dof_damping")


@frozen
class Sensor:
    """A frame sensor added to the planning model; sensors do not change the dynamics.

    Attributes:
        kind: ``pos`` (position, metres) or ``zaxis`` (the frame's z axis), world frame.
        object: ``xbody`` (a body's frame), ``body`` (its centre of mass), ``geom`` or ``site``.
        name: the object's name in the model.
    """

    kind: str
    object: str
    name: str

    @property
    def key(self) -> str:
        """The sensor's name in the model and in `Frames.sensor`."""
        return f"plan-{self.kind}-{self.object}-{self.name}"


@frozen
class PlanSettings:
    """How hard the planner searches in one task.

    Attributes:
        samples: candidate action sequences per decision.
        horizon: their length in agent steps.
        knots: knots of the interpolated noise.
        sigma: standard deviation of the noise at the knots, in units of action.
        temperature: of the exponential weights, relative to the returns' standard deviation.
        elites: candidates that are averaged.
        coarse: multiple of the task's physics time-step used while planning.
        repeats: share of the candidates that repeat past actions periodically, below 1.
    """

    samples: int
    horizon: int
    knots: int
    sigma: float
    temperature: float = 0.2
    elites: int = 8
    coarse: int = 1
    repeats: float = 0.0


def _no_shaping(_frames: Frames) -> Floats:
    return np.zeros(())


@frozen
class PlanTask:
    """The planner's entry for a task.

    Attributes:
        reward: the task's own reward of one control step, [N, K] from `Frames`.
        settings: the search settings.
        shaping: added while planning only, never recorded.
        sensors: frame sensors that reward and shaping need.
        source: returns the model's XML and its assets; None: those of dm_control's domain.
    """

    reward: Callable[[Frames], Floats]
    settings: PlanSettings
    shaping: Callable[[Frames], Floats] = _no_shaping
    sensors: tuple[Sensor, ...] = ()
    source: Callable[[], tuple[str | bytes, dict[str, bytes]]] | None = None


@frozen
class Frames:
    """States of N futures at K moments.

    Attributes:
        model: the planning model (sizes, names).
        qpos: [N, K, nq] positions.
        qvel: [N, K, nv] velocities.
        ctrl: [N, K, nu] the action that led to the state.
        sensordata: [N, K, nsensordata], of the same states.
    """

    model: mujoco.MjModel
    qpos: Floats
    qvel: Floats
    ctrl: Floats
    sensordata: Floats

    def sensor(self, sensor: Sensor | str) -> Floats:
        """[N, K, dim] readings of an added sensor, or by name of a sensor of the model."""
        found = self.model.sensor(sensor.key if isinstance(sensor, Sensor) else sensor)
        start = int(found.adr[0])
        return self.sensordata[..., start : start + int(found.dim[0])]

    def position(self, joint: str) -> Floats:
        """[N, K] position of a hinge (radians) or slide (metres)."""
        return self.qpos[..., int(self.model.joint(joint).qposadr[0])]

    def velocity(self, joint: str) -> Floats:
        """[N, K] velocity of a hinge or slide, per second."""
        return self.qvel[..., int(self.model.joint(joint).dofadr[0])]


class PlanningModel:
    """A task's model with the planner's sensors; rolls out batches on one core."""

    def __init__(self, name: str, task: PlanTask, coarse: int | None = None) -> None:
        self.task = task
        info = task_info(name)
        if task.source is None:
            domain = importlib.import_module(f"dm_control.suite.{info.domain}")
            xml, assets = domain.get_model_and_assets()
        else:
            xml, assets = task.source()
        text = xml.decode() if isinstance(xml, bytes) else xml
        spec = mujoco.MjSpec.from_string(text, assets)
        for sensor in task.sensors:
            spec.add_sensor(
                name=sensor.key,
                type=_KINDS[sensor.kind],
                objtype=_OBJECTS[sensor.object],
                objname=sensor.name,
            )
        with warnings.catch_warnings():
            # The cheetah uses an attribute that MuJoCo calls deprecated.
            warnings.filterwarnings("ignore", message=".*settotalmass.*")
            self.model = spec.compile()
        self.coarse = task.settings.coarse if coarse is None else coarse
        self.model.opt.timestep *= self.coarse
        self._data = mujoco.MjData(self.model)
        self._rollout = rollout.Rollout(nthread=0)
        self._spec = mujoco.mjtState.mjSTATE_FULLPHYSICS
        self._state = np.zeros(mujoco.mj_stateSize(self.model, self._spec))
        self._warmstart = np.zeros(self.model.nv)
        self._per_step = 0

    @property
    def action_dim(self) -> int:
        """Width of an action."""
        return int(self.model.nu)

    def sync(self, env: control.Environment) -> None:
        """Copy the current state of a dm_control environment."""
        model, data = env.physics.model.ptr, env.physics.data.ptr
        for name in _RESET_FIELDS:
            getattr(self.model, name)[:] = getattr(model, name)
        self._per_step = (
            ACTION_REPEAT * round(env.control_timestep() / env.physics.timestep()) // self.coarse
        )
        mujoco.mj_getState(model, data, self._state, self._spec)
        self._warmstart[:] = data.qacc_warmstart

    def frames(self, actions_NHU: Floats) -> Frames:
        """The states that N action sequences of H agent steps lead to.

        Returns:
            `Frames` with K = 2 H (after every control step), or K = H if the coarse time-step
            does not divide a control step.
        """
        N, H, _ = actions_NHU.shape
        steps = self._per_step * H
        # One step more than needed: a sensor row belongs to the state *before* its step.
        control = np.repeat(actions_NHU, self._per_step, axis=1)
        control = np.concatenate([control, control[:, -1:]], axis=1)
        state, sensordata = self._rollout.rollout(
            self.model,
            self._data,
            np.tile(self._state, (N, 1)),
            control,
            initial_warmstart=np.tile(self._warmstart, (N, 1)),
        )
        every = self._per_step if self._per_step % ACTION_REPEAT else self._per_step // 2
        at = np.arange(every, steps + 1, every)
        state = state[:, at - 1]
        nq, nv = self.model.nq, self.model.nv
        return Frames(
            model=self.model,
            qpos=state[..., 1 : 1 + nq],
            qvel=state[..., 1 + nq : 1 + nq + nv],
            ctrl=control[:, at - 1],
            sensordata=sensordata[:, at],
        )

    def rewards(self, actions_NHU: Floats) -> Floats:
        """[N, H] the task's own reward of every agent step (sum over its control steps)."""
        return self._per_agent_step(self.task.reward(self.frames(actions_NHU)), actions_NHU)

    def returns(self, actions_NHU: Floats) -> Floats:
        """[N] undiscounted returns with shaping, which the planner maximises."""
        frames = self.frames(actions_NHU)
        reward = self.task.reward(frames) + self.task.shaping(frames)
        return np.asarray(self._per_agent_step(reward, actions_NHU).sum(1))

    def _per_agent_step(self, reward_NK: Floats, actions_NHU: Floats) -> Floats:
        N, H, _ = actions_NHU.shape
        return np.asarray(reward_NK.reshape(N, H, -1).mean(-1) * ACTION_REPEAT)
