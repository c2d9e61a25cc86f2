"""Command lines in forked processes, in which something happens at the n-th event of a kind.

Run as a program it imports once, and then forks a process for each request: starting costs next to
nothing. A request and its answer are lines of JSON (see ``Forks`` in ``forked.py``, the other end).
"""

import builtins
import contextlib
import errno
import hashlib
import importlib
import io
import json
import os
import pickle
import signal
import sys
import threading
from pathlib import Path

from known_costs import costs, key
from small_pictures import small

from fmbpo.cli import main
from fmbpo.reporting import curves
from fmbpo.running import run
from fmbpo.tasks.vector import EpisodeRunner
from fmbpo.training import behaviour_cloning

IMPORTS = (
    "fmbpo.library",
    "fmbpo.compare.guard",
    "fmbpo.compare.reading",
    "fmbpo.running.preflight",
    "fmbpo.running.study",
    "fmbpo.interop.checkpoints",
    "fmbpo.reporting.pages",
    "fmbpo.reporting.closing_table",
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_svg",
    "matplotlib.figure",
    "matplotlib.style",
    "rich.table",
    "safetensors.torch",
    "scipy.stats",
    "torch._dynamo",
)
"""What commands import when they need it; here once, so that no process has to."""
STEPS = 20
"""Of an episode. Its length, and which process steps it, changes nothing about what is saved."""
BUILT = {}
"""Environments by task, which later processes use again."""
WHERE = {
    "fmbpo.interop.checkpoints": "import",
    "fmbpo.reporting.pages.write": "report",
    "fmbpo.cli.runs": "report",
    "fmbpo.runs.heartbeat": "heartbeat",
    "fmbpo.runs.checkpoint": "checkpoint",
    "fmbpo.measure.evaluation": "evaluation",
    "Runner._pretrain": "pretraining",
    "Runner._policies": "policies",
    "StudyRunner.run": "study",
}
"""What a process is at when one of these modules or functions is at work; the first one counts."""


class Episodes(EpisodeRunner):
    """Short ones, stepped in this process; each step is an event."""

    event: "Event | None" = None

    def __init__(self, _, suite):
        super().__init__(0, suite)
        self._inline._pool = BUILT

    def run(self, act, tasks, seeds, _=None, progress=None):
        def stepped(obs, step):
            if self.event is not None:
                self.event.happens("step")
            return act(obs, step)

        return super().run(stepped, tasks, seeds, STEPS, progress)


class Event:
    """The ``number``-th time that something of a ``kind`` happens, and what follows.

    Kinds: ``line`` is said on stderr, ``save`` is a file or a name that is brought to the disk,
    ``open`` a file that is opened to be written, ``step`` one of an episode. ``line@policies``
    counts only those at that place (see ``WHERE``). Then ``act``:
    ``SIGKILL`` and its like, once or (``SIGTERM SIGTERM``) more often; ``fill PATH``: a file there
    takes all the space that is left; ``full``: every save and open fails from now on.
    """

    def __init__(self, kind, number, act, report):
        self.kind, _, self.place = kind.partition("@")
        self.left, self.act, self.report = number, act, report
        self.full = False

    def happens(self, kind, file=""):
        """Of the main thread alone: heartbeats come when they come."""
        counts = kind == self.kind and threading.current_thread() is threading.main_thread()
        if counts and self.place in ("", where()):
            self.left -= 1
            if not self.left:
                os.write(self.report, f"{where()}\n{file}".encode())
                self._act()
        if self.full and kind in ("save", "open"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _act(self):
        if self.act == "full":
            self.full = True
        elif self.act.startswith("fill "):
            fill(Path(self.act.removeprefix("fill ")))
        else:
            for name in self.act.split():
                os.kill(os.getpid(), getattr(signal, name))

    def arm(self):
        """Watch what this process does."""
        for name in ("fsync", "rename", "replace"):
            setattr(os, name, self._before("save", getattr(os, name)))
        builtins.open = io.open = self._before("open", io.open, written)
        sys.stderr = Lines(sys.stderr.buffer, self)
        Episodes.event = self

    def _before(self, kind, call, concerns=lambda *_: True):
        def watched(*arguments, **options):
            if concerns(*arguments, **{k: v for k, v in options.items() if k == "mode"}):
                self.happens(kind, name(arguments[-1] if kind == "save" else arguments[0]))
            return call(*arguments, **options)

        return watched


def written(_, mode="r", *__):
    """Whether ``open`` with these arguments makes or empties a file."""
    return mode[0] in "wxa"


class Lines(io.TextIOWrapper):
    """stderr, of which each line is an event."""

    def __init__(self, buffer, event):
        super().__init__(buffer, encoding="utf-8", write_through=True)
        self.event = event

    def write(self, text):
        written = super().write(text)
        for _ in range(text.count("\n")):
            self.event.happens("line")
        return written


def name(file):
    """Of a path, or of the file that an open descriptor is."""
    return os.path.basename(os.readlink(f"/proc/self/fd/{file}") if type(file) is int else file)


def where():
    """What this process is at, in a word."""
    frame, names = sys._getframe(1), set()
    while frame is not None:
        names |= {frame.f_globals.get("__name__"), frame.f_code.co_qualname}
        frame = frame.f_back
    return next((place for name, place in WHERE.items() if name in names), "start")


def fill(path):
    """All the space that is left on a disk, to the last byte."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with contextlib.suppress(OSError):
        while os.write(descriptor, bytes(1 << 16)):
            pass
    os.close(descriptor)


class Counted:
    """For ``costs``: what one process has counted, another one finds in a folder. No event."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, count, *parts):
        names = repr(key(*parts, hooks=lambda plugin: plugin.value)).encode()
        file = self.folder / f"cost-{hashlib.sha256(names).hexdigest()}"
        with contextlib.suppress(FileNotFoundError, EOFError):
            return pickle.loads(file.read_bytes())
        found = count()
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT)
        os.write(descriptor, pickle.dumps(found))
        os.close(descriptor)
        return found


def fork(request):
    """Begin what is asked for; its process and where it tells what it was at."""
    told, report = os.pipe()
    child = os.fork()
    if child:
        os.close(report)
        return child, told
    said = os.open(request["said"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(said, stream)
    if request["event"]:
        Event(*request["event"], report).arm()
    status = command(request)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def command(request):
    """Run the command line in its folder; its exit status."""
    os.chdir(request["folder"])
    with costs(Counted(Path(request["said"]).parent)):
        return main(request["arguments"])


def here(request):
    """In this process: later ones begin with the caches and the environments that this leaves."""
    with (
        open(request["said"], "w") as said,
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
    ):
        return {"process": 0, "stopped": False, "status": command(request)}


def awaited(child, told):
    """What happened to the process, when it has ended or is stopped."""
    _, status = os.waitpid(child, os.WUNTRACED)
    ended = {"process": child, "stopped": os.WIFSTOPPED(status)}
    if not ended["stopped"]:
        with os.fdopen(told.pop(child)) as place:
            at, _, file = place.read().partition("\n")
        ended |= {"status": os.waitstatus_to_exitcode(status), "at": at, "file": file}
    return ended


def serve():
    """Answer requests until there are no more."""
    answers = os.fdopen(os.dup(1), "w")
    for module in IMPORTS:
        importlib.import_module(module)
    run.EpisodeRunner = Episodes
    curves.draw = small
    behaviour_cloning.UPDATES = 2
    told = {}
    for line in sys.stdin:
        request = json.loads(line)
        if request.get("here"):
            ended = here(request)
        else:
            if "arguments" in request:
                child, told[child] = fork(request)
            else:
                child = request["continue"]
                os.kill(child, signal.SIGCONT)
            ended = awaited(child, told)
        print(json.dumps(ended), file=answers, flush=True)


if __name__ == "__main__":
    serve()
