"""An import whose disk is full at any moment says so, loses nothing, and goes on with more."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tdmpc2_files import arrays, save

from fmbpo.data.importing.into_store import Import, import_files
from fmbpo.data.store import verify

pytestmark = pytest.mark.slow

PROGRAM = """
import contextlib, json, os, shutil, sys
from pathlib import Path
from fmbpo.data.importing.into_store import Import, import_files
from fmbpo.errors import UserError

file, disk = Path(sys.argv[1]), Path(sys.argv[2])
options, said, filler, calls = json.loads(sys.argv[3]), [], disk / "filler", [0]

def fill():
    descriptor = os.open(filler, os.O_WRONLY | os.O_CREAT)
    with contextlib.suppress(OSError):
        while os.write(descriptor, bytes(4096)):
            pass
    os.close(descriptor)

def attempt(at):
    calls = [0]
    def progress(stage, done, total):
        calls[0] += stage == "episodes"
        if calls[0] == at and not filler.exists():
            fill()
    try:
        if at == 0:
            fill()
        import_files(Import("tdmpc2", [file], **options), disk / "x.zarr", progress=progress)
    except UserError as error:
        return str(error)
    finally:
        filler.unlink(missing_ok=True)

# Full from the beginning, and after some more blocks each time.
messages = [attempt(at) for at in (0, 1, 2, 3, 2, 5, 1, 2, 9)]
print(json.dumps([messages, attempt(-1)]))
shutil.copytree(disk / "x.zarr", sys.argv[4])
"""
OPTIONS = {"block_rows": 400, "chunk_rows": 64}


def test_a_really_full_disk(tmp_path: Path) -> None:
    place, copy = tmp_path / "disk", tmp_path / "copy.zarr"
    place.mkdir()
    mount = f'mount -t tmpfs -o size=4m none {place} && exec "$0" "$@"'
    words = ["unshare", "-m", "sh", "-c", mount]
    if shutil.which("unshare") is None or os.geteuid() != 0:
        pytest.skip("needs a mount of its own")
    if subprocess.run([*words, "true"], capture_output=True).returncode:
        pytest.skip("no mount allowed here")
    file = save(tmp_path / "a.pt", arrays(200, length=51))
    arguments = [str(file), str(place), json.dumps(OPTIONS), str(copy)]
    done = subprocess.run(
        [*words, sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    messages, last = json.loads(done.stdout)
    assert last is None
    assert "the disk is too full: " in messages[0]
    for message in messages[1:]:
        assert "x.zarr.partial: the disk is full; everything written before is kept" in message
        assert "run the same command again: it continues" in message
    verify(copy)
    whole = import_files(Import("tdmpc2", [file], **OPTIONS), tmp_path / "whole.zarr")
    files = [p.relative_to(whole) for p in whole.rglob("*") if p.is_file()]
    assert {p.relative_to(copy) for p in copy.rglob("*") if p.is_file()} == set(files)
    assert all((whole / f).read_bytes() == (copy / f).read_bytes() for f in files)
