"""A run that is killed, interrupted or stopped anywhere ends as if nothing had happened."""

import os
import signal
import subprocess
import sys
import time

import attrs
import numpy as np
import pytest
import torch
from same import assert_same_run, assert_same_runs
from torch.utils._pytree import tree_flatten, tree_map_only

from fmbpo.cli import main
from fmbpo.config import Finetuned, load_experiment
from fmbpo.config.conventions import ConventionsConfig
from fmbpo.measure.evaluation import Evaluator
from fmbpo.running.loop import Cadence, Trainer
from fmbpo.running.stop import Stop
from fmbpo.runs.folder import RunFolder
from fmbpo.runs.outcome import Interrupted
from fmbpo.runs.sinks import JsonLines, MetricSinks
from fmbpo.training.cells import Cell
from fmbpo.training.context import Context
from fmbpo.training.dataset import load_dataset
from fmbpo.training.policies import PolicyTraining
from fmbpo.training.pretraining import Pretraining

PATIENCE = 900  # seconds after which a subprocess hangs; no measure of speed

EXPERIMENT = "phase8_flowwm_flowpolicy"
MORE = [
    "pretrain.iterations=30",
    "pretrain.log_every=4",
    "pretrain.validate_every=5",
    "pretrain.checkpoint_every=3",
    "policy_learning.iterations=12",
    "policy_learning.critic_iterations=1",
    "policy_learning.critic_minibatches=2",
    "policy_learning.log_every=3",
    "policy_learning.evaluate_every=2",
    "policy_learning.checkpoint_every=1",
    "evaluation.final_episodes=1",
    "grid.tasks=['cartpole-balance']",
    "policy.units=[8]",
    "policy.substeps=1",
    "world_model.substeps=1",
]

FORKS = """
import os, random, signal, sys, time
import fmbpo.running.run, fmbpo.reporting.closing_table
from fmbpo.cli import main

rng, kills, arguments = random.Random(0), int(sys.argv[1]), sys.argv[2:]


def die_at(count):
    # In the middle of saving: before the count-th time that something is brought to the disk.
    def dies(call):
        def counted(*args, **kwargs):
            nonlocal count
            count -= 1
            if not count:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return counted

    for name in ("fsync", "rename", "replace"):
        setattr(os, name, dies(getattr(os, name)))


while True:
    at, wait = rng.randrange(2, 18), rng.uniform(0.1, 2.0)
    child = os.fork()
    if not child:
        if kills and kills % 2:
            die_at(at)
        os._exit(main(arguments))
    if kills and not kills % 2:
        time.sleep(wait)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status):
        sys.exit(os.WEXITSTATUS(status) or (kills > 2 and 99))
    kills -= 1
"""


class Place:
    """A folder that runs go to, and the command line that puts them there."""

    def __init__(self, folder, arguments):
        self.folder, self.arguments, self.runs = folder, arguments, folder / "runs"
        folder.mkdir()

    def start(self):
        return self._start("-m", "fmbpo", *self.arguments)

    def start_and_kill(self, kills):
        return self._start("-c", FORKS, str(kills), *self.arguments)

    def _start(self, *arguments):
        self.said = self.folder / "stderr.txt"
        with self.said.open("w") as file:
            return subprocess.Popen(
                [sys.executable, *arguments],
                cwd=self.folder,
                stdout=subprocess.DEVNULL,
                stderr=file,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )

    def wait_for(self, process, happened):
        """Until ``happened(stderr)``; False if the process ended before."""
        deadline = time.monotonic() + PATIENCE
        while process.poll() is None:
            if happened(self.said.read_text()):
                return True
            assert time.monotonic() < deadline, self.said.read_text()
            time.sleep(0.001)
        return False


@pytest.fixture(scope="module")
def place(repository, small_store, tiny_policy, tmp_path_factory):
    file = repository / "experiments" / f"{EXPERIMENT}.toml"
    options = [x for o in tiny_policy + MORE for x in ("-o", o)]
    common = ["--scale", "laptop", "--data", str(small_store), "--runs", "runs", *options]
    arguments = ["run", str(file), *common]
    return lambda name: Place(tmp_path_factory.mktemp("resume") / name, arguments)


@pytest.fixture(scope="module")
def reference(place):
    """The runs of a process that was left alone."""
    whole = place("whole")
    assert whole.start().wait(PATIENCE) == 0, whole.said.read_text()
    return whole.runs


@pytest.mark.endurance
def test_killed_and_interrupted_on_the_command_line(place, reference, monkeypatch, capsys):
    """SIGINT, SIGTERM, a second process meanwhile, and SIGKILL in the final evaluation, all on one
    run of processes that import anew; ``test_study_kills.py`` has the same in forked ones."""
    cut = place("cut")
    events = [
        (signal.SIGINT, lambda said: "pretrain  0/30" in said),
        (signal.SIGTERM, lambda said: "policies  0/12" in said),
        (signal.SIGKILL, lambda said: "policies: final evaluation" in said),
    ]
    for number, happened in events:
        process = cut.start()
        assert cut.wait_for(process, happened), cut.said.read_text()
        if number is signal.SIGTERM:
            monkeypatch.chdir(cut.folder)
            assert main([*cut.arguments, "--no-wait"]) == 75
            message = capsys.readouterr().err
            assert f": in use by process {process.pid}" in message
            assert "Traceback" not in message
            assert process.poll() is None
        process.send_signal(number)
        status = process.wait(60)
        said = cut.said.read_text()
        if number is signal.SIGKILL:
            assert status == -signal.SIGKILL
        else:
            assert status == {signal.SIGINT: 130, signal.SIGTERM: 75}[number]
            assert "the same command continues" in said
            assert "Traceback" not in said
    assert cut.start().wait(PATIENCE) == 0, cut.said.read_text()
    assert_same_runs(cut.runs, reference)


@pytest.mark.endurance
def test_killed_at_random_moments(place, reference, record_property):
    """Eight to ten kills, half of them while something is saved; forked after imports."""
    cut = place("random")
    assert cut.start_and_kill(10).wait(PATIENCE) == 0, cut.said.read_text()
    assert_same_runs(cut.runs, reference)
    record_property("kills", "8 to 10")


# -- the loop, stopped at every iteration ----------------------------------------------------


class NoSimulator:
    """Stands for the ``EpisodeRunner``: rewards that depend on the policies' every weight."""

    def run(self, act, tasks, seeds, steps=500, progress=None):
        obs = np.ones((len(tasks), len(seeds), 24), np.float32)
        return act(obs, 0).astype(np.float64)


class StopAfter(Stop):
    """A request that comes while iteration ``at`` of a stage runs."""

    def __init__(self, stage, at):
        super().__init__()
        self.stage, self.at = stage, at

    def wrap(self, stage):
        step = stage.step

        def stepped(iteration):
            if (stage.name, iteration) == (self.stage, self.at):
                self.requested = True
            return step(iteration)

        stage.step = stepped
        return stage


@pytest.fixture(scope="module")
def experiment(repository, small_store, tiny_policy):
    return load_experiment(
        repository / "experiments" / f"{EXPERIMENT}.toml",
        scale="laptop",
        data=str(small_store),
        overrides=tiny_policy + MORE,
    )


ITERATIONS = 7
EVERY = range(1, ITERATIONS + 1)
CADENCE = Cadence(ITERATIONS, log_every=3, evaluate_every=2, checkpoint_every=4)


def pretraining(e, data):
    return [Pretraining(Context(e, data, torch.device("cpu")), 42)]


def policies(e, data):
    """Two groups, as a run makes them if ``policy_learning.stack`` is smaller than the grid."""
    (world,) = pretraining(e, data)
    e.world_model.component.freeze(world.module)
    groups = [[Cell("cartpole-balance", 1), Cell("reacher-easy", 1)], [Cell("reacher-easy", 2)]]
    context, evaluator = Context(e, data, world.device), Evaluator(NoSimulator(), 0)
    return [
        PolicyTraining(f"policies/{i}", cells, context, world.module, evaluator)
        for i, cells in enumerate(groups)
    ]


def finetuned(e, data):
    """Policies whose world models learn beside them."""
    protocol = Finetuned(world_model="x", model_iterations=2)
    e = attrs.evolve(e, protocol=protocol, conventions=ConventionsConfig(task_embedding="stale"))
    (world,) = pretraining(e, data)
    cells = [Cell("cartpole-balance", 1), Cell("reacher-easy", 1)]
    context, evaluator = Context(e, data, world.device), Evaluator(NoSimulator(), 0)
    return [PolicyTraining("policies", cells, context, world.module, evaluator)]


def train(root, stages, stop):
    with (
        RunFolder.create_or_resume(root, "run", {}, {}) as folder,
        MetricSinks([JsonLines(folder.metrics)]) as sinks,
    ):
        trainer = Trainer(folder, sinks, {"kind": "test"}, stop)
        for stage in stages:
            trainer.train(stage, CADENCE)
    return folder.path


@pytest.mark.parametrize(
    ("make", "residence", "iterations"),
    [
        (pretraining, "device", EVERY),
        (pretraining, "stream", (3, 4)),
        (policies, "device", (1, 4, ITERATIONS)),
        (finetuned, "host", (1, 4, ITERATIONS)),
        pytest.param(pretraining, "stream", EVERY, marks=pytest.mark.endurance),
        pytest.param(policies, "device", EVERY, marks=pytest.mark.endurance),
        pytest.param(finetuned, "device", EVERY, marks=pytest.mark.endurance),
        pytest.param(finetuned, "host", EVERY, marks=pytest.mark.endurance),
    ],
)
def test_stopped_between_iterations(make, residence, iterations, experiment, tmp_path):
    wanted = attrs.evolve(experiment.data, residence=residence)
    data = load_dataset(wanted, torch.device("cpu"))
    names = [stage.name for stage in make(experiment, data)]
    whole = train(tmp_path / "whole", make(experiment, data), Stop())
    for name in names:
        for k in iterations:
            root = tmp_path / f"{name}{k}".replace("/", "-")
            stop = StopAfter(name, k)
            stages = [stop.wrap(stage) for stage in make(experiment, data)]
            if k == ITERATIONS and name == names[-1]:  # too late: it has ended
                train(root, stages, stop)
            else:
                with pytest.raises(Interrupted, match=r"saved at iteration|before iteration 1"):
                    train(root, stages, stop)
            assert_same_run(train(root, make(experiment, data), Stop()), whole)


def test_stopped_with_compiled_kernels(experiment, tmp_path, uncompiled):
    system = attrs.evolve(experiment.system, compile="on")
    experiment = attrs.evolve(experiment, system=system)
    data = load_dataset(experiment.data, torch.device("cpu"))
    whole = train(tmp_path / "whole", finetuned(experiment, data), Stop())
    assert set(uncompiled) >= {"_norm_mish", "_norm_mish_backward", "_norm_mish_backward_x"}
    (stage,) = finetuned(experiment, data)
    stop = StopAfter(stage.name, 3)
    with pytest.raises(Interrupted):
        train(tmp_path / "stopped", [stop.wrap(stage)], stop)
    assert_same_run(train(tmp_path / "stopped", finetuned(experiment, data), Stop()), whole)


@pytest.mark.parametrize("make", [pretraining, policies, finetuned])
@pytest.mark.parametrize("updates", [0, 2])
def test_training_state_lies_in_memory_as_a_loaded_one_does(make, updates, experiment):
    """A checkpoint keeps no strides, and the last bits of a matrix product depend on them."""
    stage = make(experiment, load_dataset(experiment.data, torch.device("cpu")))[0]
    for iteration in range(1, updates + 1):
        stage.step(iteration)

    def layout():
        leaves = tree_flatten((stage.weights(), stage.state()))[0]
        tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.numel()]
        return [(tuple(t.shape), t.stride(), t.storage_offset()) for t in tensors]

    before, saved = layout(), (stage.weights(), stage.state())
    stage.load(*tree_map_only(torch.Tensor, lambda t: t.clone().contiguous(), saved))
    assert layout() == before


def test_killed_before_the_first_checkpoint_and_between_checkpoints(experiment, tmp_path):
    """Rows logged after the last checkpoint, or before the first, are not there twice."""
    data = load_dataset(experiment.data, torch.device("cpu"))
    whole = train(tmp_path / "whole", policies(experiment, data), Stop())
    for name in ("policies/0", "policies/1"):
        for k in (1, 6):
            root = tmp_path / f"{name}{k}".replace("/", "-")
            stages = policies(experiment, data)
            stage = next(stage for stage in stages if stage.name == name)
            step = stage.step

            def fails(iteration, step=step, k=k):
                if iteration == k:
                    raise MemoryError
                return step(iteration)

            stage.step = fails
            with pytest.raises(MemoryError):
                train(root, stages, Stop())
            for _ in range(2):  # the second time all is there already
                assert_same_run(train(root, policies(experiment, data), Stop()), whole)


def test_a_signal_is_answered_between_iterations_and_a_second_one_at_once(capfd):
    with Stop().listening() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested
        assert "once more: at once" in capfd.readouterr().err
        with pytest.raises(Interrupted, match="everything saved is kept"):
            os.kill(os.getpid(), signal.SIGINT)
    with Stop().listening() as stop, pytest.raises(Interrupted), stop.ends_at_once():
        os.kill(os.getpid(), signal.SIGTERM)
    stop = Stop()
    stop.requested = True
    with pytest.raises(Interrupted), stop.ends_at_once():
        pytest.fail("a request from before is answered first")
