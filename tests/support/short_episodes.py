"""Evaluations of 10 steps, simulated in the process that asks for them.

A whole episode has 500 steps, and most of a tiny run's seconds pass in them. How long an episode
is, which process steps it, and whether its environment is new, changes nothing else about a run.
"""

from contextlib import contextmanager

import pytest

from fmbpo.measure.evaluation import Evaluator
from fmbpo.tasks.mt30 import SUITE
from fmbpo.tasks.vector import EpisodeRunner

STEPS = 10

whole = Evaluator.run
_built = {}
"""Environments by task of MT30, which later evaluations use again."""


def short(self, act, tasks, episodes, steps=None, progress=None):
    """In place of ``Evaluator.run``."""
    self.runner._count = 0
    if isinstance(self.runner, EpisodeRunner) and self.runner.suite is SUITE:
        self.runner._inline._pool = _built
    return whole(self, act, tasks, episodes, min(steps or STEPS, STEPS), progress)


@contextmanager
def episodes(run):
    """Evaluations by ``run``: ``short`` or ``whole``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Evaluator, "run", run)
        yield
