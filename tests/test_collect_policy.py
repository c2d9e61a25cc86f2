"""``fmbpo data collect --policy RUN``: a trained policy acts in place of the planner."""

import json
import shutil
from functools import partial

import numpy as np
import pytest
from whole_store import load

from fmbpo.cli import main
from fmbpo.data import collecting
from fmbpo.data.store import verify
from fmbpo.running.trained_policies import load_policy

TASKS = ["cartpole-balance", "reacher-easy"]
STEPS = 60
"""Of an episode, in place of 500."""


@pytest.fixture(scope="module")
def run(repository, small_store, tiny_policy, tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    file = repository / "experiments" / "phase8_mlpwm_flowpolicy.toml"
    words = ["run", str(file), "--scale", "laptop", "--data", str(small_store)]
    words += ["--runs", str(root)]
    for override in tiny_policy:
        words += ["-o", override]
    assert main(words) == 0
    (found,) = root.glob("phase8_mlpwm_flowpolicy__*")
    return found


def collected(out, run, *words):
    command = ["data", "collect", "--out", str(out), "--policy", str(run), *words]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collecting, "Request", partial(collecting.Request, steps=STEPS))
        return main(command)


@pytest.fixture(scope="module")
def store(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "own.zarr"
    words = ["--tasks", ",".join(TASKS), "--episodes", "2", "--noise", "0,0.3", "--workers", "1"]
    assert collected(out, run, *words) == 0
    return load(out)


def test_the_actions_are_the_policys(run, store):
    assert store.behaviours == ("policy", "policy-noise-0.3")
    assert set(np.subtract(store.episode_ends, store.episode_starts)) == {STEPS + 1}
    assert store.attributes["provenance"]["request"]["policy"]["run"] == run.name
    seen, chosen = {}, set()
    for e, (start, end) in enumerate(zip(store.episode_starts, store.episode_ends, strict=True)):
        task, width = (
            TASKS[store.episode_task[e]],
            store.attributes["action_dims"][store.episode_task[e]],
        )
        spread = {}
        for seed in ("1", "1.1"):
            expected = load_policy(run, task, seed).act(store.obs[start : end - 1])
            difference = store.action[start + 1 : end] - np.clip(expected, -1, 1)
            spread[seed] = float(difference[:, :width].std())
        nearest = min(spread, key=spread.get)
        chosen.add(nearest)
        behaviour = store.behaviours[store.episode_behaviour[e]]
        seen.setdefault(behaviour, []).append(spread[nearest])
    assert chosen == {"1", "1.1"}
    assert max(seen["policy"]) < 1e-4
    assert min(seen["policy-noise-0.3"]) > 0.1


def test_two_workers_collect_the_same(run, store, tmp_path):
    out = tmp_path / "own.zarr"
    words = ["--tasks", ",".join(TASKS), "--episodes", "2", "--noise", "0,0.3", "--workers", "2"]
    assert collected(out, run, *words) == 0
    assert verify(out) == store.id


def test_other_versions_of_the_plugins(run, store, tmp_path, capsys):
    other = shutil.copytree(run, tmp_path / run.name)
    config = json.loads((other / "config.json").read_text())
    config["versions"]["policy"] = "9.9"
    (other / "config.json").write_text(json.dumps(config))
    words = ["--tasks", ",".join(TASKS), "--episodes", "2", "--noise", "0,0.3", "--workers", "1"]
    out = tmp_path / "own.zarr"
    assert collected(out, other, *words) == 2
    assert "9.9, or add --accept-plugin-versions" in capsys.readouterr().err
    assert not out.exists()
    assert collected(out, other, *words, "--accept-plugin-versions") == 0
    assert verify(out) == store.id


@pytest.mark.parametrize(
    ("place", "task", "message"),
    [
        ("", "walker-walk", "no policy for task 'walker-walk'"),
        ("gone", "reacher-easy", "gone"),
        ("checkpoints", "reacher-easy", "checkpoints"),
    ],
)
def test_a_run_that_has_no_such_policy(run, tmp_path, capsys, place, task, message):
    out = tmp_path / "own.zarr"
    assert collected(out, run / place, "--tasks", task) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
