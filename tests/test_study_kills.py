"""A study that is killed or stopped anywhere ends as if nothing had happened.

Moments are the n-th line, save or step (``support/forks.py``), so that they are the same on a slow
machine and on a fast one.
"""

import random
import signal
from collections import Counter

import pytest
from small_study import assert_same, registry

pytestmark = pytest.mark.slow

KILLS = 50
SIGNALS = ("SIGKILL", "SIGTERM", "SIGUSR1", "SIGTERM SIGUSR1")  # the last one ends at once
MOMENTS = {
    "import": (2, {"save": 6}),
    "study": (15, {"save": 40, "line": 28, "step": 120}),
    "imported": (5, {"save": 30, "line": 15, "step": 120}),
    "report": (4, {"save": 14, "line": 12}),
}
"""Most kills of a command in a round, and the last event of each kind that it is killed at; some
come after its end."""


def test_killed_at_random_moments(forks, small_study, whole_study, tmp_path):
    rng, at, signals, rounds = random.Random(0), Counter(), Counter(), 0
    while at.total() < KILLS:
        rounds += 1
        folder = small_study.write(tmp_path / str(rounds))
        for name, arguments in small_study.commands.items():
            left, moments = MOMENTS[name]
            done = False
            while not done:
                event = None
                if left and at.total() < KILLS:
                    kind = rng.choice(list(moments))
                    names = SIGNALS[at.total() % len(SIGNALS)]
                    event = [kind, rng.randint(1, moments[kind]), names]
                    if name == "study" and left == MOMENTS[name][0]:  # in pretraining, surely
                        event = ["line", rng.randint(20, 23), names]
                ended = forks.run(folder, arguments, event)
                done = ended.status == 0
                if not ended.at:  # left alone, or too late
                    assert done, ended.said
                    continue
                left -= 1
                at[ended.at] += 1
                signals[names] += 1
                if names == "SIGKILL":
                    assert ended.status == -signal.SIGKILL
                elif not done:
                    assert ended.status == 75, ended.said
                    assert "the same command continues" in ended.said
        assert_same(forks, folder, whole_study)
    assert rounds >= 2
    places = ("import", "pretraining", "checkpoint", "policies", "evaluation", "report")
    assert min(at[place] for place in places) >= 2, at
    assert min(signals.values()) >= KILLS // len(SIGNALS)


@pytest.mark.parametrize(
    ("kind", "number", "at", "states"),
    [
        ("line", 20, "pretraining", {"running", "queued"}),
        ("step", 60, "evaluation", {"running", "queued", "completed"}),
    ],
)
def test_a_second_process_is_refused(
    kind, number, at, states, forks, small_study, whole_study, tmp_path
):
    """While the first one stands still, and goes on as if nothing had been."""
    folder, study = small_study.write(tmp_path / "two"), small_study.commands["study"]
    first = forks.run(folder, study, [kind, number, "SIGSTOP"])
    assert first.stopped
    second = forks.run(folder, study)
    assert second.status == 2
    assert f"this run is being worked on by process {first.process} on " in second.said
    assert {entry["state"] for entry in registry(forks, folder)} == states
    first = forks.go_on(first)
    assert (first.status, first.at) == (0, at)
    small_study.finish(forks, folder, "import", "imported", "report")
    assert_same(forks, folder, whole_study)
