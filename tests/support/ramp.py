"""A Gymnasium environment of which every number is known; ``"ramp:ramp/Ramp-v0"`` as a task."""

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict

LOW, HIGH = np.array([[0.0, -3.0]]), np.array([[4.0, 1.0]])


class Ramp(gymnasium.Env):
    """The observation counts the steps of an episode, beside its random length; the reward is the
    sum of the actions. An episode ends after its length."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(self, render_mode=None, truncates=False, observes="box", length=0):
        self.render_mode, self.truncates, self.length = render_mode, truncates, length
        box = Box(-np.inf, np.inf, (2, 1))
        self.observation_space = box if observes == "box" else Dict({"all": box})
        self.action_space = Box(LOW, HIGH, dtype=np.float64)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at, self.end = 0, self.length or int(self.np_random.integers(2, 30))
        return self.seen(), {}

    def step(self, action):
        assert action.shape == LOW.shape
        assert self.action_space.contains(action)
        self.at += 1
        over = self.at == self.end
        ends = over and not self.truncates, over and self.truncates
        return self.seen(), float(action.sum()), *ends, {}

    def seen(self):
        return np.array([[self.at], [self.end]], np.float32)

    def render(self):
        return np.full((20, 30, 3), self.at, np.uint8)


gymnasium.register("ramp/Ramp-v0", entry_point=Ramp, max_episode_steps=20)
gymnasium.register("ramp/Endless-v0", entry_point=Ramp)
