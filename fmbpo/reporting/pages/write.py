"""The report's folder: written elsewhere, then moved into place; it only replaces a report."""

from __future__ import annotations

import glob
import itertools
import json
import os
import re
import socket
from pathlib import Path

from fmbpo.base.files import disk_errors, fsync_path, remove_tree
from fmbpo.compare.comparison import Comparison
from fmbpo.errors import UserError
from fmbpo.reporting.pages.csv_files import csv_files
from fmbpo.reporting.pages.render import html, parts_of, picture_files

_LIST = "report.json"
"""The list of the report's files, which a later report may replace."""


def write_report(comparison: Comparison, out: Path) -> list[Path]:
    """Write ``report.html``, CSV files and figures to the folder ``out``.

    Returns the files' paths, the page first. Replaces an earlier report in ``out``. Equal
    comparisons give equal bytes; places inside the working directory are relative to it. Raises
    ``UserError`` if ``out`` contains anything else or cannot be written; it leaves no incomplete
    report.
    """
    out = check_place(out)
    parts = parts_of(comparison)
    texts = {"report.html": html(comparison, parts), **csv_files(comparison)}
    texts |= {f"figures/{name}": text for name, text in picture_files(parts).items()}
    texts[_LIST] = json.dumps({"kind": "fmbpo report", "files": sorted(texts)}, indent=2) + "\n"
    aside, old = (out.with_name(f"{_beside(out)}{os.getpid()}.{kind}") for kind in ("aside", "old"))
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
            remove_tree(aside)
            if out.exists():  # else ``old`` is all that is left of the report
                remove_tree(old)
        fsync_path(out.parent)
    return [out / name for name in texts]


def _replace(new: Path, place: Path, old: Path) -> None:
    """Move ``place`` to ``old``, ``new`` to ``place``; undone if it fails or a signal ends it."""
    try:
        if place.exists():
            place.rename(old)
        new.rename(place)
    except BaseException:
        if old.exists() and not place.exists():
            old.rename(place)
        raise


def _beside(out: Path) -> str:
    """The prefix of this host's temporary folders beside ``out``; the process number follows."""
    return f".{out.name}.{socket.gethostname()}-"


def _sweep(out: Path) -> None:
    """Remove the folders that killed processes of this host left beside the report."""
    begin = _beside(out)
    for left in out.parent.glob(f"{glob.escape(begin)}*"):
        writer = re.fullmatch(r"(\d+)\.(aside|old)", left.name[len(begin) :])
        if writer:
            try:
                os.kill(int(writer[1]), 0)
            except ProcessLookupError:
                remove_tree(left)
            except OSError:
                pass  # another user's process


def check_place(out: Path) -> Path:
    """``out`` with links resolved; ``UserError`` unless it is absent, empty or just a report."""
    out = Path(os.path.realpath(out))  # Path.resolve raises RuntimeError for cyclic links
    with disk_errors(out):
        if not out.exists():
            return out
        listed = _listed(out)
        found = (path.relative_to(out).as_posix() for path in out.rglob("*") if not path.is_dir())
        # Only the first few: it may be the root of a disk.
        strange = sorted(itertools.islice((name for name in found if name not in listed), 5))
    if strange or not out.is_dir():
        what = f"contains {', '.join(strange)}" if strange else "is a file"
        raise UserError(
            f"this is not a report that may be replaced: it {what}",
            where=str(out),
            remedy="name a folder that is empty, does not exist yet, or contains a report",
        )
    return out


def _listed(out: Path) -> set[str]:
    """The files of the report in ``out``; empty if there is no report."""
    try:
        content = json.loads((out / _LIST).read_bytes())
        return {_LIST, *map(str, content["files"])} if content["kind"] == "fmbpo report" else set()
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return set()
