"""The contract checks of a plugin as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

from fmbpo.testing.contract import Outcome


def print_checks(title: str, outcomes: Sequence[Outcome], stream: TextIO) -> None:
    """Print one line per check; the message of a failed one follows it."""
    counts = {s: sum(o.status == s for o in outcomes) for s in ("ok", "failed", "skipped")}
    print(title, file=stream)
    width = max(len(outcome.check) for outcome in outcomes)
    for outcome in outcomes:
        reason = f"  {outcome.message}" if outcome.status == "skipped" else ""
        print(f"  {outcome.check.ljust(width)}  {outcome.status}{reason}", file=stream)
        if outcome.status == "failed":
            for line in outcome.message.splitlines():
                print(f"      {line}", file=stream)
    said = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    print(f"  {said}", file=stream)
