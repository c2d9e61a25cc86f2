"""What the checks of plugins and of tasks share: their failures, their outcomes, and the table."""

from __future__ import annotations

import inspect
import re
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs

import fmbpo
from fmbpo.base.text import said, text_of
from fmbpo.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

Check: TypeAlias = Callable[[Any], str | None]
"""Takes a subject; raises ``ContractError`` if the subject breaks the contract, and
``ContractWarning`` if it does what is a fault in most. A check that measures returns what it
measured."""
Seen: TypeAlias = dict[tuple[str, ...], str]
"""Errors of the subject's code (kind, text and place) and broken expectations (their text); and the
first check that each stopped."""


class ContractError(AssertionError):
    """The contract is broken: the expectation, the remedy, the finding."""

    def __init__(self, expected: str, remedy: str, found: str = "it is not so") -> None:
        super().__init__(f"expected: {expected}\n   found: {found}\n  remedy: {remedy}")


class ContractWarning(UserWarning):
    """A subject does what is a fault in most and sound in some."""


def doubt(found: str, fault_if: str, remedy: str) -> ContractWarning:
    """The warning of a check: the finding, when it is a fault, the remedy."""
    return ContractWarning(f"     found: {found}\na fault if: {fault_if}\n    remedy: {remedy}")


class NotCheckedError(Exception):
    """A check cannot be made here; the text is the reason."""


def expect(kept: bool | Tensor, *reason: str) -> None:
    """Raise ``ContractError(*reason)`` if ``kept`` is false."""
    if not kept:
        raise ContractError(*reason)


@contextmanager
def expecting(expected: str, remedy: str) -> Iterator[None]:
    """Any exception inside becomes a ``ContractError``."""
    try:
        yield
    except ContractError:
        raise
    except (Exception, SystemExit) as error:
        raise ContractError(expected, remedy, said(error)) from error


def some_of(names: list[str], most: int = 4) -> str:
    """The first ``most`` names, and the number of the others."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def public_functions(module: ModuleType) -> Iterator[tuple[str, Check]]:
    """A module's own checks: its functions without an underscore."""
    for name, check in vars(module).items():
        own = inspect.isfunction(check) and check.__module__ == module.__name__
        if own and not name.startswith("_"):
            yield name, check


@attrs.frozen
class Outcome:
    """The outcome of a check.

    ``ok``: with what it measured, if it measures. ``failed`` and ``skipped``: with the reason.
    ``warned``: with what it found, and when that is a fault; the contract is kept.
    ``stopped``: by the same error as an earlier check, which is named.
    """

    check: str
    status: str
    message: str = ""


def outcome_of(
    name: str, check: Callable[[], str | None], whose: str, interface: str, seen: Seen | None
) -> Outcome:
    """Run a check. An exception is a failure of ``whose`` code, which is the word for the subject;
    ``interface``: the file that describes it.

    ``seen``: errors of the subject's earlier checks; the check is ``stopped`` by one of them, or
    adds its own.
    """
    try:
        return Outcome(name, "ok", check() or "")
    except NotCheckedError as reason:
        return Outcome(name, "skipped", str(reason))
    except ContractWarning as warning:
        return Outcome(name, "warned", str(warning))
    except (Exception, SystemExit) as error:
        broken = error if isinstance(error, ContractError) else _raised(error, whose, interface)
        cause = _cause(error)
        if seen is not None and cause and seen.setdefault(cause, name) != name:
            return Outcome(name, "stopped", f"by the same error as {seen[cause]}")
        return Outcome(name, "failed", str(broken))


def rows(outcomes: list[Outcome]) -> Iterator[str]:
    """A line per check, with the message of each one that failed or warned below it; then their
    numbers."""
    width = max(len(outcome.check) for outcome in outcomes)
    stopped: dict[str, list[str]] = {}
    for outcome in outcomes:
        if outcome.status == "stopped":
            stopped.setdefault(outcome.message, []).append(outcome.check)
            continue
        below = outcome.status in ("failed", "warned")
        beside = "" if below else f"  {outcome.message}"
        yield f"  {outcome.check.ljust(width)}  {outcome.status.ljust(7)}{beside}".rstrip()
        if below:
            yield from (f"      {line}" for line in outcome.message.splitlines())
    for reason, checks in stopped.items():
        yield f"  stopped {reason}: {', '.join(checks)}"
    statuses = ("ok", "warned", "failed", "stopped", "skipped")
    counts = {s: sum(o.status == s for o in outcomes) for s in statuses}
    yield "  " + ", ".join(f"{count} {status}" for status, count in counts.items() if count)


def _raised(error: BaseException, whose: str, interface: str) -> ContractError:
    """The error of a subject that raises. A ``UserError`` has a remedy; for others it is the
    place, the last frame in the subject's code."""
    if isinstance(error, UserError) and error.remedy:
        what = UserError(error.what, where=error.where)
        return ContractError(f"the {whose} completes this check", error.remedy, str(what))
    place = f"compare its results and attributes with {interface}"
    if frame := _own_frame(error):
        place = f"see {frame.filename}:{frame.lineno}, in {frame.name}"
    return ContractError(
        f"the {whose} completes this check", place, f"the {whose} fails: {said(error)}"
    )


def _cause(error: BaseException) -> tuple[str, ...] | None:
    """What tells an error from others: that in the subject's code, whatever the shapes in its text;
    or a broken expectation."""
    raised = error.__cause__ if isinstance(error, ContractError) else error
    if raised is None or isinstance(raised, UserError):
        return (str(error),)
    if not (frame := _own_frame(raised)):
        return None
    text = re.sub(r"\d+", "#", text_of(raised))
    return type(raised).__name__, text, f"{frame.filename}:{frame.lineno}"


def _own_frame(error: BaseException) -> traceback.FrameSummary | None:
    """The last frame in the subject's code."""
    torch = find_spec("torch")
    homes = [f"{Path(file).parent}/" for file in (torch and torch.origin, fmbpo.__file__) if file]
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not any(home in f.filename for home in homes)]
    return own[-1] if own else None
