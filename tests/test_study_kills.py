"""A study that is killed or stopped anywhere ends as if nothing had happened.

Moments are the n-th line, save or step (``support/forks.py``), so that they are the same on a slow
machine and on a fast one.
"""

import os
import random
import signal
from collections import Counter

import pytest
from small_study import assert_same, registry

pytestmark = pytest.mark.slow

SIGNALS = ("SIGKILL", "SIGTERM", "SIGUSR1", "SIGTERM SIGUSR1")  # the last one ends at once
KILLS = {
    "import": [("save@import", 2, "SIGKILL")],
    "study": [
        ("line@pretraining", 2, "SIGTERM"),
        ("save@checkpoint", 3, "SIGKILL"),
        ("line@policies", 2, "SIGTERM SIGUSR1"),
        ("step@evaluation", 30, "SIGKILL"),
    ],
    "imported": [("step@evaluation", 15, "SIGUSR1")],
    "report": [("save@report", 5, "SIGKILL")],
}
"""One kill or request to stop at each place that a study comes to."""


def test_killed_at_every_place(forks, small_study, whole_study, tmp_path):
    folder = small_study.write(tmp_path / "study")
    for name, arguments in small_study.commands.items():
        for event in KILLS[name]:
            ended = forks.run(folder, arguments, event)
            assert ended.at == event[0].partition("@")[2], ended.said
            assert_stopped(ended, event[2])
        assert forks.run(folder, arguments).status == 0
    assert_same(forks, folder, whole_study)


def assert_stopped(ended, signals):
    """The process ended as its signals ask it to."""
    if signals == "SIGKILL":
        assert ended.status == -signal.SIGKILL
    else:
        assert ended.status == 75, ended.said
        assert "the same command continues" in ended.said


MANY = 50
MOMENTS = {
    "import": (2, {"save": 6}),
    "study": (15, {"save": 40, "line": 28, "step": 60}),
    "imported": (5, {"save": 30, "line": 15, "step": 60}),
    "report": (4, {"save": 14, "line": 12}),
}
"""The most kills of a command per round, and the last event of each kind that it is killed at; some
events come after its end."""


@pytest.mark.endurance
def test_killed_at_random_moments(forks, small_study, whole_study, tmp_path, record_property):
    rng, at, signals, rounds = random.Random(0), Counter(), Counter(), 0
    while at.total() < MANY:
        rounds += 1
        folder = small_study.write(tmp_path / str(rounds))
        for name, arguments in small_study.commands.items():
            left, moments = MOMENTS[name]
            done = False
            while not done:
                event = None
                if left and at.total() < MANY:
                    kind = rng.choice(list(moments))
                    names = SIGNALS[at.total() % len(SIGNALS)]
                    event = [kind, rng.randint(1, moments[kind]), names]
                    if name == "study" and left == MOMENTS[name][0]:
                        event = ["line@pretraining", rng.randint(1, 4), names]
                ended = forks.run(folder, arguments, event)
                done = ended.status == 0
                if not ended.at:  # left alone, or too late
                    assert done, ended.said
                    continue
                left -= 1
                at[ended.at] += 1
                signals[names] += 1
                if names == "SIGKILL" or not done:
                    assert_stopped(ended, names)
        assert_same(forks, folder, whole_study)
    record_property("kills", dict(at.most_common()))
    record_property("signals", dict(signals))
    record_property("studies", rounds)
    assert rounds >= 2
    places = ("import", "pretraining", "checkpoint", "policies", "evaluation", "report")
    assert min(at[place] for place in places) >= 2, at
    assert min(signals.values()) >= MANY // len(SIGNALS)


def test_a_second_process_waits(forks, small_study, whole_study, tmp_path):
    """While the first one stands still; when that is stopped, it continues the first one's work."""
    folder, study = small_study.write(tmp_path / "two"), small_study.commands["study"]
    first = forks.run(folder, study, ("step@evaluation", 30, "SIGSTOP"))
    assert first.stopped
    waiting = forks.run(folder, study, ("line@study", 2, "SIGTERM"))
    refused = forks.run(folder, [*study, "--no-wait"])
    for ended, words in ((waiting, "waits for"), (refused, "in use by")):
        assert ended.status == 75, ended.said
        assert f"{words} process {first.process} on " in ended.said
    states = {entry["state"] for entry in registry(forks, folder)}
    assert states == {"running", "queued", "completed"}
    second = forks.run(folder, study, ("line@study", 2, "SIGSTOP"))
    assert second.stopped
    os.kill(first.process, signal.SIGTERM)
    assert forks.go_on(first).status == 75
    ended = forks.go_on(second)
    assert ended.status == 0, ended.said
    assert "policies: continues at " in ended.said
    small_study.finish(forks, folder, "import", "imported", "report")
    assert_same(forks, folder, whole_study)
