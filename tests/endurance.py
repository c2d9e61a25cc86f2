"""Run the tests marked ``endurance`` and write their result to ``docs/endurance.md``.

What a test records with ``record_property`` is its count in the table.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch

from fmbpo.training.device import hardware

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "endurance.md"
TEXT = """# Endurance runs

`make endurance` runs the long versions of some tests, with large samples or with many kills and
stops at random moments; `make test` runs their short versions. Each test asserts that its result is
right: after kills, it must equal that of an uninterrupted run, bit for bit. `tests/endurance.py`
writes this page, which shows the latest result.

{date}, commit {commit}, {machine}: {passed} of {tests} passed in {minutes:.0f} minutes.

| test | outcome | cases | seconds | counts |
| --- | --- | --: | --: | --- |
{rows}

```json
{result}
```
"""


class Recorder:
    """A plugin of pytest that keeps each test's outcome, cases, seconds and counts."""

    def __init__(self) -> None:
        self.tests: dict[str, dict[str, Any]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        new = {"outcome": "passed", "cases": 0, "seconds": 0.0, "counts": {}}
        one = self.tests.setdefault(report.nodeid.partition("[")[0], new)
        one["cases"] += report.when == "setup"
        one["seconds"] = round(one["seconds"] + report.duration, 1)
        one["counts"] |= dict(report.user_properties)
        if report.failed or (report.skipped and one["outcome"] == "passed"):
            one["outcome"] = report.outcome


def git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip()


def page(result: dict[str, Any]) -> str:
    """The text of ``docs/endurance.md``."""
    tests = result["tests"]
    rows = []
    for name, one in tests.items():
        counts = "; ".join(f"{key}: {told(value)}" for key, value in one["counts"].items())
        numbers = f"{one['cases']} | {one['seconds']:.0f}"
        rows.append(f"| `{name}` | {one['outcome']} | {numbers} | {counts} |")
    return TEXT.format(
        **{name: result[name] for name in ("date", "commit", "machine")},
        passed=sum(one["outcome"] == "passed" for one in tests.values()),
        tests=len(tests),
        minutes=result["seconds"] / 60,
        rows="\n".join(rows),
        result=json.dumps(result, indent=1),
    )


def told(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{count} {name}" for name, count in value.items())
    return str(value)


def main(workers: str) -> int:
    """The exit status of pytest; the page is written whether the tests pass or fail."""
    begin, recorder = datetime.now(UTC), Recorder()
    changed = " and changes" if git("status", "--porcelain", "fmbpo", "plugins") else ""
    commit = git("rev-parse", "--short", "HEAD") + changed
    words = ["-m", "endurance", "-n", workers, "--dist", "worksteal", "tests", "plugins"]
    status = pytest.main([f"--rootdir={ROOT}", *words], plugins=[recorder])
    if recorder.tests:
        result = {
            "date": f"{begin:%Y-%m-%d %H:%M} UTC",
            "commit": commit,
            "machine": hardware(torch.device("cpu")),
            "seconds": round((datetime.now(UTC) - begin).total_seconds()),
            "tests": dict(sorted(recorder.tests.items())),
        }
        PAGE.write_text(page(result), encoding="utf-8")
    return int(status)


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main(*sys.argv[1:]))
