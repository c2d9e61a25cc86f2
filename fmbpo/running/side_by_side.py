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
from threading import Thread
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
    complete, and one that is left over, are left to the caller.

    ``runs``: names by replicate. Raises as ``lead``.
    """
    root, group = session.root, session.group
    left = [seed for seed, run in runs.items() if not RunFolder(root / run).is_complete]
    while side_by_side(experiment.pretrain, group, len(left)):
        some, left = left[: group.size], left[group.size :]
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
    told = False

    def heed() -> None:
        nonlocal told
        if stop.requested and not told:
            told = True
            group.order(_STOP, stop.why)

    own: object = None
    interrupted: Interrupted | None = None
    try:
        train(replicates[0], stop)
    except Interrupted as request:
        interrupted = request
    except Exception as error:
        own = Failed(error)
    try:
        group.answers(own, heed)
    finally:
        if not told:
            group.order(_OVER)
    if interrupted:
        raise interrupted


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
    group.answer(answer)
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
