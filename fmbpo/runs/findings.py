"""Findings of the health gates: warnings in a run's record, summary and closing table."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

_SHOWN = 6
"""Places that a line names; it counts the rest."""


@attrs.frozen
class Finding:
    """One gate that did not pass.

    ``message``: the problem, the same for every finding of the ``gate``; ``detail``: the numbers;
    ``where``: the cell (``task/seed``), empty for the whole run; ``since``: the iteration of
    training that first found it, if any.
    """

    gate: str
    message: str
    detail: str = ""
    where: str = ""
    since: int | None = None

    @property
    def key(self) -> tuple[str, str]:
        """Gate and place, which identify the problem in later findings."""
        return self.gate, self.where


def by_gate(findings: Iterable[Finding]) -> list[str]:
    """One line per gate: the problem, and each place with its numbers."""
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
    numbers = ", ".join(part for part in (finding.detail, since) if part)
    return f"{finding.where} ({numbers})" if finding.where and numbers else finding.where or numbers
