"""Evaluations that go on beside the updates: the same results as at once, wherever a run stops."""

import json
from contextlib import ExitStack

import numpy as np
import pytest
import torch
from same import assert_same_run

from fmbpo.config import load_experiment
from fmbpo.errors import UserError
from fmbpo.measure.evaluation import Evaluator, Underway
from fmbpo.running.loop import Cadence, Trainer
from fmbpo.running.stop import Stop
from fmbpo.runs.checkpoint import load_checkpoint, read_manifest, save_checkpoint
from fmbpo.runs.folder import RunFolder, checkpoint_of
from fmbpo.runs.outcome import Interrupted
from fmbpo.runs.sinks import JsonLines, MetricSinks
from fmbpo.tasks.mt30 import SUITE
from fmbpo.tasks.suite import SimulationError
from fmbpo.tasks.vector import EpisodeRunner
from fmbpo.testing.accelerator import DEVICE, Accelerator
from fmbpo.training.cells import Cell
from fmbpo.training.context import Context
from fmbpo.training.dataset import load_dataset
from fmbpo.training.networks import build_world_model
from fmbpo.training.policies import PolicyTraining

CPU = torch.device("cpu")
CELLS = [Cell("cartpole-balance", 1), Cell("reacher-easy", 1)]
STEPS = 4
ITERATIONS = 8
CADENCES = {
    "ends before the next event": Cadence(ITERATIONS, 3, evaluate_every=6, checkpoint_every=100),
    "is cut short by a checkpoint": Cadence(ITERATIONS, 1, evaluate_every=4, checkpoint_every=3),
    "is cut short by the next": Cadence(ITERATIONS, 2, evaluate_every=2, checkpoint_every=2),
}


class Runner(EpisodeRunner):
    """Short episodes of real environments in this process; ``seen``: their steps, in order."""

    def __init__(self, seen):
        super().__init__(0, SUITE)
        self.seen = seen

    def stepping(self, act, tasks, seeds, steps=None):
        def acting(obs, step):
            self.seen.append(step)
            return act(obs, step)

        return super().stepping(acting, tasks, seeds, min(steps or STEPS, STEPS))


class Overlapping(PolicyTraining):
    """As on a GPU."""

    overlaps = True


@pytest.fixture(scope="module")
def stage(repository, small_store, tiny_policy):
    file = repository / "experiments" / "phase8_mlpwm_flowpolicy.toml"
    e = load_experiment(file, scale="laptop", overrides=tiny_policy, data=str(small_store))
    data = load_dataset(e.data, CPU)

    def stage(kind=Overlapping, seen=None, device=CPU):
        """``seen``: gets the simulators' steps, and "update" for each update."""
        seen = [] if seen is None else seen
        model = build_world_model(e.world_model, SUITE, 0, device)
        e.world_model.component.freeze(model)
        own = data if device is CPU else load_dataset(e.data, device)
        evaluator = Evaluator(Runner(seen), e.evaluation.seed)
        made = kind("policies", CELLS, Context(e, own, device), model, evaluator)
        update = made.update
        made.update = lambda *args: (seen.append("update"), update(*args))[1]
        return made

    return stage


def train(root, stage, cadence, stop=None):
    with ExitStack() as held:
        folder = held.enter_context(RunFolder.create_or_resume(root, "run", {}, {}))
        sinks = held.enter_context(MetricSinks([JsonLines(folder.metrics)]))
        Trainer(folder, sinks, {"kind": "test"}, stop or Stop()).train(stage, cadence)
    return folder.path


def stopping(stage, at, cadence):
    """Arguments of ``train`` with a request to stop that comes in the iteration ``at``."""
    stop, step = Stop(), stage.step

    def stepped(iteration):
        stop.requested = stop.requested or iteration == at
        return step(iteration)

    stage.step = stepped
    return stage, cadence, stop


@pytest.mark.parametrize("cadence", CADENCES.values(), ids=CADENCES)
def test_the_same_as_at_once_wherever_it_stops(cadence, stage, tmp_path):
    at_once = train(tmp_path / "at once", stage(PolicyTraining), cadence)
    assert_same_run(train(tmp_path / "beside", stage(), cadence), at_once)
    for at in (2, 4, 6, 7):
        root = tmp_path / str(at)
        with pytest.raises(Interrupted, match=f"saved at iteration {at}"):
            train(root, *stopping(stage(), at, cadence))
        assert_same_run(train(root, stage(), cadence), at_once)


def test_the_simulators_step_between_updates(stage, tmp_path):
    seen = []
    cadence = CADENCES["ends before the next event"]
    train(tmp_path, stage(seen=seen), cadence)
    whole = list(range(STEPS))
    first = whole + ["update"] * 6  # before training; then the first step of the evaluation
    beside = [0, 1, "update", 2, "update"]
    assert seen == [*first, *beside, 3, *whole]


def test_an_evaluation_ends_as_soon_as_its_episodes_do(stage, tmp_path):
    """Its rows are recorded then, in the order of the iterations."""
    cadence = Cadence(20, log_every=1, evaluate_every=10, checkpoint_every=20)
    made, seen = stage(), {}
    step, folder = made.step, tmp_path / "run"

    def stepped(iteration):
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        seen[iteration] = [json.loads(line)["step"] for line in lines]
        return step(iteration)

    made.step = stepped
    with pytest.MonkeyPatch.context() as patch:
        append = JsonLines._append
        patch.setattr(
            JsonLines, "_append", lambda self, lines: (append(self, lines), self._file.flush())
        )
        train(tmp_path, made, cadence)
    assert max(seen[14]) == 10
    assert seen[16][-3:] == [15, 15, 15]
    assert sorted(seen[20]) == seen[20]


def test_a_simulator_that_fails_beside_an_update(stage, tmp_path):
    made = stage()
    runner = made.evaluator.runner
    stepping = runner.stepping

    def fails(act, *arguments):
        def acting(obs, step):
            if len(runner.seen) > 15 and step == 2:
                raise SimulationError("the pole is broken")
            return act(obs, step)

        return stepping(acting, *arguments)

    runner.stepping = fails
    with pytest.raises(UserError, match="evaluation in the simulator: the pole is broken"):
        train(tmp_path, made, Cadence(20, 1, evaluate_every=10, checkpoint_every=10))
    again = train(tmp_path, stage(), Cadence(20, 1, evaluate_every=10, checkpoint_every=10))
    whole = train(tmp_path / "whole", stage(), Cadence(20, 1, 10, 10))
    assert_same_run(again, whole)


def test_rows_before_a_divergence_are_recorded(stage, tmp_path):
    made = stage()
    step = made.step

    def diverges(iteration):
        return {k: v * torch.nan if iteration == 12 else v for k, v in step(iteration).items()}

    made.step = diverges
    with pytest.raises(UserError, match="at iteration 12: training has diverged"):
        train(tmp_path, made, Cadence(20, 1, evaluate_every=10, checkpoint_every=100))
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["step"] for row in rows if "return" in row and "task" not in row][-1] == 10
    assert rows[-1]["step"] == 11


@pytest.mark.parametrize("when", ["logged", "saved"])
def test_parameters_that_are_not_finite_are_not_saved(when, stage, tmp_path):
    """Those of the last update show in no metric of its own."""
    cadence = Cadence(20, log_every=1, evaluate_every=4, checkpoint_every=4)
    made = stage(PolicyTraining)
    step = made.step

    def diverges(iteration):
        metrics = step(iteration)
        if iteration == {"logged": 7, "saved": 8}[when]:
            name = next(iter(made.training.policy))
            made.training.policy[name].fill_(torch.nan)
        return metrics

    made.step = diverges
    with pytest.raises(UserError, match=r"at iteration 8: training has diverged"):
        train(tmp_path, made, cadence)
    assert read_manifest(checkpoint_of(tmp_path / "run", "policies"))["step"] == 4


def test_a_checkpoint_of_a_version_that_evaluated_first(stage, tmp_path):
    """It would evaluate twice at one iteration."""
    cadence = Cadence(8, log_every=1, evaluate_every=4, checkpoint_every=4)
    with pytest.raises(Interrupted):
        train(tmp_path, *stopping(stage(), 4, cadence))
    place = checkpoint_of(tmp_path / "run", "policies")
    saved = load_checkpoint(place)
    del saved.state["evaluation_follows"]
    save_checkpoint(place, manifest=saved.manifest, weights=saved.weights, state=saved.state)
    with pytest.raises(UserError, match="another version of fmbpo wrote it"):
        train(tmp_path, stage(), cadence)


def test_on_a_gpu_it_costs_a_copy_each_way(stage):
    """Observations and noise there, in one; the actions back, for which the host waits."""
    assert not stage(PolicyTraining).overlaps
    with Accelerator() as device:
        made = stage(PolicyTraining, device=DEVICE)
        assert made.overlaps
        made.step(1)
        device.clear()
        made.step(2)
        alone = device.traffic
        made.begin_returns(2)
        device.clear()
        made.step(3)
        more = {kind: count - alone[kind] for kind, count in device.traffic.items()}
        assert more == {"copies_in": 1, "copies_out": 1, "waits": 1, "reads": 0}
        made.end_returns()


def test_episodes_underway():
    def stepping():
        yield 1, 2
        yield 2, 2
        return np.array([[[1.0, np.nan]]])

    moved = []
    episodes = Underway(stepping(), lambda: moved.append(None))
    assert len(moved) == 1
    assert not episodes.over
    episodes.advance()
    episodes.advance()
    assert episodes.over
    episodes.advance()
    assert len(moved) == 2
    assert episodes.returns().tolist() == [[1.0]]
