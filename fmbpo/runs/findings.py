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

    ``gate``: its name, the same in every run; ``where``: the cell (``task/seed``), empty for the
    run as a whole; ``since``: the iteration of training at which it was first found, if any.
    """

    gate: str
    message: str
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
        if not all(isinstance(text, str) for text in (found.gate, found.message, found.where)):
            raise TypeError(f"health: {content!r} has texts that are none")
        if found.since is not None and type(found.since) is not int:
            raise TypeError(f"health: since {found.since!r} is no iteration")
        return found


def by_gate(findings: Iterable[Finding]) -> list[str]:
    """A line for each gate: what the first finding says, and where all of them are."""
    gates: dict[str, list[Finding]] = {}
    for finding in findings:
        gates.setdefault(finding.gate, []).append(finding)
    lines = []
    for found in gates.values():
        places = [f.where for f in found if f.where]
        shown = ", ".join(places[:_SHOWN])
        more = f" and {len(places) - _SHOWN} more" if len(places) > _SHOWN else ""
        begins = [f.since for f in found if f.since is not None]
        since = f", since iteration {min(begins)}" if begins else ""
        at = f"{shown}{more}: " if shown else ""
        lines.append(f"{at}{found[0].message}{since}")
    return lines
