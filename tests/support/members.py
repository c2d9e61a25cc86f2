"""Groups of forked processes, as torchrun would start them, but without its seconds."""

import contextlib
import io
import os
import pickle
import signal
import socket
import sys
import time
import traceback

from fmbpo.cli import main
from fmbpo.distributed.group import Group
from fmbpo.running.following import follow

PATIENCE = 120
"""Seconds after which a process that hangs is killed."""


class Members:
    """Processes, each of which runs ``work(rank)`` and ends with the status that it returns."""

    def __init__(self, size, work):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        place = {"WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size),
                 "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
                 "TORCHELASTIC_RUN_ID": "test"}  # fmt: skip
        self.pids = []
        for rank in range(size):
            if child := os.fork():
                self.pids.append(child)
                continue
            status = 1
            try:
                signal.alarm(PATIENCE)
                os.environ |= {**place, "RANK": str(rank), "LOCAL_RANK": str(rank)}
                status = work(rank)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)

    def wait(self):
        """Exit statuses by rank; of a signal: negative."""
        return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in self.pids]


class Said(io.FileIO):
    """A file that halts whoever writes ``halt`` to it, until there is a file named ``on``."""

    def __init__(self, path, halt):
        super().__init__(path, "w")
        self.halt, self.on = halt, path.with_name("on")

    def write(self, content):
        written = super().write(content)
        while self.halt and self.halt in bytes(content).decode() and not self.on.exists():
            time.sleep(0.002)
        return written


def command(size, folder, words, halt=None):
    """Processes that run a command line in ``folder``; each writes to ``folder/said-RANK.txt``, and
    halts at the text ``halt`` until ``folder/on`` exists."""

    def work(rank):
        os.chdir(folder)
        raw = Said(folder / f"said-{rank}.txt", halt)
        said = io.TextIOWrapper(io.BufferedWriter(raw), line_buffering=True)
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            return main(words)

    return Members(size, work)


def said(folder, rank=0):
    """The text that a member of ``command`` has written."""
    file = folder / f"said-{rank}.txt"
    return file.read_text() if file.exists() else ""


def wait_until(folder, text):
    """Until the leader of ``command`` has written it."""
    deadline = time.monotonic() + PATIENCE
    while text not in said(folder):
        assert time.monotonic() < deadline, said(folder)
        time.sleep(0.002)


def signalled(members, rank, number, folder, at):
    """Send a signal to a member that has halted at a text, and let it go on."""
    wait_until(folder, at)
    os.kill(members.pids[rank], number)
    (folder / "on").touch()


def together(size, lead):
    """The result of ``lead(group)`` in the leader, whom the other processes follow."""
    reader, writer = os.pipe()

    def work(rank):
        os.close(reader)
        group = Group.joined()
        if rank:
            follow(group)
        else:
            content = pickle.dumps(lead(group))
            with os.fdopen(writer, "wb") as pipe:
                pipe.write(content)
        group.leave()
        return 0

    members = Members(size, work)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        content = pipe.read()
    assert members.wait() == [0] * size
    return pickle.loads(content)
