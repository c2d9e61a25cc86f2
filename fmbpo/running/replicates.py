"""The world models of all replicates of a run, to be asked about the same states."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import attrs

from fmbpo.pwm.optim import Params
from fmbpo.pwm.pair import Pair
from fmbpo.runs.checkpoint import load_checkpoint
from fmbpo.runs.folder import checkpoint_of
from fmbpo.training.cells import Cell
from fmbpo.training.context import Context
from fmbpo.training.initial_model import InitialModel, distinct
from fmbpo.training.trees import part


@attrs.frozen(eq=False)
class Replicate:
    """A world model: its module, its parameters unless they are the module's own, and the only
    task that it was trained on, if there is just one."""

    pair: Pair
    params: Params
    task: str | None = None


def replicates(
    context: Context,
    models: Mapping[int, InitialModel],
    groups: Mapping[str, Sequence[Cell]],
    run: Path,
    pair: Pair,
) -> Iterator[Replicate]:
    """The world models that policies were trained in, one at a time in memory; none if all policies
    share one. Those of single policies are read from the checkpoints of the stages ``groups``."""
    e, tables = context.experiment, context.experiment.of_policies
    if tables.protocol.kind != "frozen":
        for name, group in groups.items():
            place = checkpoint_of(run, name)
            loaded = load_checkpoint(place, device=context.device, with_state=False)
            weights = part("world_model", loaded.weights)
            for i, cell in enumerate(group):
                yield Replicate(pair, {k: w[i] for k, w in weights.items()}, cell.task)
    elif len(each := distinct(models)) > 1:
        for model in each:
            module, hooks = model.build(context), e.world_model.component
            yield Replicate(Pair(module, hooks, pair.policy, tables.policy.component), {})
