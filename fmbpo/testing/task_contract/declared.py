"""Checks of a task's declarations: its name, its sizes, its environment's attributes."""

from __future__ import annotations

import math
import pickle
import re
from typing import Any

import numpy as np

from fmbpo.runs.folder import PART
from fmbpo.tasks.known import suites
from fmbpo.testing.outcomes import expect, expecting
from fmbpo.testing.task_contract.subject import INTERFACE, TaskSubject, reset, step

_SIZES = ("obs_dim", "action_dim", "episode_steps", "action_repeat")


def keeps_its_interface(subject: TaskSubject) -> None:
    """The environment has the attributes and methods that the engine uses."""
    env, see = subject.task.make(), f"see `Environment` in {INTERFACE}"
    reset(env, 0)
    step(env, subject.actions()[0])
    seconds: Any = env.step_seconds
    kept = isinstance(seconds, int | float | np.floating) and 0 < float(seconds) < math.inf
    expect(kept, "`step_seconds` is a positive number", see, f"{seconds!r}")
    left, ended = env.steps_left, env.terminated
    kept = isinstance(left, int | np.integer) and not isinstance(left, bool)
    expect(kept, "`steps_left` is an integer", see, f"{left!r}")
    expect(isinstance(ended, bool | np.bool_), "`terminated` is a boolean", see, f"{ended!r}")


def name_is_canonical(subject: TaskSubject) -> None:
    """Commands, data and names of runs find the task by its name, in any spelling."""
    name, suite = subject.task.name, subject.suite
    remedy = "use letters, digits, dots, hyphens and single underscores"
    expect(
        bool(re.fullmatch(PART, name)), "the name can be part of a run's name", remedy, repr(name)
    )
    canonical = suite.canonical(name)
    remedy = "let `canonical` return a task's own name unchanged"
    expect(canonical == name, f"the suite's `canonical` keeps {name!r}", remedy, repr(canonical))
    count, remedy = suite.names.count(name), "rename one of the tasks"
    expect(count == 1, f"the suite has one task {name!r}", remedy, f"{count} tasks")
    others = [other.name for other in suites() if other.name != suite.name]
    taken = [x.name for x in suites() if x.name in others and x.canonical(name) in x]
    expect(not taken, "no other suite has a task of this name", "rename it", ", ".join(taken))


def sizes_are_as_declared(subject: TaskSubject) -> None:
    """Networks and data have the declared sizes before an environment is built."""
    task = subject.task
    for name in _SIZES:
        size: Any = getattr(task, name)
        kept = type(size) is int and size >= 1
        expect(kept, f"the task's `{name}` is a positive integer", "correct it", f"{size!r}")
    env = task.make()
    for name in ("obs_dim", "action_dim"):
        declared, found = getattr(task, name), getattr(env, name)
        expected = f"the environment's `{name}` is the task's, {declared}"
        expect(found == declared, expected, "let it be `self.task." + name + "`", f"{found!r}")
    shapes = {reset(env, 0).shape, step(env, subject.actions()[0])[0].shape}
    remedy = "declare the number of entries, or flatten the observation"
    expected = f"observations have the shape [{task.obs_dim}]"
    expect(shapes == {(task.obs_dim,)}, expected, remedy, f"{sorted(shapes)}")


def info_can_be_sent(subject: TaskSubject) -> None:
    """Tasks are sent to the processes that simulate, and are keys of their environments."""
    remedy = "define its class at the top of a module, with @frozen and values that can be hashed"
    with expecting("the task can be pickled and hashed", remedy):
        copy = pickle.loads(pickle.dumps(subject.task))
        equal = copy == subject.task and hash(copy) == hash(subject.task)
    expect(equal, "a pickled copy of the task equals it", remedy, f"{copy!r}")
