"""matplotlib as fmbpo draws with it: its own style, whatever the user's settings are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from fmbpo.base.text import said
from fmbpo.errors import UserError


@contextmanager
def own_style(style: Path | None = None) -> Iterator[None]:
    """Within, matplotlib has its default settings, and those of the file ``style``.

    Raises ``UserError`` if matplotlib cannot be imported, for example if its settings file is
    damaged. The user's ``MPLBACKEND`` may name a backend that does not exist.
    """
    try:
        with mock.patch.dict(os.environ):
            os.environ.pop("MPLBACKEND", None)
            import matplotlib
    except Exception as error:
        what = f"matplotlib cannot be imported ({said(error)})"
        remedy = "mend or remove its settings file, matplotlibrc, or install it again"
        raise UserError(what, remedy=remedy) from error
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        if style is not None:
            matplotlib.rc_file(style)
        yield
