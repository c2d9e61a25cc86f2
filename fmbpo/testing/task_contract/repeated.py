"""Checks of repeated episodes: the seed and the actions determine them, and nothing else does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from fmbpo.errors import UserError
from fmbpo.tasks.suite import RestorableEnvironment
from fmbpo.testing.outcomes import NotCheckedError, expect
from fmbpo.testing.task_contract.subject import (
    STEPS,
    TaskSubject,
    Trace,
    continued,
    equal,
    played,
    reset,
    step,
)

_SIZE = 96, 64
"""Width and height of the pictures, in pixels."""
_PICTURES = 5


def seed_determines_the_episode(subject: TaskSubject) -> None:
    """All policies are compared from the same initial states, and a run can be repeated."""
    _ = subject.beginning


def reset_forgets_the_last_episode(subject: TaskSubject) -> None:
    """Evaluation uses environments again: an episode is as in a new one."""
    env = subject.task.make()
    played(env, subject.actions(seed=1), seed=1)
    again = played(env, subject.actions())
    expected = "after other steps, a reset with a seed begins the same episode as in a new one"
    subject.expect_beginning(again, expected, "set the whole state in `reset`")


def random_stream_continues(subject: TaskSubject) -> None:
    """A reset without a seed follows from the last seed, so that its episodes can be repeated."""
    _ = subject.beginning
    found = []
    for _ in range(2):
        env = subject.task.make()
        reset(env, 3)
        found.append(reset(env))
    expected = "resets without a seed continue the random stream of the last seed"
    remedy = "keep the generator in `reset` if `seed` is None; make none without a seed"
    expect(equal(*found), expected, remedy, "they differ in two new environments")


def environments_are_independent(subject: TaskSubject) -> None:
    """Many environments of a task run side by side, in any order."""
    one, other = subject.task.make(), subject.task.make()
    actions = subject.actions(steps=STEPS + 1, seed=1)

    def step_the_other(t: int) -> None:
        if not other.steps_left:
            reset(other, 1)
        step(other, actions[t])

    expected = "an episode does not depend on other environments"
    remedy = "keep the state in the instance, not in its class or module"
    trace = played(one, subject.actions(), between=step_the_other)
    subject.expect_beginning(trace, expected, remedy)


def padding_has_no_effect(subject: TaskSubject) -> None:
    """In a suite with wider actions, ``step`` is given more entries than the task has."""
    padding = np.random.default_rng(2).uniform(-1, 1, (STEPS, 2)).astype(np.float32)
    wide = np.concatenate([subject.actions(), padding], axis=1)
    expected = "`step` uses the first `action_dim` entries of its action"
    remedy = "begin with action[: self.action_dim]"
    subject.expect_beginning(played(subject.task.make(), wide), expected, remedy)


def leaves_its_action_alone(subject: TaskSubject) -> None:
    """The action is recorded after the step."""
    env = subject.task.make()
    reset(env, 0)
    for action in subject.actions():
        given = action.copy()
        if env.steps_left:
            step(env, given)
        kept = np.array_equal(given, action)
        expect(
            kept, "`step` leaves its action as it was", "copy it first", f"{given}, not {action}"
        )


def observations_stay_as_they_were(subject: TaskSubject) -> None:
    """Data and policies keep observations while the episode goes on."""
    env = subject.task.make()
    found = [reset(env, 0)]
    copies = [found[0].copy()]
    for action in subject.actions():
        if env.steps_left:
            found.append(step(env, action.copy())[0])
            copies.append(found[-1].copy())
    kept = all(equal(*pair) for pair in zip(found, copies, strict=True))
    expected = "later steps leave an observation as it was returned"
    expect(kept, expected, "return a new array from each call", "its numbers change")


def a_state_continues_its_episode(subject: TaskSubject) -> None:
    """The planner tries actions in a second environment, which it sets to the present state."""
    env, other = subject.task.make(), subject.task.make()
    if not isinstance(env, RestorableEnvironment) or not isinstance(other, RestorableEnvironment):
        raise NotCheckedError("it has no get_state and set_state, which only the planner needs")
    _ = subject.beginning
    actions, half, wanted = subject.actions(), STEPS // 2, Trace()
    played(env, actions[:half])
    reset(other, 1)
    try:
        state = env.get_state()
        continued(env, actions[half:], wanted)
        for _ in range(2):
            other.set_state(state)
            found = Trace()
            continued(other, actions[half:], found)
            difference = wanted.difference(found)
            expected = "another environment continues from a state as the first one did"
            remedy = "copy all that later steps depend on, and let no step change the copy"
            expect(not difference, expected, remedy, difference)
    except UserError as error:
        raise NotCheckedError(f"its states cannot be set: {error.what}") from error


def pictures_show_the_state(subject: TaskSubject) -> None:
    """Films have the size that was asked for, and move."""
    pictures, whole = list[Any](), subject.episodes[0]
    every = max(1, (len(whole.obs) - 1) // _PICTURES)
    with _drawing():
        env = subject.task.make(drawable=True)
        with env.camera(_SIZE) as camera:
            take = lambda t: None if t % every else pictures.append(camera.draw())  # noqa: E731
            played(env, subject.patterns[0], between=take)
    width, height = _SIZE
    wanted = f"uint8 [{height}, {width}, 3]"
    for picture in pictures:
        found = f"a {type(picture).__name__}"
        if isinstance(picture, np.ndarray):
            found = f"{picture.dtype} {list(picture.shape)}"
        expected = f"a picture of the size {width}x{height} is {wanted}"
        remedy = "the size is (width, height), the array [height, width, 3]"
        expect(found == wanted, expected, remedy, found)
    moves = any(not equal(whole.obs[0], obs) for obs in whole.obs)
    changed = any(not np.array_equal(pictures[0], picture) for picture in pictures)
    remedy = "draw the current state in every call of `draw`"
    expect(changed or not moves, "pictures change with the state", remedy, "all are equal")


def drawing_changes_nothing(subject: TaskSubject) -> None:
    """A filmed episode is the one that was evaluated."""
    with _drawing():
        env = subject.task.make(drawable=True)
        with env.camera(_SIZE) as camera:
            draw = lambda t: camera.draw() if t < _PICTURES else None  # noqa: E731
            trace = played(env, subject.actions(), between=draw)
    expected = "an episode that is drawn equals one that is not"
    remedy = "let `draw` read the state, and draw no random number"
    subject.expect_beginning(trace, expected, remedy)


@contextmanager
def _drawing() -> Iterator[None]:
    """A task without pictures, or a machine that cannot draw, says so by `UserError`."""
    try:
        yield
    except UserError as error:
        raise NotCheckedError(f"no pictures: {error.what}") from error
