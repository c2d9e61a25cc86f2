"""Earlier runs of an experiment: whether they are complete, and whether they may be used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs

from fmbpo.base.files import read_object
from fmbpo.base.structure import fit, read_as
from fmbpo.config.schema import Experiment
from fmbpo.errors import UserError, UserErrors
from fmbpo.running.names import needed_runs, needs_pretraining
from fmbpo.runs.checkpoint import checkpoint_exists, read_manifest, weights_sha256
from fmbpo.runs.folder import BEST, RunFolder, checkpoint_of
from fmbpo.runs.summary import Summary, read_summary
from fmbpo.training.initial_model import trained_by


def first_model(e: Experiment, pretraining: Path) -> Path | None:
    """The checkpoint that policies begin with, whether it is there or not; None: from scratch.

    ``pretraining``: the folder of the pretraining run.
    """
    if needs_pretraining(e):
        return checkpoint_of(pretraining, BEST)
    checkpoint = getattr(e.protocol, "checkpoint", "")
    return Path(checkpoint) if checkpoint else None


def finished(e: Experiment, names: tuple[str, str], root: Path) -> Summary | None:
    """The results of the whole experiment; None if something is still to train or to evaluate.

    Raises ``UserError`` for records that cannot be read, and if the policies there, complete or
    not, belong to another world model. A world model that is gone contradicts nothing.
    """
    pretraining, policies = (root / name for name in names)
    model = first_model(e, pretraining)
    pretrained = read_summary(pretraining) if needs_pretraining(e) else None
    if e.policy is None:
        if pretrained is not None:
            read_manifest(checkpoint_of(pretraining, BEST))
        return pretrained
    if needs_pretraining(e) and pretrained is None and pretraining.exists():
        return None
    done = read_summary(policies)
    if (policies / "config.json").exists() and (model is None or checkpoint_exists(model)):
        made_in = read_object(policies / "config.json").get("world_model_weights")
        if made_in != (model and weights_sha256(model)):
            raise UserError(
                "the run there was made with a different world model",
                where=str(policies),
                remedy="move it away, or choose another --runs",
            )
    if done is None or e.evaluation.planner != "mppi":
        return done
    return done if done.planning == attrs.asdict(e.planning) else None


def config_in(folder: Path) -> dict[str, Any]:
    """The configuration of the run in a folder; empty if there is none that can be read."""
    return read_as(folder / "config.json", dict[str, Any]) or {}


def versions_of(config: Mapping[str, Any]) -> dict[str, str]:
    """Versions of the plugins that made a run, by role; empty if not known."""
    return fit(config.get("versions"), dict[str, str]) or {}


def other_versions(config: Mapping[str, Any], e: Experiment) -> Iterator[tuple[str, str]]:
    """The version and a sentence for each plugin that made the run or the checkpoint with this
    configuration, and is installed in another version or from another distribution."""
    owners = fit(config.get("distributions"), dict[str, str]) or {}
    for role, table in (("world_model", e.world_model), ("policy", e.policy)):
        version = versions_of(config).get(role)
        if table is None or version is None:
            continue
        made, here = version, table.component.version
        owner = table.component.distribution
        if owners.get(role, owner) != owner:
            made, here = f"{made} of {owners[role]}", f"{here} of {owner}"
        if made != here:
            plugin = f"{role.replace('_', ' ')} plugin {table.plugin!r}"
            yield made, f"made with {plugin} {made}; {here} is installed"


def check_plugins(
    e: Experiment,
    names: tuple[str, str],
    root: Path,
    accept: bool,
    warn: Callable[[str, str], None] = lambda what, place: None,
) -> None:
    """``UserErrors`` if other versions of the plugins made what this experiment would use.

    ``accept``: the user wants complete parts as they are; ``warn`` is told each one's problem and
    place. Parts that are not complete are never continued by another version.
    """
    errors: list[UserError] = []

    def check(config: Mapping[str, Any], where: Path, complete: bool, anew: str) -> None:
        for version, what in other_versions(config, e):
            if complete and accept:
                warn(what, str(where))
                continue
            use = ", or add --accept-plugin-versions to use it as it is" if complete else ""
            remedy = f"install version {version}{anew}{use}"
            errors.append(UserError(what, where=str(where), remedy=remedy))

    for folder in (root / name for name in needed_runs(e, names)):
        complete = RunFolder(folder).is_complete
        check(config_in(folder), folder, complete, ", choose another --runs to train again")
    model = first_model(e, Path())
    if not needs_pretraining(e) and model is not None:
        with suppress(UserError):  # missing or damaged: another check tells
            if trained_by(model, e.world_model.plugin):
                check(read_manifest(model)["config"], model, True, "")
    if errors:
        raise UserErrors(errors)
