"""Turns an exception from a plugin's code into a message that names the plugin."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fmbpo.base.files import disk_errors
from fmbpo.base.free_memory import SMALLER, ran_out
from fmbpo.base.text import said
from fmbpo.config.schema import PluginTable
from fmbpo.errors import UserError

REMEDY = "the plugin does not fit its dimensions or its settings; see its README"


class Role:
    """A plugin and its role, for messages."""

    def __init__(self, word: str, table: PluginTable) -> None:
        self.name, self.component = f"{word} {table.plugin!r}", table.component
        c = self.component
        parts = (c.Config, c.build, c.predict, c.rollout, c.loss, c.freeze)
        self.packages = {part.__module__.split(".")[0] for part in parts} - {"fmbpo"}

    def error(self, what: str, remedy: str = REMEDY) -> UserError:
        """An error that names the plugin."""
        return UserError(what, where=self.name, remedy=remedy)


def _guilty(error: BaseException, roles: tuple[Role, ...]) -> tuple[Role | None, str]:
    """The role whose plugin's code ran last before ``error``, if any, and a sentence about it."""
    sentence = said(error)
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        package = frame.f_globals.get("__name__", "").split(".")[0]
        for role in roles:
            if package in role.packages:
                code = frame.f_code
                place = f"{Path(code.co_filename).name}:{line}, in {code.co_name}"
                return role, f"{sentence} ({place})"
    return None, sentence


@contextmanager
def reporting(folder: Path | None, *roles: Role, otherwise: Role | None = None) -> Iterator[None]:
    """Turn an exception from a plugin's code into a ``UserError``; ``_remedy`` keeps its traceback.

    An exception that involves no plugin's code is blamed on ``otherwise``, or passes through if
    that is None or the system raised it (``OSError``). Nobody is blamed if memory is short. A
    ``UserError`` passes through.
    """
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        role, sentence = _guilty(error, roles)
        if ran_out(error):
            what, place = f"memory is short: {sentence}", str(folder or "")
            raise UserError(what, where=place, remedy=SMALLER) from error
        role = role or (None if isinstance(error, OSError) else otherwise)
        if role is None:
            raise
        raise role.error(sentence, _remedy(folder, error)) from error


def _remedy(folder: Path | None, error: BaseException) -> str:
    """The remedy for a plugin's failure. Writes the traceback to ``folder/plugin-error.txt``, or
    nowhere if ``folder`` is None."""
    if folder is None:
        return REMEDY
    file = folder / "plugin-error.txt"
    with disk_errors(file):
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(traceback.format_exception(error)))
    return f"`fmbpo check` tries the plugin in seconds; the full traceback is in {file}"
