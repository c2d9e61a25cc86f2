"""The other end of ``forks.py``: command lines, and what happens to them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import attrs

PROGRAM = Path(__file__).with_name("forks.py")


@attrs.frozen
class Ended:
    """A process that ended with ``status`` (of a signal: negative), or that is ``stopped``.

    ``at``: the place of the event, empty if it did not happen; ``file``: the file that the event
    concerned; ``said``: stdout and stderr.
    """

    process: int
    stopped: bool
    said: str
    status: int | None = None
    at: str = ""
    file: str = ""


class Forks:
    """Runs command lines one after another, each in a process of its own; a context manager."""

    def __init__(self, folder, *before):
        """``folder`` takes what processes say. ``before``: words in front of the command."""
        self.folder = folder
        self.asked = 0
        self.said = {}
        command = [*before, sys.executable, str(PROGRAM)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, text=True, env=environment
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def run(self, folder, arguments, event=None, here=False):
        """A command line in ``folder``; ``event``: kind, number and act (see ``forks.Event``).
        ``here``: in the process that forks, so that later ones begin warm."""
        self.asked += 1
        said = self.folder / f"said-{self.asked}.txt"
        request = {"folder": str(folder), "arguments": arguments, "event": event, "here": here}
        return self._ask({**request, "said": str(said)}, said)

    def go_on(self, stopped):
        """A process that was stopped, to its end."""
        return self._ask({"continue": stopped.process}, self.said[stopped.process])

    def _ask(self, request, said):
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, "the processes' parent has died"
        ended = Ended(said=said.read_text(), **json.loads(answer))
        self.said[ended.process] = said
        assert "Traceback" not in ended.said, ended.said
        return ended
