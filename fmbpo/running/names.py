"""The names of an experiment's runs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import attrs

from fmbpo.config import config_hash
from fmbpo.config.schema import Experiment
from fmbpo.errors import UserError, UserErrors, did_you_mean
from fmbpo.runs.folder import run_name


@attrs.frozen
class RunNames:
    """Folder names. ``pretraining``: of each replicate's world model, by its seed; empty if the
    experiment has other world models. ``policies``: empty for a pretraining experiment."""

    pretraining: Mapping[int, str]
    policies: str

    def __iter__(self) -> Iterator[str]:
        """All names, in the order of the work."""
        yield from self.pretraining.values()
        if self.policies:
            yield self.policies

    @property
    def result(self) -> str:
        """The run that has the experiment's results."""
        return list(self)[-1]


def pretraining_name(experiment: Experiment) -> str:
    """Name of the pretraining experiment."""
    named: str = getattr(experiment.protocol, "world_model", "")
    return named or experiment.name


def run_names(experiment: Experiment, data_identity: str) -> RunNames:
    """The names of the run folders. Raises ``UserError`` for a name that a folder cannot have."""
    e, model, pretraining = experiment, experiment.world_model.level, {}
    try:
        for seed in e.grid.seeds if e.needs_pretraining else ():
            digest = config_hash(e, seed, data_identity=data_identity)
            pretraining[seed] = run_name(pretraining_name(e), model, [seed], digest)
        if e.policy is None:
            return RunNames(pretraining, "")
        cell = f"{model}-{e.policy.level}"
        digest = config_hash(e, data_identity=data_identity)
        return RunNames(pretraining, run_name(e.name, cell, e.grid.seeds, digest))
    except ValueError as error:
        raise UserError(
            str(error),
            where=e.name,
            remedy="use a short name of letters, digits, dots and hyphens, with single underscores "
            "between them",
        ) from error


def check_known(wanted: Collection[str], known: Collection[str]) -> None:
    """Raise ``UserErrors`` for each wanted name that is not known."""
    what = "the experiment has no such run with this data, device and settings"
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise UserErrors(
            UserError(what, where=f"--only {name}", remedy=did_you_mean(name, known))
            for name in unknown
        )
