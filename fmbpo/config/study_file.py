"""Study files, which name experiments to run and compare, and the factors that may differ.

::

    kind = "study"
    factors = ["conventions.model_loss"]

    [cells.corrected]
    experiment = "base/demo.toml"

    [cells.pwm]
    experiment = "base/demo.toml"
    overrides = ["conventions.model_loss=logit_mse"]

A study may declare its contrasts by name, each as a factor and the two levels of a difference::

    [contrasts]
    "flow matching" = { world_model = ["flow", "tied"] }  # flow minus tied

It may register hypotheses on them (``fmbpo.config.registration``).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import attrs
from attrs import field

from fmbpo.base.files import display, path_of
from fmbpo.config import toml
from fmbpo.config.catalogue import find
from fmbpo.config.factors import FACTORS, differences
from fmbpo.config.identity import config_hash
from fmbpo.config.load import PAPER, load_experiment, structured
from fmbpo.config.registration import RegistrationConfig
from fmbpo.config.schema import Experiment
from fmbpo.config.validators import filled, unique
from fmbpo.errors import UserError, UserErrors, did_you_mean
from fmbpo.runs.folder import run_name
from fmbpo.tasks.known import task_info


def _name(_: object, __: object, value: str) -> None:
    if value:
        run_name(value, "study", [0] * 1000, "0" * 10)


@attrs.frozen(kw_only=True)
class CellConfig:
    """``[cells.NAME]``: one experiment of the study."""

    experiment: str = field(validator=filled)
    """The file, relative to the study's file."""
    overrides: list[str] = field(factory=list)
    """Overrides of this cell, as for ``-o``: ``"table.key=value"``."""
    scale: dict[str, list[str]] = field(factory=dict)
    """Further overrides at one scale: ``scale.laptop = ["table.key=value"]``."""


@attrs.frozen(kw_only=True)
class StudyConfig:
    """A file of kind ``"study"``."""

    kind: Literal["study"]
    name: str = field(default="", validator=_name)
    """The name; by default the file's name without its extension."""
    phase: str = ""
    """Phase of the study."""
    description: str = ""
    """A one-line description. A question at its end, behind a colon if words precede it, is the
    report's title."""
    factors: list[str] = field(validator=[filled, unique])
    """Allowed differences between cells: ``world_model``, ``policy``, or keys (``table.key``)."""
    cells: dict[str, CellConfig] = field()
    """The experiments, by their names in tables and figures."""
    contrasts: dict[str, dict[str, list[str]]] = field(factory=dict)
    """The differences to report, by name: ``{ FACTOR = ["LEVEL", "LEVEL"] }``, the first minus the
    second; by default, those of all pairs of levels."""
    registration: RegistrationConfig | None = None
    """Hypotheses that are fixed before the first run; by default none: all results are
    exploratory."""

    @cells.validator
    def _several(self, _: object, value: dict[str, CellConfig]) -> None:
        if len(value) < 2:
            raise ValueError("a study needs at least two cells")
        for name in value:
            _name(self, None, name)

    @contrasts.validator
    def _of_two_levels(self, _: object, value: dict[str, dict[str, list[str]]]) -> None:
        for name, contrast in value.items():
            ((factor, levels),) = contrast.items() if len(contrast) == 1 else [("", [])]
            if factor not in FACTORS or len(set(levels)) != 2 or len(levels) != 2:
                raise ValueError(
                    f"{name!r} must name one factor, {' or '.join(FACTORS)}, and two of its levels"
                )


@attrs.frozen(kw_only=True)
class Study:
    """A checked study, its experiments by cell; ``differences`` are the declared ones.

    ``fmbpo.running.registration`` checks the hypotheses. ``file``: the study's, for messages.
    """

    name: str
    phase: str
    description: str
    factors: list[str]
    cells: dict[str, Experiment]
    differences: list[str]
    contrasts: dict[str, dict[str, list[str]]]
    registration: RegistrationConfig | None
    file: str


def is_study(path: Path) -> bool:
    """Whether the file has the kind ``"study"``. Raises ``UserError`` if it cannot be read."""
    return toml.read(path).tree.get("kind") == "study"


def load_study(
    path: str | Path,
    *,
    scale: str | None = None,
    overrides: Sequence[str] = (),
    data: str | Path | None = None,
) -> Study:
    """Read a study (a file, or a name of the catalogue) and its experiments.

    Scale, overrides and data apply to every cell.

    Raises ``UserErrors`` for mistakes in the file or an experiment, and ``UserError`` if cells
    differ in more than the declared factors.
    """
    path = find(path)
    document, file = toml.read(path), display(path)
    document.tree.setdefault("name", path.stem)
    config = structured(document.tree, StudyConfig, document.origin, file)
    cells: dict[str, Experiment] = {}
    wrong: list[UserError] = []
    for name, cell in config.cells.items():
        try:
            cells[name] = _load_cell(cell, toml.folder_of(path), scale, overrides, data)
        except UserError as error:
            for one in getattr(error, "errors", [error]):
                where = f"cell {name}: {one.where}" if one.where else f"cell {name}"
                wrong.append(UserError(one.what, where=where, remedy=one.remedy))
    if wrong:
        raise UserErrors(wrong)
    experiments, where = list(cells.values()), f"{file} ({' | '.join(cells)})"
    declared, undeclared = differences(experiments, config.factors, f"{file}: factors")
    if undeclared:
        what = f"the cells differ in more than the factors: {'; '.join(undeclared)}"
        remedy = "make them equal, or add the key to the study's factors"
        raise UserError(what, where=where, remedy=remedy)
    runs = [(e.name, config_hash(e)) for e in experiments]
    if len(set(runs)) < len(runs):
        what = "two cells are the same run: they differ in no key that changes results"
        remedy = "remove one of them, or let them differ in a factor"
        raise UserError(what, where=where, remedy=remedy)
    _check_levels(config, experiments, file)
    _check_tasks(config, experiments, file)
    keys = ("name", "phase", "description", "factors", "contrasts", "registration")
    own = {key: getattr(config, key) for key in keys}
    return Study(**own, cells=cells, differences=declared, file=file)


def _check_levels(config: StudyConfig, experiments: Sequence[Experiment], file: str) -> None:
    """Raise ``UserError`` for a contrast with a level that no cell has."""
    for name, contrast in config.contrasts.items():
        for factor, levels in contrast.items():
            tables = [getattr(e, factor) for e in experiments]
            known = list(dict.fromkeys(table.level for table in tables if table is not None))
            for level in levels:
                if level not in known:
                    what = f"no cell has the {factor.replace('_', ' ')} {level!r}"
                    where = f"{file}: contrasts.{name}"
                    raise UserError(what, where=where, remedy=did_you_mean(level, known))


def _check_tasks(config: StudyConfig, experiments: Sequence[Experiment], file: str) -> None:
    """Raise ``UserError`` for a development task that does not exist."""
    own = {name: table for e in experiments for name, table in e.tasks.items()}
    for task in config.registration.development_tasks if config.registration else ():
        try:
            if task not in own:
                task_info(task, own)  # raises for an unknown one
        except UserError as error:
            where = f"{file}: registration.development_tasks"
            raise UserError(error.what, where=where, remedy=error.remedy) from None


def _load_cell(
    cell: CellConfig,
    folder: Path,
    scale: str | None,
    overrides: Sequence[str],
    data: str | Path | None,
) -> Experiment:
    file = folder / path_of(cell.experiment)
    known = (PAPER, *toml.read(file).tree.get("scale", {}))
    for name in cell.scale:
        if name not in known:
            where = f"{display(file)}: scale.{name}"
            raise UserError("no such scale", where=where, remedy=did_you_mean(name, known))
    chosen = load_experiment(file, scale=scale, overrides=[*cell.overrides, *overrides], data=data)
    if chosen.scale not in cell.scale:
        return chosen
    mine = [*cell.overrides, *cell.scale[chosen.scale], *overrides]  # the command line wins
    return load_experiment(file, scale=chosen.scale, overrides=mine, data=data)
