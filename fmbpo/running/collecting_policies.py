"""The policies of a finished run, as actors in collected episodes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import attrs

from fmbpo.data.collecting import Policy
from fmbpo.errors import UserError, did_you_mean
from fmbpo.running.trained_policies import TrainedPolicy, trained_policies
from fmbpo.runs.checkpoint import list_checkpoints, weights_sha256


@attrs.frozen
class RunAgent:
    """See `fmbpo.data.collecting.TrainedPolicies`: each episode draws one of the run's seeds."""

    policies: dict[str, list[TrainedPolicy]]
    """By task."""
    provenance: dict[str, str]

    def policy(self, task: str, episode: int) -> Policy:
        """The policy of the episode's seed; its networks are read once per process."""
        policies = self.policies[task]
        # Not in turns: behaviours take turns too, so that each would always get the same seed.
        drawn = int.from_bytes(hashlib.sha256(f"{task}/{episode}".encode()).digest()[:8])
        loaded = _loaded(policies[drawn % len(policies)])
        loaded.reset()

        return lambda _, obs: loaded.act(obs)


def run_agent(run: Path, tasks: Sequence[str], *, accept_versions: bool = False) -> RunAgent:
    """The policies that a run trained for these tasks; ``accept_versions``: see ``load_policy``.

    Raises:
        UserError: as `trained_policies`; also if it has none for a task.
    """
    run = run.resolve()
    policies: dict[str, list[TrainedPolicy]] = {}
    for policy in trained_policies(run, accept_versions=accept_versions):
        policies.setdefault(policy.task, []).append(policy)
    for task in tasks:
        if task not in policies:
            raise UserError(
                f"the run has no policy for task {task!r}",
                where=str(run),
                remedy=f"{did_you_mean(task, policies)} (--tasks)",
            )
        policies[task][0].load()  # fail before collecting
    weights = {p.stem: weights_sha256(p) for p in list_checkpoints(run / "checkpoints")}
    return RunAgent({task: policies[task] for task in tasks}, {"run": run.name, **weights})


_loaded = cache(TrainedPolicy.load)
