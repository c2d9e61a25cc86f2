"""Checks of whole episodes: observations, rewards, the counted steps, the end."""

from __future__ import annotations

import numpy as np

from fmbpo.base.text import said
from fmbpo.tasks.suite import Environment, SimulationError
from fmbpo.testing.outcomes import ContractError, expect
from fmbpo.testing.task_contract.subject import Actions, TaskSubject, played, reset, step

_LARGEST = float(np.finfo(np.float32).max)
"""The largest reward that data hold."""
_ROUNDING = 1e-6


def observations_are_finite_float32(subject: TaskSubject) -> None:
    """Data and networks hold float32; one NaN would end a run."""
    for trace in subject.episodes:
        for t, obs in enumerate(trace.obs):
            remedy = "convert it: observation.astype(np.float32)"
            kept = obs.dtype == np.float32
            expect(kept, "observations are float32", remedy, f"{obs.dtype} at step {t}")
            remedy = "raise SimulationError if the simulation diverges; look for a division by 0"
            finite = bool(np.isfinite(obs).all())
            expect(finite, "observations are finite", remedy, f"{obs} at step {t}")


def rewards_are_finite_numbers(subject: TaskSubject) -> None:
    """Returns are sums of rewards, which the data hold as float32."""
    for trace in subject.episodes:
        for t, reward in enumerate(trace.rewards, 1):
            found = f"{reward!r} at step {t}"
            number = np.ndim(reward) == 0 and isinstance(reward, int | float | np.number)
            expect(number, "a reward is a number", "return float(reward)", found)
            kept = abs(float(reward)) <= _LARGEST  # false for NaN
            remedy = "scale the rewards, or look for a division by 0"
            expect(kept, f"rewards are within ±{_LARGEST:g}, the range of float32", remedy, found)


def rewards_stay_below_the_largest(subject: TaskSubject) -> str:
    """A health gate compares imagined returns with ``largest_reward``."""
    largest = subject.task.largest_reward
    if largest is None:
        return "the task declares no largest reward"
    found = max(float(np.max(r)) for trace in subject.episodes for r in trace.rewards)
    remedy = "declare the largest sum over the repeated steps, or None if it is not known"
    kept = not found > largest + _ROUNDING * abs(largest)
    expect(kept, f"no reward is above `largest_reward`, {largest:g}", remedy, f"{found:g}")
    return f"{found:.3g} of at most {largest:g}"


def steps_are_counted_down(subject: TaskSubject) -> None:
    """``steps_left`` alone says when an episode is over, and ``terminated`` why."""
    longest = subject.task.episode_steps
    for trace in subject.episodes:
        left = trace.steps_left
        expected = f"after a reset, `steps_left` is from 1 to `episode_steps`, {longest}"
        remedy = "set it in `reset`, and declare the steps of the longest episode"
        expect(1 <= left[0] <= longest, expected, remedy, f"{left[0]}")
        for t in range(1, len(left)):
            found = f"{left[t - 1]}, then {left[t]} at step {t}"
            expected = "`steps_left` falls by 1 in every step, or to 0 if the episode ends"
            expect(left[t] in (left[t - 1] - 1, 0), expected, "set it in `step`", found)
            over = left[t] == 0 or not trace.terminated[t]
            expected = "`terminated` is False while the episode goes on"
            expect(over, expected, "set steps_left = 0 with it", f"True at step {t}")
        found = f"{left[-1]} steps left after {len(left) - 1} steps"
        expect(left[-1] == 0, f"an episode ends after at most {longest} steps", remedy, found)


def time_up_is_no_termination(subject: TaskSubject) -> str:
    """A terminated episode has no return beyond its end, whereas one that was cut off has."""
    late = [i for i, trace in enumerate(subject.episodes) if trace.time_is_up]
    ends = [subject.episodes[i].terminated[-1] for i in late]
    if ends and all(ends):  # by chance, perhaps
        more = [played(subject.task.make(), subject.patterns[i], seed=9) for i in late]
        ends += [trace.terminated[-1] for trace in more if trace.time_is_up]
    expected = "an episode that is only over because its time is up has `terminated` False"
    remedy = "set it from the state alone, as Gymnasium does, not from `steps_left`"
    found = f"{len(ends)} of {len(ends)} episodes without a step left are terminated"
    expect(len(ends) < 2 or not all(ends), expected, remedy, found)
    terminated = sum(trace.terminated[-1] for trace in subject.episodes)
    return f"{terminated} of {len(subject.episodes)} episodes are terminated"


def a_reset_begins_anew(subject: TaskSubject) -> None:
    """Environments are used again: after an episode, ``reset`` begins another."""
    env = subject.played_to_the_end()
    reset(env)
    expected, remedy = "after a reset, `terminated` is False", "set it in `reset`"
    expect(not env.terminated, expected, remedy, "True, as at the end of the last episode")
    expected, remedy = "after a reset, there are steps left", "set `steps_left` in `reset`"
    expect(env.steps_left > 0, expected, remedy, f"{env.steps_left}")
    step(env, subject.actions()[0])


def an_episode_that_is_over_refuses_steps(subject: TaskSubject) -> None:
    """A step that belongs to no episode is a mistake of the caller, which must not go unseen."""
    action = subject.actions()[0]
    _refuses(subject.task.make(), action, "no episode has begun")
    env = subject.played_to_the_end()
    if env.steps_left == 0:  # else another check fails
        _refuses(env, action, "the episode is over")


def bad_actions_are_refused(subject: TaskSubject) -> None:
    """A policy that diverged gives NaN, which must not become a return."""
    action = subject.actions()[0]
    bad = {"NaN": action * np.nan, "infinite": action * np.inf, "too short": action[:-1]}
    for what, given in bad.items():
        env = subject.task.make()
        reset(env, 0)
        _refuses(env, given, f"the action is {what}")


def _refuses(env: Environment, action: Actions, reason: str) -> None:
    """`ContractError` if ``step`` does not raise `SimulationError`."""
    found = "no error"
    try:
        env.step(action.copy())
    except SimulationError:
        return
    except Exception as error:  # foreign code may raise anything
        found = said(error)
    remedy = "begin `step` with this test, and name the task and the reason"
    raise ContractError(f"`step` raises SimulationError if {reason}", remedy, found)
