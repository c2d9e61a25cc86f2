"""fmbpo as a library: run, check and compare, for ``import fmbpo`` and for the command line."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import overload

import attrs

from fmbpo.base.files import path_of
from fmbpo.base.text import listed
from fmbpo.compare.comparison import Comparison
from fmbpo.compare.guard import compare
from fmbpo.compare.reading import declared_by, description_of, records_of
from fmbpo.compare.registered import registered_in
from fmbpo.config.schema import Experiment
from fmbpo.config.study_file import Study
from fmbpo.data.embedded import store_path
from fmbpo.data.store import Store, open_store
from fmbpo.distributed.group import ALONE, Group
from fmbpo.errors import UserError
from fmbpo.reporting.pages import check_place, write_report
from fmbpo.reporting.run_pictures import draw_missing
from fmbpo.running.preflight import Report, preflight
from fmbpo.running.run import Runner
from fmbpo.running.session import Result, Session
from fmbpo.running.stop import Stop
from fmbpo.running.study import StudyResult, StudyRunner

Say = Callable[[str], None]


@overload
def run(
    experiment: Experiment,
    runs: str | Path = ...,
    *,
    accept_versions: bool = ...,
    wait: bool = ...,
    say: Say = ...,
    stop: Stop | None = ...,
    group: Group = ...,
    only: Collection[str] = ...,
) -> Result: ...
@overload
def run(
    experiment: Study,
    runs: str | Path = ...,
    *,
    accept_versions: bool = ...,
    wait: bool = ...,
    say: Say = ...,
    stop: Stop | None = ...,
    group: Group = ...,
    only: Collection[str] = ...,
) -> StudyResult: ...
def run(
    experiment: Experiment | Study,
    runs: str | Path = "runs",
    *,
    accept_versions: bool = False,
    wait: bool = True,
    say: Say = print,
    stop: Stop | None = None,
    group: Group = ALONE,
    only: Collection[str] = (),
) -> Result | StudyResult:
    """Check an experiment or a study and run it to its end, continuing what an earlier call saved.

    Args:
        experiment: from ``load_experiment`` or ``load_study``.
        runs: the folder of all run folders.
        accept_versions: use parts that other versions of their plugins trained.
        wait: wait for another process that works on a part; otherwise raise ``Taken``.
        say: takes lines for people. Progress and warnings of the checks go to stderr.
        stop: asks the run to save and stop once its ``requested`` is set. Without one, signals ask,
            such as Ctrl-C, if this is the main thread.
        group: the processes of the run, which this one leads (``fmbpo run --processes``).
        only: the names of the runs to do, as ``fmbpo check`` prints them; by default all. Policies
            then need world models that are complete. The name of a study's folder stands for its
            results, which need complete cells.

    Raises:
        UserError: a mistake that can be mended, or several.
        Interrupted: the run saved and stopped; it is no ``Exception``. The same call continues.
    """
    root = path_of(runs)
    with nullcontext(stop) if stop else Stop().listening() as stop:
        with stop.ends_at_once():  # there is nothing to save yet
            _, runner = prepare(
                experiment,
                Session(
                    root=root, say=say, accept_versions=accept_versions, wait=wait, group=group
                ),
                traceback=root,
                only=only,
            )
        return runner.run(stop, only)


def prepare(
    experiment: Experiment | Study,
    session: Session,
    *,
    traceback: Path | None = None,
    only: Collection[str] = (),
    as_jobs: bool = False,
) -> tuple[Report, StudyRunner | Runner]:
    """Check an experiment or a study and load its data; the arguments are those of ``preflight``.
    ``as_jobs``: each run is a job of its own, whose time must be known.

    Raises ``UserErrors`` if a check fails.
    """
    study = experiment if isinstance(experiment, Study) else None
    before = preflight(
        _cells(experiment),
        session.root,
        study=study,
        thorough=as_jobs,
        apart=as_jobs,
        traceback=traceback,
        accept_versions=session.accept_versions,
        group=session.group,
        only=only,
    )
    if any(row.status != "ok" for row in before.rows):
        before.print(sys.stderr)
    before.raise_failures()
    session.say(before.line)
    draw = functools.partial(draw_missing, say=session.say)
    session = attrs.evolve(session, draw=draw, expected=before.seconds)
    if isinstance(experiment, Study):
        return before, StudyRunner(experiment, session, before.loaded)
    return before, Runner(experiment, session, before.loaded[0][1] if before.loaded else None)


def check(
    experiment: Experiment | Study, runs: str | Path = "runs", *, accept_versions: bool = False
) -> Report:
    """Check an experiment or a study without training: what is wrong, and what it will need.

    ``runs``: the folder of all run folders. The report's ``raise_failures`` raises ``UserErrors``
    with all that failed.
    """
    study = experiment if isinstance(experiment, Study) else None
    return preflight(
        _cells(experiment), path_of(runs), study=study, accept_versions=accept_versions
    )


def _cells(experiment: Experiment | Study | object) -> Mapping[str, Experiment]:
    if isinstance(experiment, Experiment):
        return {"": experiment}
    if isinstance(experiment, Study):
        return experiment.cells
    remedy = "give what fmbpo.load_experiment or fmbpo.load_study returns"
    raise UserError("this is not an experiment", where=repr(experiment)[:100], remedy=remedy)


def open_data(path: str | Path = "embedded") -> Store:
    """Open a data set, or the one in the package. Raises ``UserError`` as ``open_store`` does."""
    return open_store(store_path(path))


def report(
    folders: Sequence[str | Path],
    out: str | Path,
    *,
    mixing: Sequence[str] = (),
    separate: bool = False,
) -> Comparison:
    """Compare runs, and write the tables, figures and statistics to the folder ``out``.

    Args:
        folders: of studies, runs and imported results.
        out: a folder that is empty, does not exist yet, or holds a report.
        mixing: what the runs may differ in, such as "scale"; every title names the difference.
        separate: put runs that must not be ranked against each other into separate sections.

    Raises:
        UserError: the runs may not be compared, or ``out`` cannot be written.
    """
    place = check_place(path_of(out))  # before the work, not after it
    paths = [path_of(folder) for folder in folders]
    name = listed(list(dict.fromkeys(path.name.split("__")[0] for path in paths)), "and")
    records = records_of(paths)
    comparison = compare(
        records,
        name=name,
        mixing=mixing,
        separate=separate,
        declared=declared_by(paths),
        description=description_of(paths),
        registered=registered_in(paths, records),
    )
    write_report(comparison, place)
    return comparison
