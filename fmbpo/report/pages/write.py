"""The report's folder: written aside, moved in place whole, never over what is not a report."""

from __future__ import annotations

import glob
import itertools
import json
import os
import re
import shutil
import socket
from pathlib import Path

from fmbpo.base.files import disk_errors, fsync_path
from fmbpo.compare.result import Comparison
from fmbpo.errors import UserError
from fmbpo.report.pages.csv_files import csv_files
from fmbpo.report.pages.markdown import markdown_text
from fmbpo.report.pages.render import html, page, picture_files

FIGURES = "figures"
"""The folder of the figures that Markdown refers to."""
_LIST = "report.json"
"""Names the files of the report: what a later one may replace."""


def write_report(comparison: Comparison, out: Path) -> list[Path]:
    """Write ``report.html``, ``report.md``, CSV files and figures to the folder ``out``.

    Returns the files' paths, the page first. A report that is there already is replaced. Equal
    comparisons give equal bytes. Raises ``UserError`` where ``out`` holds anything else, or cannot
    be written; nothing half-written is left.
    """
    out = _resolved(out)
    check_place(out)
    content = page(comparison)
    texts = {"report.html": html(content), "report.md": markdown_text(content, FIGURES)}
    texts |= csv_files(comparison)
    texts |= {f"{FIGURES}/{name}": text for name, text in picture_files(content).items()}
    texts[_LIST] = json.dumps({"kind": "fmbpo report", "files": sorted(texts)}, indent=2) + "\n"
    mine = _beside(out) + str(os.getpid())
    aside, old = out.with_name(f"{mine}.aside"), out.with_name(f"{mine}.old")
    _sweep(out)
    with disk_errors(out):
        try:
            for name, text in texts.items():
                path = aside / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8", newline="\n")
                fsync_path(path)
            _replace(aside, out, old)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
            if out.exists():  # else it is all that is left of the report
                shutil.rmtree(old, ignore_errors=True)
        fsync_path(out.parent)
    return [out / name for name in texts]


def _replace(new: Path, place: Path, old: Path) -> None:
    """Move ``new`` to ``place``; what was there goes to ``old``, and back if the move fails.

    Or if a signal ends it in between.
    """
    try:
        if place.exists():
            place.rename(old)
        new.rename(place)
    except BaseException:
        if old.exists() and not place.exists():
            old.rename(place)
        raise


def _beside(out: Path) -> str:
    """How names of what this host's processes write beside ``out`` begin; their numbers follow."""
    return f".{out.name}.{socket.gethostname()}-"


def _sweep(out: Path) -> None:
    """Remove what killed processes of this host left beside the report."""
    begin = _beside(out)
    for left in out.parent.glob(f"{glob.escape(begin)}*"):
        writer = re.fullmatch(r"(\d+)\.(aside|old)", left.name[len(begin) :])
        if writer and not _lives(int(writer[1])):
            shutil.rmtree(left, ignore_errors=True)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's
    return True


def check_place(out: Path) -> None:
    """Raise ``UserError`` unless ``out`` is absent, empty, or a report and nothing else."""
    out = _resolved(out)
    with disk_errors(out):
        if not out.exists():
            return
    listed = _listed(out)
    with disk_errors(out):
        found = (path.relative_to(out).as_posix() for path in out.rglob("*") if not path.is_dir())
        # Only the first few: it may be the root of a disk.
        strange = sorted(itertools.islice((name for name in found if name not in listed), 5))
    if strange or not out.is_dir():
        what = f"holds {', '.join(strange)}" if strange else "is a file"
        raise UserError(
            f"no report of a comparison is there to replace: it {what}",
            where=str(out),
            remedy="name a folder that is empty, that is not there yet, or that holds a report",
        )


def _resolved(out: Path) -> Path:
    return Path(os.path.realpath(out))  # Path.resolve raises RuntimeError for links in a circle


def _listed(out: Path) -> set[str]:
    """The files that the report in ``out`` consists of; none where there is no report."""
    try:
        content = json.loads((out / _LIST).read_bytes())
        if content["kind"] != "fmbpo report":
            return set()
        return {_LIST, *map(str, content["files"])}
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return set()
