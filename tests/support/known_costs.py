"""The cost of an update, counted once for each configuration.

Counting, on shapes before a run and at its beginning, takes a third of a tiny run's seconds, and
most of the tests' runs have a configuration in common with an earlier one, which has counted.
Plugins are told apart by their hooks themselves, not by their names.
"""

from contextlib import contextmanager

import attrs
import pytest

from fmbpo.running.preflight import remaining
from fmbpo.training.policies import PolicyTraining
from fmbpo.training.pretraining import Pretraining

IRRELEVANT = {"iterations", "seed", "log_every", "validate_every", "evaluate_every",
              "checkpoint_every"}  # fmt: skip
"""Settings on which the cost of an update does not depend."""
_known = {}


def hooks_of(component):
    """The hooks themselves."""
    return component.build, component.predict, component.rollout, component.loss, component.freeze


def key(what, e, tasks, hooks=hooks_of):
    """All that a cost depends on; ``hooks``: what tells a plugin from others."""
    tables = [
        e.world_model,
        *(
            table and {k: v for k, v in attrs.asdict(table).items() if k not in IRRELEVANT}
            for table in (e.pretrain, e.policy_learning)
        ),
        *(e.protocol, e.conventions, e.policy, e.critic),
    ]
    plugins = [hooks(table.component) for table in (e.world_model, e.policy) if table]
    return what, repr(tables), tuple(tasks), tuple(plugins)


def once(count, *parts):
    """``count()``, unless it is known in this process."""
    place = key(*parts)
    if place not in _known:
        _known[place] = count()
    return _known[place]


def always(count, *_):
    """``count()``."""
    return count()


def _on_shapes(what, of):
    real = getattr(remaining, what)

    def cost(by, e, parts):
        return by(lambda: real(e, parts), what, e, map(of, parts))

    return cost


_SHAPES = {
    "pretraining_cost": _on_shapes("pretraining_cost", str),
    "policies_cost": _on_shapes("policies_cost", lambda cell: cell.task),
}
_STAGES = [(stage, stage.__init__, stage.count_flops) for stage in (Pretraining, PolicyTraining)]


@contextmanager
def costs(by):
    """Costs by ``once`` or ``always``, or what works as they do."""
    with pytest.MonkeyPatch.context() as patch:
        for what, cost in _SHAPES.items():
            patch.setattr(remaining, what, lambda e, parts, cost=cost: cost(by, e, parts))
        for stage, make, count in _STAGES:

            def made(self, *arguments, make=make):
                make(self, *arguments)
                (self.experiment,) = (a.experiment for a in arguments if hasattr(a, "experiment"))

            def flops(self, count=count):
                tasks = getattr(self, "tasks", ())
                return by(lambda: count(self), type(self).__name__, self.experiment, tasks)

            patch.setattr(stage, "__init__", made)
            patch.setattr(stage, "count_flops", flops)
        yield
