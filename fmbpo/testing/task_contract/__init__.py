"""The contract of tasks as checks: plain functions, each of one task of a suite.

``CHECKS`` lists them; ``check_tasks`` runs them for tasks by name, without pytest.
``fmbpo.testing.parametrize_task_checks`` makes pytest tests of them.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence

import attrs

from fmbpo.errors import UserError, did_you_mean
from fmbpo.tasks.known import NO_OWN, Own, suite_with, suites
from fmbpo.tasks.suite import Suite
from fmbpo.testing.outcomes import Check, Outcome, Seen, outcome_of, public_functions, rows
from fmbpo.testing.task_contract import declared, episodes, repeated
from fmbpo.testing.task_contract.subject import INTERFACE, TaskSubject

CHECKS: dict[str, Check] = {
    name: check
    for module in (declared, episodes, repeated)
    for name, check in public_functions(module)
}
"""The checks by name."""


def run_check(subject: TaskSubject, name: str, seen: Seen | None = None) -> Outcome:
    """Run a check; see ``outcome_of``."""
    return outcome_of(name, lambda: CHECKS[name](subject), "task", INTERFACE, seen)


@attrs.frozen
class CheckedTask:
    """A task and the outcomes of its checks."""

    subject: TaskSubject
    outcomes: list[Outcome]

    def to_json(self) -> dict[str, object]:
        """The task and its outcomes as JSON values."""
        checks = [attrs.asdict(outcome) for outcome in self.outcomes]
        return {**_names(self.subject), "checks": checks}

    def table(self) -> Iterator[str]:
        """The task, and the rows of its outcomes."""
        yield "task {task} ({suite})".format(**_names(self.subject))
        yield from rows(self.outcomes)


def _names(subject: TaskSubject) -> dict[str, str]:
    return {"task": subject.task.name, "suite": subject.suite.name}


def subjects(names: Iterable[str], own: Own = NO_OWN) -> list[TaskSubject]:
    """The tasks of these names, each of a suite, of a task in any spelling, or of one of ``own``.

    Raises ``UserError``, naming the closest, for a name that none has, and for a suite or an
    environment that cannot be used.
    """
    found: dict[str, TaskSubject] = {}
    offered = {suite.name.lower(): suite for suite in suites()}
    defined = Suite("own tasks", tuple(table.task(name) for name, table in own.items()))
    for name in names:
        if name in own:
            some = [TaskSubject(defined[name], defined)]
        elif suite := offered.get(name.strip().lower()):
            some = [TaskSubject(task, suite) for task in suite]
        elif suite := suite_with(name):
            some = [TaskSubject(suite[name], suite)]
        else:
            known = [task for suite in suites() for task in suite.names]
            remedy = did_you_mean(name, [*known, *own, *offered])
            raise UserError(f"no suite and no task has the name {name!r}", remedy=remedy)
        for subject in some:
            found.setdefault(subject.task.name, subject)
    return list(found.values())


def check_tasks(
    names: Iterable[str], own: Own, say: Callable[[str], None], checks: Sequence[str] = ()
) -> list[CheckedTask]:
    """Check the tasks that ``subjects`` finds. ``checks``: only these; none: every check.

    The output of tasks goes to stderr. Raises ``UserError`` as ``subjects``, and for a check that
    does not exist.
    """
    for check in checks:
        if check not in CHECKS:
            remedy = did_you_mean(check, CHECKS)
            raise UserError(f"no check {check!r}", where="tasks check", remedy=remedy)
    with contextlib.redirect_stdout(sys.stderr):
        checked = []
        for subject in subjects(names, own):
            say("checking task {task} ({suite})".format(**_names(subject)))
            seen = Seen()
            wanted = [name for name in CHECKS if name in checks or not checks]
            outcomes = [run_check(subject, name, seen) for name in wanted]
            checked.append(CheckedTask(subject, outcomes))
        return checked
