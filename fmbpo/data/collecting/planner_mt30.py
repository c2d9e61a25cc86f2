"""The planner's model of a task of MT30: many futures at once, and rewards from their states.

MuJoCo's batched rollout replaces environment steps, and numpy computes the task's reward for all
states of the rollout: through dm_control, a reward costs as much as 16 physics steps.
"""

from __future__ import annotations

import importlib
import warnings

import numpy as np
from attrs import frozen

from fmbpo.data.collecting.planner import PlanSettings
from fmbpo.data.collecting.planner_rewards import SENSORS, Floats, Frames, Reward
from fmbpo.tasks.custom import reacher_three_model
from fmbpo.tasks.env import TaskEnv
from fmbpo.tasks.mt30 import ACTION_REPEAT, mt30_task
from fmbpo.tasks.simulator import mujoco, rollout
from fmbpo.tasks.suite import Environment

# The fields of the model that tasks change at a reset (targets, sizes, damping).
_RESET_FIELDS = ("geom_pos", "geom_size", "site_pos", "site_size", "dof_damping")


@frozen
class PlanTask:
    """The planner's entry for a task of MT30.

    Attributes:
        settings: the search settings.
        reward: the task's own reward of one control step, [N, K] from `Frames`.
        shaping: added only while planning, never recorded.
    """

    settings: PlanSettings
    reward: Reward
    shaping: Reward = lambda _: np.zeros(())


class Mt30Model:
    """The task's MuJoCo model with the planner's sensors; rolls out batches on one core.

    See `fmbpo.data.collecting.planner.Model`.
    """

    def __init__(self, name: str, task: PlanTask, coarse: int | None = None) -> None:
        self.task = task
        info = mt30_task(name)
        source = importlib.import_module(f"dm_control.suite.{info.domain}").get_model_and_assets
        if info.name.startswith("reacher-three"):
            source = reacher_three_model
        xml, assets = source()
        spec = mujoco.MjSpec.from_string(xml.decode() if isinstance(xml, bytes) else xml, assets)
        for sensor in SENSORS:  # sensors do not change the dynamics
            quantity, kind, found = sensor.split()
            if getattr(spec, kind.removeprefix("x"))(found) is not None:
                spec.add_sensor(
                    name=sensor,
                    type=getattr(mujoco.mjtSensor, f"mjSENS_FRAME{quantity.upper()}"),
                    objtype=getattr(mujoco.mjtObj, f"mjOBJ_{kind.upper()}"),
                    objname=found,
                )
        with warnings.catch_warnings():
            # The cheetah uses an attribute that MuJoCo calls deprecated.
            warnings.filterwarnings("ignore", message=".*settotalmass.*")
            self.model = spec.compile()
        self.action_dim = int(self.model.nu)
        self.coarse = task.settings.coarse if coarse is None else coarse
        self.model.opt.timestep *= self.coarse
        self._data = mujoco.MjData(self.model)
        self._rollout = rollout.Rollout(nthread=0)
        self._spec = mujoco.mjtState.mjSTATE_FULLPHYSICS
        self._state = np.zeros(mujoco.mj_stateSize(self.model, self._spec))
        self._warmstart = np.zeros(self.model.nv)

    def sync(self, env: Environment) -> None:
        """See `Model`; ``env`` is a `TaskEnv` of the task."""
        assert isinstance(env, TaskEnv)
        physics = env.env.physics
        model, data = physics.model.ptr, physics.data.ptr
        for name in _RESET_FIELDS:
            getattr(self.model, name)[:] = getattr(model, name)
        self._per_step = (
            ACTION_REPEAT * round(env.env.control_timestep() / physics.timestep()) // self.coarse
        )
        mujoco.mj_getState(model, data, self._state, self._spec)
        self._warmstart[:] = data.qacc_warmstart

    def frames(self, actions_NHU: Floats) -> Frames:
        """The states that N action sequences of H agent steps lead to.

        Returns:
            `Frames` with K = 2 H (after every control step), or K = H if the coarse time step
            does not divide a control step.
        """
        N, H, _ = actions_NHU.shape
        steps = self._per_step * H
        # One extra step: a row of sensor readings belongs to the state *before* its step.
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

    def returns(self, actions_NHU: Floats) -> Floats:
        """See `Model`; with the shaping."""
        return np.asarray(self.rewards(actions_NHU, shaped=True).sum(1))

    def rewards(self, actions_NHU: Floats, shaped: bool = False) -> Floats:
        """[N, H] rewards of agent steps (sums over control steps), plus shaping on request."""
        frames = self.frames(actions_NHU)
        reward_NK = self.task.reward(frames)
        if shaped:
            reward_NK = reward_NK + self.task.shaping(frames)
        N, H, _ = actions_NHU.shape
        return np.asarray(reward_NK.reshape(N, H, -1).mean(-1) * ACTION_REPEAT)
