"""Whose fault a failure is: an exception out of a plugin's code, as a message about the plugin."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fmbpo.errors import UserError
from fmbpo.experiment.schema import PluginTable


class Role:
    """A plugin in its role, as messages name it."""

    def __init__(self, word: str, table: PluginTable) -> None:
        self.name, self.component = f"{word} {table.plugin!r}", table.component
        c = self.component
        parts = (c.Config, c.build, c.predict, c.rollout, c.loss, c.freeze)
        self.packages = {part.__module__.split(".")[0] for part in parts} - {"fmbpo"}

    def error(self, what: str, remedy: str) -> UserError:
        """What the plugin did, for people."""
        return UserError(what, where=self.name, remedy=remedy)


def guilty(error: Exception, roles: tuple[Role, ...]) -> tuple[Role | None, str]:
    """The role whose plugin's code ran last on the way to ``error``, and a sentence about it."""
    text = (str(error).strip().splitlines() or [""])[0]
    sentence = f"{type(error).__name__}: {text}"
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        package = frame.f_globals.get("__name__", "").split(".")[0]
        for role in roles:
            if package in role.packages:
                code = frame.f_code
                place = f"{Path(code.co_filename).name}:{line}, in {code.co_name}"
                return role, f"{sentence} ({place})"
    return None, sentence


@contextmanager
def reporting(folder: Path, *roles: Role) -> Iterator[None]:
    """An exception out of a plugin's code ends as ``UserError``; its traceback is kept.

    For whoever writes the plugin it stands in ``folder/plugin-error.txt``. Exceptions that no
    plugin's code has a part in pass.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        role, sentence = guilty(error, roles)
        if role is None:
            raise
        file = folder / "plugin-error.txt"
        file.write_text("".join(traceback.format_exception(error)))
        remedy = f"`fmbpo check` tries the plugin in seconds; the whole traceback is in {file}"
        raise role.error(sentence, remedy) from error
