"""A study that is killed, stopped or runs out of disk anywhere ends as if nothing had happened.

Its commands are an import of a checkpoint, a study of two cells on a pretrained world model, an
experiment on the imported one, and the report. Moments are the n-th line, save or step
(``support/forks.py``), so that they are the same on a slow machine and on a fast one.
"""

import json
import os
import random
import shutil
import signal
from collections import Counter
from pathlib import Path

import pytest
from forked import Forks
from same import assert_same_files, assert_same_runs, assert_same_tree

from fmbpo.runs.checkpoint import list_checkpoints, load_checkpoint

pytestmark = pytest.mark.slow

KILLS = 50
SIGNALS = ("SIGKILL", "SIGTERM", "SIGUSR1", "SIGTERM SIGUSR1")  # the last one ends at once
MOMENTS = {
    "import": (2, {"save": 6}),
    "study": (15, {"save": 40, "line": 35, "step": 120}),
    "imported": (5, {"save": 30, "line": 15, "step": 120}),
    "report": (4, {"save": 14, "line": 12}),
}
"""Most kills of a command in a round, and the last event of each kind that it is killed at; some
come after its end."""
SIZES = ["world_model.encoder_units=[48, 48, 48]", "world_model.units=[48, 48]",
         "world_model.latent_dim=32", "world_model.task_dim=16"]  # fmt: skip
MORE = [
    "pretrain.iterations=12",
    "pretrain.log_every=3",
    "pretrain.validate_every=4",
    "pretrain.checkpoint_every=3",
    "policy_learning.iterations=6",
    "policy_learning.critic_iterations=1",
    "policy_learning.critic_minibatches=2",
    "evaluation.final_episodes=1",
    "grid.tasks=['cartpole-balance']",
    "grid.seeds=[1]",
    "policy.units=[8]",
]


@pytest.fixture(scope="module")
def commands(repository, small_store, tiny_policy):
    """The command lines by their names, in their order."""
    experiment = str(repository / "experiments" / "phase8_mlpwm_mlppolicy.toml")
    file = str(repository / "tests" / "golden" / "pwm" / "tiny_checkpoint.pt")

    def run(what, *more):
        options = [word for one in (*tiny_policy, *MORE, *more) for word in ("-o", one)]
        return ["run", what, "--scale", "laptop", "--data", str(small_store), *options]

    return {
        "import": ["import-checkpoint", file, "--out", "imported"],
        "study": run("pair.toml"),
        "imported": run(experiment, *SIZES, "protocol.checkpoint=imported"),
        "report": ["report", "pair.toml", "--out", "report"],
    }


@pytest.fixture(scope="module")
def write_study(repository):
    """``write_study(folder)``: makes the folder, with the study's file in it."""

    def write(folder):
        folder.mkdir()
        lines = ['kind = "study"', 'factors = ["policy"]']
        for policy in ("mlp", "flow"):
            file = repository / "experiments" / f"phase8_mlpwm_{policy}policy.toml"
            lines += [f"[cells.{policy}]", f'experiment = "{file}"']
        (folder / "pair.toml").write_text("\n".join(lines))
        return folder

    return write


@pytest.fixture(scope="module")
def forks(tmp_path_factory):
    with Forks(tmp_path_factory.mktemp("said")) as forks:
        yield forks


@pytest.fixture(scope="module")
def reference(forks, commands, write_study, tmp_path_factory):
    """All commands, left alone."""
    folder = write_study(tmp_path_factory.mktemp("kills") / "whole")
    for arguments in commands.values():
        ended = forks.run(folder, arguments)
        assert ended.status == 0, ended.said
    return folder


def registry(forks, folder):
    """What ``fmbpo status`` says, without times."""
    entries = json.loads(forks.run(folder, ["status", "--json"]).said)
    return [{k: v for k, v in entry.items() if k != "runtime"} for entry in entries]


def assert_same(forks, folder, reference, seen=None):
    """The commands' results in ``folder``, which this process may see as ``seen``."""
    seen = seen or folder
    assert_same_runs(seen / "runs", reference / "runs")
    found = registry(forks, folder)
    assert found == registry(forks, reference)
    assert {entry["state"] for entry in found} == {"completed"}
    models = [load_checkpoint(place / "imported") for place in (seen, reference)]
    assert models[0].manifest == models[1].manifest
    assert_same_tree(*(model.weights for model in models))
    tables = sorted(path.name for path in (reference / "report").glob("*.csv"))
    assert tables == ["effects.csv", "results.csv", "seeds.csv"]
    for name in tables:
        found, wanted = ((place / "report" / name).read_text() for place in (seen, reference))
        assert found.replace(str(folder), "") == wanted.replace(str(reference), "")
    # Nothing is left beside them.
    assert {p.name for p in seen.iterdir()} == {p.name for p in reference.iterdir()}


def test_killed_at_random_moments(forks, commands, write_study, reference, tmp_path):
    rng, at, signals, rounds = random.Random(0), Counter(), Counter(), 0
    while at.total() < KILLS:
        rounds += 1
        folder = write_study(tmp_path / str(rounds))
        for name, arguments in commands.items():
            left, moments = MOMENTS[name]
            done = False
            while not done:
                event = None
                if left and at.total() < KILLS:
                    kind = rng.choice(list(moments))
                    names = SIGNALS[at.total() % len(SIGNALS)]
                    event = [kind, rng.randint(1, moments[kind]), names]
                ended = forks.run(folder, arguments, event)
                done = ended.status == 0
                if not ended.at:  # left alone, or too late
                    assert done, ended.said
                    continue
                left -= 1
                at[ended.at] += 1
                signals[names] += 1
                if names == "SIGKILL":
                    assert ended.status == -signal.SIGKILL
                elif not done:
                    assert ended.status == 75, ended.said
                    assert "the same command continues" in ended.said
        assert_same(forks, folder, reference)
    assert rounds >= 2
    places = ("import", "pretraining", "checkpoint", "policies", "evaluation", "report")
    assert min(at[place] for place in places) >= 3, at
    assert min(signals.values()) >= KILLS // len(SIGNALS)
