"""World models of several replicates, one in each process: the leader's and the followers' side.

This is for batches that are too small to be shared (``fmbpo.training.pretraining.sharing``). Each
process runs its replicate as a command of its own would, in the replicate's own folder. While they
train, the followers wait for one order: to stop, or that all is over.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Event, Thread
from typing import TypeAlias

import attrs

from fmbpo.config.schema import Experiment, PretrainConfig
from fmbpo.distributed.group import ALONE, Failed, Group, Lost
from fmbpo.running.session import Session
from fmbpo.running.stop import Stop
from fmbpo.runs.folder import RunFolder
from fmbpo.runs.outcome import Interrupted
from fmbpo.training.pretraining import sharing

ORDER = "replicates"
EVERY = 0.05
"""Seconds between two looks at a request to stop."""
_STOP, _OVER = "stop", "over"


@attrs.frozen(kw_only=True)
class Replicate:
    """One world model: its experiment and the name of its run under ``root``. ``study``: for W&B.
    The others are those of ``Session``."""

    experiment: Experiment
    name: str
    study: str
    root: Path
    accept_versions: bool
    wait: bool


Train: TypeAlias = Callable[[Replicate, Stop], object]
"""Trains a replicate in this process alone."""


def side_by_side(config: PretrainConfig, group: Group, replicates: int) -> bool:
    """Whether the group trains several world models at once."""
    return group.size > 1 and replicates > 1 and sharing(config, group) is ALONE


def train_missing(
    runs: Mapping[int, str],
    experiment: Experiment,
    session: Session,
    study: str,
    train: Train,
    stop: Stop,
) -> None:
    """Train several world models at once, if the group does not share batches. Those that are
    complete are left to the caller, and so is one that has nobody beside it.

    ``runs``: names by replicate. Which of them are side by side does not depend on the ones that
    are complete, nor does the number of threads. Raises as ``lead``.
    """
    root, group, seeds = session.root, session.group, list(runs)
    for first in range(0, len(seeds), group.size):
        beside = seeds[first : first + group.size]
        some = [seed for seed in beside if not RunFolder(root / runs[seed]).is_complete]
        if not some or not side_by_side(experiment.pretrain, group, len(beside)):
            continue
        listed = ", ".join(map(str, some))
        session.say(f"pretraining: world models {listed} side by side, one in each process")
        stop.check(f"before the world model with seed {some[0]}")
        group.order("experiment", experiment, root)
        replicates = [
            Replicate(
                experiment=experiment,
                name=runs[seed],
                study=study,
                root=root,
                accept_versions=session.accept_versions,
                wait=session.wait,
            )
            for seed in some
        ]
        lead(replicates, train, group, stop)


def lead(replicates: Sequence[Replicate], train: Train, group: Group, stop: Stop) -> None:
    """Train at most ``group.size`` replicates, of which the leader has the first.

    Raises the first error once all have ended, and ``Interrupted`` once all have saved.
    """
    group.order(ORDER, replicates)
    over = Event()
    teller = Thread(target=_tell, args=(group, stop, over), daemon=True)
    teller.start()
    own: object = None
    interrupted: Interrupted | None = None
    try:
        try:
            train(replicates[0], stop)
        except Interrupted as request:
            if request.at_once:  # the followers save when the leader has ended
                raise
            interrupted = request
        except Exception as error:
            own = Failed(error)
        group.answers(own, training=True)
    finally:
        over.set()
        teller.join()
    if interrupted:
        raise interrupted


def _tell(group: Group, stop: Stop, over: Event) -> None:
    """Give the one order that followers wait for."""
    while not over.wait(EVERY) and not stop.requested:
        pass
    with contextlib.suppress(Lost):  # which the main thread notices too
        group.order(*((_STOP, stop.why) if stop.requested else (_OVER,)))


def obey(replicates: Sequence[Replicate], train: Train, group: Group) -> None:
    """Train this follower's replicate, if it has one, and answer."""
    stop, answer = Stop(), None
    listener = Thread(target=_listen, args=(group, stop), daemon=True)
    listener.start()
    if group.rank < len(replicates):
        # Only the leader shows its progress; `fmbpo status` shows everybody's.
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
            try:
                train(replicates[group.rank], stop)
            except Interrupted:
                pass
            except Exception as error:
                answer = Failed(error)
    group.answer(answer, training=True)
    listener.join()


def _listen(group: Group, stop: Stop) -> None:
    """Wait for the one order; a leader that is lost asks to stop as well."""
    try:
        name, arguments = next(group.orders(), (_STOP, ("",)))
    except Lost:
        name, arguments = _STOP, ("its leader has ended",)
    if name == _STOP:
        stop.why = arguments[0]
        stop.requested = True
