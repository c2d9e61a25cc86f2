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
from fmbpo.running.names import RunNames
from fmbpo.runs.checkpoint import checkpoint_exists, read_manifest, weights_sha256
from fmbpo.runs.folder import BEST, RunFolder, checkpoint_of
from fmbpo.runs.summary import Summary, read_summary
from fmbpo.training.initial_model import trained_by


def first_models(e: Experiment, names: RunNames, root: Path) -> dict[int, Path | None]:
    """By replicate, the checkpoint that its policies begin with, whether it is there or not; None:
    from scratch."""
    if e.needs_pretraining:
        return {seed: checkpoint_of(root / run, BEST) for seed, run in names.pretraining.items()}
    shared = getattr(e.protocol, "checkpoint", "")
    return dict.fromkeys(e.grid.seeds, Path(shared) if shared else None)


def weights_of(e: Experiment, models: Mapping[int, Path | None]) -> dict[str, str] | str | None:
    """The identity of the world models: by replicate, or of the one that all share; None: from
    scratch."""
    if e.needs_pretraining:
        return {str(seed): weights_sha256(path) for seed, path in models.items() if path}
    shared = next(iter(models.values()))
    return weights_sha256(shared) if shared else None


def finished(e: Experiment, names: RunNames, root: Path) -> Summary | None:
    """The results of the whole experiment; None if something is still to train or to evaluate.

    Raises ``UserError`` for records that cannot be read, and if the policies there, complete or
    not, belong to other world models. A world model that is gone contradicts nothing.
    """
    models = first_models(e, names, root)
    pretrained = [read_summary(root / run) for run in names.pretraining.values()]
    if e.policy is None:
        if None in pretrained:
            return None
        for checkpoint in filter(None, models.values()):
            read_manifest(checkpoint)
        return pretrained[-1]
    begun = [(root / run).exists() for run in names.pretraining.values()]
    if any(there and done is None for there, done in zip(begun, pretrained, strict=True)):
        return None
    policies = root / names.policies
    done = read_summary(policies)
    if (policies / "config.json").exists():
        made_in = read_object(policies / "config.json").get("world_model_weights")
        there = {s: path for s, path in models.items() if not path or checkpoint_exists(path)}
        found = weights_of(e, there) if there else made_in
        if isinstance(found, dict) and isinstance(made_in, dict):
            made_in = {seed: made_in.get(seed) for seed in found}
        if made_in != found:
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
    names: RunNames,
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

    for folder in (root / name for name in names):
        complete = RunFolder(folder).is_complete
        check(config_in(folder), folder, complete, ", choose another --runs to train again")
    shared = getattr(e.protocol, "checkpoint", "")
    if shared and not e.needs_pretraining:
        with suppress(UserError):  # missing or damaged: another check tells
            if trained_by(Path(shared), e.world_model.plugin):
                check(read_manifest(Path(shared))["config"], Path(shared), True, "")
    if errors:
        raise UserErrors(errors)


def check_complete(model: Path) -> None:
    """Raise ``UserError`` if the world model of this folder is still to train."""
    if not RunFolder(model).is_complete:
        raise UserError(
            "the policies need this world model, which is not complete",
            where=str(model),
            remedy=f"train it first: --only {model.name}",
        )
