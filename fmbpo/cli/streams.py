"""Standard streams that degrade: closed, full or poor in characters, they stop no work."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO


class Stream(io.FileIO):
    """Drops what cannot be written, and keeps the first error."""

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        """The number of bytes, written or dropped."""
        try:
            return super().write(data)
        except OSError as error:
            self.failure = self.failure or error
            return len(data)


@contextlib.contextmanager
def degrading() -> Iterator[Stream]:
    """Within, no output raises an error; yields the ``Stream`` below ``sys.stdout``.

    A closed stream is the null device, and no file gets its number. A character that the encoding
    lacks becomes a question mark. Streams that the caller has replaced stay.
    """
    while (spare := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(spare)
    before = sys.stdout, sys.stderr
    out, err = (Stream(number, "w", closefd=False) for number in (1, 2))
    if sys.stdout is sys.__stdout__:
        sys.stdout = _text(out, sys.stdout, out.isatty())
    if sys.stderr is sys.__stderr__:
        sys.stderr = _text(err, sys.stderr, True)
    try:
        yield out
    finally:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
        sys.stdout, sys.stderr = before


def _text(stream: Stream, like: TextIO | None, lines: bool) -> TextIO:
    buffer, encoding = io.BufferedWriter(stream), getattr(like, "encoding", None)
    return io.TextIOWrapper(buffer, encoding, errors="replace", line_buffering=lines)
