"""What health gates found: warnings that a run's record, summary and closing table carry."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

_SHOWN = 6
"""Places that a line of text names before it counts the rest."""


@attrs.frozen
class Finding:
    """One gate that did not pass.

    ``gate``: its name; ``message``: what is wrong, the same for every finding of the gate;
    ``detail``: the numbers; ``where``: the cell (``task/seed``), empty for the run as a whole;
    ``since``: the iteration of training at which it was first found, if any.
    """

    gate: str
    message: str
    detail: str = ""
    where: str = ""
    since: int | None = None

    @property
    def key(self) -> tuple[str, str]:
        """Gate and place: what makes it the same finding as an earlier one."""
        return self.gate, self.where

    def to_json(self) -> dict[str, Any]:
        """As it stands in ``summary.json``."""
        return attrs.asdict(self)

    @classmethod
    def from_json(cls, content: Any) -> Finding:
        """The inverse. Raises ``ValueError`` or ``TypeError``."""
        if not isinstance(content, Mapping):
            raise TypeError(f"health: {content!r} is no object")
        found = cls(**content)
        texts = (found.gate, found.message, found.detail, found.where)
        if not all(isinstance(text, str) for text in texts):
            raise TypeError(f"health: {content!r} has texts that are none")
        if found.since is not None and type(found.since) is not int:
            raise TypeError(f"health: since {found.since!r} is no iteration")
        return found


def by_gate(findings: Iterable[Finding]) -> list[str]:
    """A line for each gate: what is wrong, and each place with its own numbers."""
    gates: dict[str, list[Finding]] = {}
    for finding in findings:
        gates.setdefault(finding.message, []).append(finding)
    lines = []
    for message, found in gates.items():
        places = list(filter(None, map(_place, found)))
        shown = "; ".join(places[:_SHOWN])
        more = f"; and {len(places) - _SHOWN} more" if len(places) > _SHOWN else ""
        lines.append(f"{message}: {shown}{more}" if shown else message)
    return lines


def _place(finding: Finding) -> str:
    since = f"since iteration {finding.since}" if finding.since is not None else ""
    parts = [part for part in (finding.detail, since) if part]
    if not finding.where:
        return ", ".join(parts)
    return f"{finding.where} ({', '.join(parts)})" if parts else finding.where
