"""Imports in forked processes that are killed at the n-th thing that they do to a file.

Each line of stdin is a request in JSON: fields of `Import`, ``out`` and ``kill``, 0 for never.
The answer is the process's status and how much it did. Counted in every thread: opening, renaming,
removing, truncating, making and syncing of files.
"""

import json
import os
import signal
import sys
from pathlib import Path

from fmbpo.data.importing.into_store import Import, import_files

EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link"}


def arm(kill, place):
    """The process dies at number ``kill``; the count."""
    count = [0]

    def happens(event, arguments):
        if event in EVENTS and place in str(arguments[0]):
            count[0] += 1
            if count[0] == kill:
                os.kill(os.getpid(), signal.SIGKILL)

    fsync = os.fsync

    def synced(descriptor):
        happens("open", [place])
        return fsync(descriptor)

    sys.addaudithook(happens)
    os.fsync = synced
    return count


def child(request, answer):
    count = arm(request["kill"], request["out"])
    sources = [Path(source) for source in request["sources"]]
    import_files(Import(request["kind"], sources, **request["options"]), Path(request["out"]))
    os.write(answer, str(count[0]).encode())
    os._exit(0)


def serve():
    """A fork for each request: starting costs next to nothing, and nothing is shared."""
    for line in sys.stdin:
        told, answer = os.pipe()
        process = os.fork()
        if not process:
            os.close(told)
            child(json.loads(line), answer)
        os.close(answer)
        with os.fdopen(told) as place:
            count = place.read()
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        print(json.dumps([status, int(count or 0)]), flush=True)


if __name__ == "__main__":
    serve()
