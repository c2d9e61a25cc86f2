"""The table of a preflight, one row per check; all failures are reported together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, TextIO, TypeAlias, TypeVar

import attrs

from fmbpo.base.text import console, printable
from fmbpo.errors import UserError, UserErrors

T = TypeVar("T")
Status: TypeAlias = Literal["ok", "warning", "FAILED"]
WIDTH = 99
"""Columns of the table."""


@attrs.frozen
class Row:
    """One check: its ``subject``, status, finding and remedy. ``cells``: the cells of a study that
    share it; none if it is about the whole."""

    subject: str
    status: Status
    detail: str
    remedy: str = ""
    cells: tuple[str, ...] = ()
    error: UserError | None = attrs.field(default=None, eq=False, repr=False)

    def to_json(self) -> dict[str, object]:
        """The row as ``fmbpo check --json`` prints it."""
        return attrs.asdict(self, filter=attrs.filters.exclude("error"))


class Rows:
    """Rows in the order of their checks; cells with the same finding share one row."""

    def __init__(self) -> None:
        self._rows: list[Row] = []

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    def add(self, row: Row) -> None:
        """Append a row, or add its cells to an equal row."""
        for i, other in enumerate(self._rows):
            if attrs.evolve(other, cells=row.cells) == row:
                cells = tuple(dict.fromkeys((*other.cells, *row.cells)))
                self._rows[i] = attrs.evolve(other, cells=cells)
                return
        self._rows.append(row)

    def ok(self, cell: str, subject: str, detail: str) -> None:
        """Add a check that passed; ``cell`` is empty outside a study."""
        self.add(Row(subject, "ok", detail, cells=_cells(cell)))

    def warn(self, cell: str, subject: str, detail: str, remedy: str) -> None:
        """Add a finding that does not prevent the run."""
        self.add(Row(subject, "warning", detail, remedy, _cells(cell)))

    def fail(self, cell: str, subject: str, error: UserError) -> None:
        """Add a finding that prevents the run; each of several errors has its own row."""
        for one in error.errors if isinstance(error, UserErrors) else [error]:
            detail = f"{one.where}: {one.what}" if one.where else one.what
            self.add(Row(subject, "FAILED", detail, one.remedy, _cells(cell), one))

    def attempt(self, cell: str, subject: str, check: Callable[[], T]) -> T | None:
        """The result of ``check``; None, and a failed row, if it raises ``UserError``."""
        try:
            return check()
        except UserError as error:
            self.fail(cell, subject, error)
            return None

    def found(self, cell: str, subject: str, check: Callable[[], str]) -> None:
        """Add a row with the finding of ``check``; a failed one if it raises ``UserError``."""
        said = self.attempt(cell, subject, check)
        if said is not None:
            self.ok(cell, subject, said)

    def passes(self, cell: str, subject: str, check: Callable[[], object]) -> bool:
        """Whether ``check`` passes; adds a failed row if it raises ``UserError``."""
        return self.attempt(cell, subject, lambda: (check(),)) is not None

    def failed(self, cell: str) -> bool:
        """Whether a row about this cell failed."""
        return any(row.error and (cell in row.cells or not cell) for row in self._rows)


def print_rows(rows: Rows, stream: TextIO) -> None:
    """Print the table, each remedy below its finding; in colour if the stream is a terminal."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    of_cells = any(row.cells for row in rows)
    for column in (*(["cell"] if of_cells else []), "check", "status"):
        table.add_column(column, no_wrap=column != "cell")
    table.add_column("detail", overflow="fold")
    styles = {"ok": "green", "warning": "yellow", "FAILED": "bold red"}
    for row in rows:
        detail = f"{row.detail}\n-> {row.remedy}" if row.remedy else row.detail
        cells = [", ".join(row.cells)] if of_cells else []
        text = Text(printable(detail, keep="\n"))
        table.add_row(*cells, row.subject, Text(row.status, styles[row.status]), text)
    console(stream, WIDTH).print(table)


def _cells(cell: str) -> tuple[str, ...]:
    return (cell,) if cell else ()
