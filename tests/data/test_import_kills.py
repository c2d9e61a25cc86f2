"""An import that is killed anywhere, however often, ends with the same bytes."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tdmpc2_files import arrays, save

PROGRAM = Path(__file__).parent.parent / "support" / "import_forks.py"
KINDS = ["tdmpc2", "tdmpc2-compressed", "npz"]


class Server:
    """The other end of ``import_forks.py``, which runs in ``process``."""

    def __init__(
        self,
        process: subprocess.Popen[str],
        kind: str,
        sources: list[Path],
        options: dict[str, Any],
    ) -> None:
        self.process = process
        self.request = {"kind": kind, "sources": [str(s) for s in sources], "options": options}

    def run(self, out: Path, kill: int = 0) -> tuple[int, int]:
        """Status and number of events of one process."""
        line = json.dumps({**self.request, "out": str(out), "kill": kill})
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        status, count = json.loads(self.process.stdout.readline())
        return status, count


@pytest.fixture(scope="module")
def process():
    """One for all tests: it imports once."""
    pipe, command = subprocess.PIPE, [sys.executable, str(PROGRAM)]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        yield process
        process.stdin.close()


@pytest.fixture
def server(request, process, tmp_path):
    kind, _, compressed = request.param.partition("-")
    sources = []
    for number in range(3):
        given = arrays(11 + number, length=5, seed=number)
        path = tmp_path / f"part_{number}.{'npz' if kind == 'npz' else 'pt'}"
        if kind == "npz":
            rows = {name: np.nan_to_num(given[name]) for name in ("obs", "action", "reward")}
            np.savez_compressed(
                path,
                **{name: values.reshape(-1, *values.shape[2:]) for name, values in rows.items()},
                episode_ends=np.arange(1, 12 + number) * 5,
                task=np.array("walker-run"),
            )
        else:
            save(path, given)
        sources.append(path)
    options = {"block_rows": 10, "chunk_rows": 16, "compress": bool(compressed)}
    return Server(process, kind, sources, options)


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def kill_at_random_moments(server: Server, folder: Path, least: int) -> int:
    """So many kills or a few more; the most that came in a row."""
    whole = folder / "whole.zarr"
    status, events = server.run(whole)
    assert status == 0
    assert events > 200
    expected, rng, kills, rounds, in_a_row = content(whole), random.Random(0), 0, 0, 0
    while kills < least:
        rounds += 1
        out, row = folder / f"{rounds}.zarr", 0
        # Early ones more often than late ones: a continued import is shorter.
        while (status := server.run(out, rng.randint(1, events // (1 + rounds % 3)))[0]) != 0:
            assert status == -signal.SIGKILL
            assert not out.exists() or content(out) == expected
            kills, row = kills + 1, row + 1
            in_a_row = max(in_a_row, row)
            if row == 12:
                assert server.run(out)[0] == 0
                break
        assert content(out) == expected
        assert not list(folder.glob("*.partial"))
    return in_a_row


@pytest.mark.parametrize("server", ["tdmpc2", "npz"], indirect=True)
def test_a_few_kills_at_random_moments(server, tmp_path):
    kill_at_random_moments(server, tmp_path, 6)


@pytest.mark.endurance
@pytest.mark.parametrize("server", KINDS, indirect=True)
def test_many_kills_at_random_moments(server, tmp_path):
    assert kill_at_random_moments(server, tmp_path, 40) >= 3


@pytest.mark.parametrize(
    "server",
    [pytest.param(kind, marks=pytest.mark.endurance if kind != "npz" else ()) for kind in KINDS],
    indirect=True,
)
def test_killed_again_and_again_a_little_further(server, tmp_path):
    """Each process comes a few events further than it takes to continue."""
    whole, out = tmp_path / "whole.zarr", tmp_path / "again.zarr"
    _, events = server.run(whole)
    step, kills = events // 4, 0
    while (status := server.run(out, step)[0]) != 0:
        assert status == -signal.SIGKILL
        kills, step = kills + 1, step + 7
    assert kills >= 3
    assert content(out) == content(whole)
