"""Acts with the policies of a finished run, as in its final evaluation, on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fmbpo.base.files import path_of
from fmbpo.config import from_resolved
from fmbpo.config.schema import Experiment
from fmbpo.data.sampler import action_masks
from fmbpo.errors import UserError, did_you_mean
from fmbpo.hookspecs import Module, WorldModel
from fmbpo.pwm.acting import Actors
from fmbpo.pwm.pair import Pair
from fmbpo.running.earlier import other_versions
from fmbpo.runs.checkpoint import checkpoint_exists, load_checkpoint, weights_sha256
from fmbpo.runs.folder import BEST, RunFolder, checkpoint_of
from fmbpo.runs.plan import STUDY
from fmbpo.runs.summary import Summary
from fmbpo.tasks.known import suite_of, task_name
from fmbpo.tasks.mt30 import SUITE
from fmbpo.tasks.suite import Suite, TaskInfo
from fmbpo.tasks.vector import Act
from fmbpo.training.cells import grid_cells, stages
from fmbpo.training.initial_model import load_world_model
from fmbpo.training.networks import CellNetworks, build_world_model
from fmbpo.training.trees import own_params, part

_CPU = torch.device("cpu")
_ADDED = ("versions", "distributions", "world_model_weights", "data_id", "suite")
"""Keys of a run's ``config.json`` that are not the experiment's."""


@attrs.frozen
class TrainedPolicy:
    """One policy of a finished run, by folder, task and seed; small, so that other processes can
    receive it and load the networks themselves."""

    run: Path
    task: str
    seed: str
    accept_versions: bool = False

    def load(self) -> LoadedPolicy:
        """Read the networks. Raises ``UserError`` as ``load_policy``."""
        accept = self.accept_versions
        return load_policy(self.run, self.task, self.seed, accept_versions=accept)


@attrs.define
class LoadedPolicy:
    """A policy behind its world model; deterministic.

    ``evaluation_seed`` of the final evaluation: its episode N started with the environment's
    ``reset`` and the seed ``evaluation_seed + N``.
    """

    _actors: Actors
    task: TaskInfo
    suite: Suite
    evaluation_seed: int
    _act: Act = attrs.field(
        init=False, default=attrs.Factory(lambda s: s._actors.deterministic(), takes_self=True)
    )
    _rows: int = attrs.field(init=False, default=0)
    """Episodes that a world model remembers; 0 before the first observation."""

    def reset(self) -> None:
        """Begin new episodes: the next observations are their first ones. A world model that
        remembers needs this call, others ignore it."""
        self._rows = 0

    def act(self, obs: ArrayLike) -> NDArray[np.float32]:
        """Actions ``[..., action_dim]`` for observations ``[..., obs_dim]`` of the task.

        For observations padded with zeros to the suite's width, so are they. A world model that
        remembers takes them for the next ones of the same episodes (``reset``).

        Raises:
            UserError: the observations have another width, or are not those of the same episodes.
        """
        given = np.asarray(obs, np.float32)
        width = given.shape[-1] if given.ndim else 0
        if width not in (self.task.obs_dim, self.suite.obs_width):
            what = f"an observation has {self.task.obs_dim} numbers, not {width}"
            raise UserError(what, where=self.task.name, remedy="give observations of this task")
        padded = np.zeros((1, given.size // width, self.suite.obs_width), np.float32)
        padded[0, :, :width] = given.reshape(-1, width)
        own = width == self.task.obs_dim
        action_dim = self.task.action_dim if own else self.suite.action_width
        if not given.size:
            return np.zeros((*given.shape[:-1], action_dim), np.float32)
        rows = padded.shape[1]
        if self._actors.pair.remembers and self._rows not in (0, rows):
            what = f"observations of {rows} episodes, after those of {self._rows}"
            remedy = "call reset() at the start of episodes"
            raise UserError(what, where=self.task.name, remedy=remedy)
        actions: NDArray[np.float32] = self._act(padded, self._rows)[0, :, :action_dim]
        self._rows = rows
        return actions.reshape(*given.shape[:-1], action_dim)


def trained_policies(run: Path, *, accept_versions: bool = False) -> list[TrainedPolicy]:
    """The policies of a finished run, in the order of its tasks and seeds.

    ``accept_versions``: see ``load_policy``.

    Raises:
        UserError: there is no run, or it is not complete, or it trained no policies.
    """
    summary, _, _ = _finished(run, accept_versions)
    return [
        TrainedPolicy(run, task, seed, accept_versions)
        for task, result in summary.tasks.items()
        for seed in result.seeds
    ]


def load_policy(
    run: str | Path, task: str, seed: int | str, *, accept_versions: bool = False
) -> LoadedPolicy:
    """The policy that a run trained for ``task`` with ``seed``, as in its final evaluation.

    ``seed``: as in the run's tables: 42, or ``"42.1"`` for the second policy in a replicate. A
    frozen world model is read from the checkpoint that the summary names (or from the folder next
    to the run's, if both were moved), everything else from the run's folder. ``accept_versions``:
    whether other versions of the plugins than those that trained it may act.

    Raises:
        UserError: as ``trained_policies``; also if the run does not have the task or seed, the
            world model is missing or different, or a plugin or its version is not installed.
    """
    run = path_of(run)
    summary, e, config = _finished(run, accept_versions)
    tables = e.of_policies
    name = _task(summary, task, seed, run)
    ((stage, group, cell),) = (
        (stage, group, cell)
        for stage, group in stages(e, grid_cells(e, list(summary.tasks))).items()
        for cell in group
        if (cell.task, cell.label) == (name, str(seed))
    )
    place = checkpoint_of(run, stage)
    weights = load_checkpoint(place, with_state=False, expect_kind="policies").weights
    suite = _suite(e, config)
    world_model = _world_model(run, summary, e, suite, config, str(cell.seed))
    policy = CellNetworks(tables.policy, tables.critic, world_model, suite, _CPU).policy(cell)
    tables.policy.component.freeze(policy)
    index, masked = suite.index(cell.task), tables.conventions.action_mask
    mask_A = action_masks(suite)[index] if masked else torch.ones(suite.action_width)

    def own(name: str, module: Module) -> dict[str, Tensor]:
        """Copies of the cell's parameters ``[1, ...]``; none if the module's own are used."""
        at = group.index(cell)
        found = {k: w[at : at + 1].clone() for k, w in part(name, weights).items()}
        expected = {name: x.shape for name, x in own_params(module).items()}
        if found and {name: p.shape[1:] for name, p in found.items()} != expected:
            raise UserError(
                "the checkpoint has different parameters from those of the installed plugin",
                where=str(place),
                remedy="install the plugin version that made the run",
            )
        return found

    actors = Actors(
        Pair(world_model, e.world_model.component, policy, tables.policy.component),
        own("policy", policy),
        own("world_model", world_model),
        torch.tensor([index]),
        mask_A[None],
    )
    return LoadedPolicy(actors, suite[cell.task], suite, e.evaluation.seed)


def _finished(run: Path, accept_versions: bool) -> tuple[Summary, Experiment, Mapping[str, Any]]:
    """A finished run's summary, experiment and whole configuration."""

    def wrong(what: str, remedy: str) -> UserError:
        return UserError(what, where=str(run), remedy=remedy)

    if (run / STUDY).is_file():
        remedy = f"name one of its runs; they are in {run.parent}"
        raise wrong("this is a study; policies belong to runs", remedy)
    folder = RunFolder.open(run)
    if not folder.is_complete:
        raise wrong("the run is not complete", "run its command again, which continues it")
    summary = Summary.of_run(folder)
    if summary.policy is None:
        raise wrong("the run trained no policies", "name the folder of a run of policies")
    config = folder.config()
    if "seed" in config.get("pretrain", {}):
        what = "an earlier version of fmbpo trained these policies, all in one world model"
        raise wrong(what, "use them with that version, or run the experiment again")
    experiment = from_resolved({k: v for k, v in config.items() if k not in _ADDED})
    for version, what in () if accept_versions else other_versions(config, experiment):
        raise wrong(what, f"install version {version}, or add --accept-plugin-versions")
    return summary, experiment, config


def _suite(e: Experiment, config: Mapping[str, Any]) -> Suite:
    """The suite of the run's data. ``UserError`` if it is not the one that is installed now."""
    recorded = config.get("suite")
    if recorded is None:
        return SUITE
    suite = suite_of(recorded, e.tasks)
    if list(suite.names) != recorded:
        what = f"the tasks of {suite.name} are not those that the run was made with"
        raise UserError(what, remedy="install the versions of the suites that it was made with")
    return suite


def _task(summary: Summary, task: str, seed: int | str, run: Path) -> str:
    """The study's name of the task, for which there is a policy with this seed."""
    name = task_name(task)
    seeds = summary.tasks[name].seeds if name in summary.tasks else {}
    if str(seed) in seeds:
        return name
    what = f"the run has no policy for task {name!r}{f' with seed {seed}' if seeds else ''}"
    remedy = f"choose among {', '.join(seeds)}" if seeds else did_you_mean(name, summary.tasks)
    raise UserError(what, where=str(run), remedy=remedy)


def _world_model(
    run: Path,
    summary: Summary,
    e: Experiment,
    suite: Suite,
    config: Mapping[str, Any],
    replicate: str,
) -> WorldModel:
    """The module whose encoder the policies of a replicate use."""
    model, made_in = summary.world_model, config.get("world_model_weights")
    checkpoint = (model.checkpoints or {}).get(replicate, model.checkpoint)
    if checkpoint is None:  # each policy's checkpoint has its own
        return build_world_model(e.world_model, suite, 0, _CPU)
    named = Path(checkpoint)
    moved = checkpoint_of(run.parent / named.parent.parent.name, BEST)
    place = named if checkpoint_exists(named) or not checkpoint_exists(moved) else moved
    own = not getattr(e.protocol, "checkpoint", "")
    try:
        module = load_world_model(e, suite, _CPU, place, adopt=not own)
        if weights_sha256(place) != (made_in.get(replicate) if own and made_in else made_in):
            what = "the run's policies were trained in a different world model"
            raise UserError(what, where=str(place))
    except UserError as error:
        copy = f", or copy its run {named.parent.parent.name} to {run.parent}" if own else ""
        remedy = f"restore the world model of {run}{copy}"
        raise UserError(error.what, where=error.where, remedy=remedy) from error
    return module
