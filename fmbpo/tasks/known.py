"""All tasks that are known: those of the installed suites, and those that a file defines.

A distribution offers a `Suite` through an entry point in the group ``fmbpo.tasks``; MT30 is
fmbpo's own. An experiment's tables ``[tasks.NAME]`` define tasks without one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Protocol, TypeAlias

from fmbpo.base.text import text_of
from fmbpo.errors import UserError, did_you_mean
from fmbpo.plugins import entry_points
from fmbpo.tasks import mt30
from fmbpo.tasks.suite import Suite, TaskInfo, union

GROUP = "fmbpo.tasks"
"""The entry-point group of suites."""


class Definition(Protocol):
    """A task that a file defines."""

    def task(self, name: str) -> TaskInfo:
        """Its properties under this name; `UserError` if its environment cannot be built."""


Own: TypeAlias = Mapping[str, Definition]
"""Definitions by the tasks' names."""
NO_OWN: Own = {}


def suites() -> Iterator[Suite]:
    """The installed suites, MT30 first; a suite is imported when its turn comes.

    Raises ``UserError`` for one that cannot be used.
    """
    yield mt30.SUITE
    for name, value, distribution in _offered():
        yield _load(name, value, distribution)


def task_info(name: str, own: Own = NO_OWN) -> TaskInfo:
    """The task of this name, in any spelling; UserError, naming the closest, if none has it."""
    if name in own:
        return own[name].task(name)
    if (suite := suite_with(name)) is not None:
        return suite[name]
    known = [task for suite in suites() for task in suite.names]
    remedy = f"{did_you_mean(name, [*known, *own])} (a table [tasks.NAME] defines a task)"
    raise UserError(f"there is no task {name!r}", remedy=remedy)


def task_name(name: str) -> str:
    """The name of a suite's task from any spelling of it; other names are left as they are."""
    suite = suite_with(name)
    return suite[name].name if suite else name


def suite_with(name: str) -> Suite | None:
    """The installed suite that has a task of this name, in any spelling."""
    return next((suite for suite in suites() if suite.canonical(name) in suite), None)


def suite_of(names: Iterable[str], own: Own = NO_OWN) -> Suite:
    """The whole installed suites of these tasks, MT30 first, and then the defined ones, by name.

    Raises ``UserError`` for an unknown task, and if two suites have tasks of the same name.
    """
    wanted = dict.fromkeys(names)
    defined = tuple(own[name].task(name) for name in sorted(wanted) if name in own)
    used = {id(suite): suite for n in wanted if n not in own and (suite := _needed(n))}
    order = [suite for suite in suites() if id(suite) in used] if len(used) > 1 else used.values()
    both = [*order, *([Suite("own tasks", defined)] if defined else [])]
    found = union(both)
    if len(set(found.names)) < len(found):
        twice = sorted({name for name in found.names if found.names.count(name) > 1})
        what = f"{found.name} have tasks of the same name: {', '.join(twice)}"
        raise UserError(what, remedy="use one suite at a time, or rename the defined task")
    return found


def suites_named(names: Iterable[str]) -> Suite:
    """The tasks of these suites, one after another; `UserError` for a name that none has, and for
    one that comes twice."""
    offered = {suite.name.lower(): suite for suite in suites()}
    found = list[Suite]()
    for name in names:
        key = name.strip().lower()
        if key not in offered:
            what = f"no installed suite has the name {name.strip()!r}"
            remedy = f"install the package that offers it ({did_you_mean(key, offered)})"
            raise UserError(what, where="--suites", remedy=remedy)
        if offered[key] in found:
            what = f"the suite {name.strip()!r} comes twice"
            raise UserError(what, where="--suites", remedy="name each suite once")
        found.append(offered[key])
    return union(found)


def everything(own: Own) -> Suite:
    """All known tasks: those of the installed suites, then the defined ones."""
    tasks = {task.name: task for suite in reversed(list(suites())) for task in suite}
    tasks |= {name: definition.task(name) for name, definition in own.items()}
    order = dict.fromkeys([name for suite in suites() for name in suite.names] + list(own))

    def canonical(name: str) -> str:
        return name if name in own else task_name(name)

    return Suite("the known tasks", tuple(tasks[name] for name in order), canonical)


def _needed(name: str) -> Suite:
    if (suite := suite_with(name)) is None:
        task_info(name)  # raises
    assert suite is not None
    return suite


@cache
def _offered() -> list[tuple[str, str, str]]:
    """Name, value and distribution of every other suite's entry point, by name."""
    return sorted(
        (entry.name, entry.value, distribution)
        for entry, distribution, _ in entry_points([GROUP])[0]
        if entry.value != f"{mt30.__name__}:SUITE"
    )


@cache
def _load(name: str, value: str, distribution: str) -> Suite:
    from importlib.metadata import EntryPoint

    where = f"suite {name!r} ({distribution}, {value})"
    try:
        suite = EntryPoint(name, value, GROUP).load()
    except Exception as error:  # foreign code may raise anything
        what = f"its import fails: {type(error).__name__}: {' '.join(text_of(error).split())}"
        raise UserError(what, where=where, remedy=f"repair or reinstall {distribution}") from error
    if not isinstance(suite, Suite) or not suite.tasks:
        remedy = "let the entry point name a fmbpo.tasks.suite.Suite with at least one task"
        raise UserError("it is not a suite of tasks", where=where, remedy=remedy)
    return suite
