"""Evaluations of 20 steps, simulated in the process that asks for them.

A whole episode has 500 steps, and two thirds of a tiny run's seconds pass in them. How long an
episode is, and which process steps it, changes nothing else about a run.
"""

from contextlib import contextmanager

import pytest

from fmbpo.measure.evaluation import Evaluator

STEPS = 20

whole = Evaluator.run


def short(self, act, tasks, episodes, steps=None, progress=None):
    """In place of ``Evaluator.run``."""
    self.runner._count = 0
    return whole(self, act, tasks, episodes, min(steps or STEPS, STEPS), progress)


@contextmanager
def episodes(run):
    """Evaluations by ``run``: ``short`` or ``whole``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Evaluator, "run", run)
        yield
