import copy
import json
import math
import subprocess
import sys

import pytest

from fmbpo.errors import UserError
from fmbpo.runs.findings import Finding
from fmbpo.runs.summary import (
    Part,
    SeedResult,
    Summary,
    TaskResult,
    WorldModelPart,
    versions,
)


def make(**changes):
    task = TaskResult(
        {"42": SeedResult([1.0, 3.0]), "123": SeedResult([5.0])},
        random_return_mean=0.5,
        random_returns=[0.0, 1.0],
        reference_return=10.0,
    )
    content = {
        "experiment": "phase8", "scale": "laptop", "protocol": "frozen",
        "conventions": "corrected",
        "world_model": WorldModelPart("mlp", "0.1.0", {"encoder": 1000}, 1, "runs/x/best"),
        "policy": Part("flow", "0.1.0", {"net": 10}, 4),
        "tasks": {"walker-stand": task}, "wm_validation": {"reward_r2": 0.9}, "flops": 1e12,
        "seconds": {"policy": 3.0}, "versions": versions(), "health": [], "planning": None,
    }  # fmt: skip
    return Summary(**{**content, **changes})


def test_shape():
    content = json.loads(json.dumps(make().to_json()))
    assert list(content) == [
        "experiment", "scale", "protocol", "conventions", "world_model", "policy", "tasks",
        "wm_validation", "flops", "seconds", "versions", "health", "planning",
    ]  # fmt: skip
    part = {"plugin", "version", "parameters", "evaluations"}
    assert set(content["world_model"]) == part | {"checkpoint", "size_parity"}
    assert set(content["policy"]) == part
    task = content["tasks"]["walker-stand"]
    assert set(task) == {
        "seeds", "random_return_mean", "untrained_return_mean", "reference_return",
        "random_returns",
    }  # fmt: skip
    assert task["seeds"]["42"] == {
        "return_mean": 2.0, "return_std": 1.0, "episodes": 2, "returns": [1.0, 3.0],
    }  # fmt: skip
    assert task["untrained_return_mean"] is None


def test_returns_have_their_mean():
    seed = SeedResult([1.0, 3.0], stochastic_returns=[0.0, 1.0], action_noise=0.2)
    task = TaskResult({"42": seed})
    content = make(tasks={"walker-stand": task}).to_json()
    given = content["tasks"]["walker-stand"]["seeds"]["42"]
    assert given["stochastic_returns"] == [0.0, 1.0]
    assert (given["stochastic_return_mean"], given["action_noise"]) == (0.5, 0.2)
    assert Summary.from_json(content).tasks["walker-stand"] == task
    given["stochastic_return_mean"] = 0.0
    with pytest.raises(UserError, match=r"0\.0 is not the mean of stochastic_returns"):
        Summary.from_json(content)


def test_round_trip():
    summary = make(
        health=[Finding("worse_than_copy", "worse", "2 against 1", "a/1", 100)],
        conventions={"critic": "pwm"},
    )
    assert Summary.from_json(json.loads(json.dumps(summary.to_json()))) == summary
    assert summary.tasks["walker-stand"].return_mean == 3.5


def test_pretraining():
    summary = make(protocol=None, policy=None, tasks={})
    content = json.loads(json.dumps(summary.to_json()))
    assert (content["policy"], content["tasks"]) == (None, {})
    assert Summary.from_json(content) == summary
    with pytest.raises(ValueError, match="belong together"):
        make(policy=None)
    with pytest.raises(ValueError, match="protocol 'ice'"):
        make(protocol="ice")


def change(content, path, value):
    *way, last = path.split("/")
    for key in way:
        content = content[key]
    if value is KeyError:
        del content[last]
    else:
        content[last] = value


SEED = "tasks/walker-stand/seeds/42"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("scale", KeyError, "scale: missing"),
        ("extra", 1, "extra: unknown key"),
        ("scale", 3, r"scale: 3 \(an integer\) instead of a string"),
        ("seconds", "3", "seconds: '3'.* instead of an integer or a number or a table"),
        ("health", {}, "health: {}.* instead of an array, each element a table"),
        ("health", ["a text"], r"health\[0\]: .* instead of a table"),
        ("health", [{"gate": "a"}], r"health\[0\]\.message: missing"),
        (
            "health",
            [{"gate": "a", "message": "b", "since": 1.5}],
            r"\[0\]\.since: 1\.5.* instead of an int",
        ),
        ("world_model/evaluations", "1", "world_model.evaluations"),
        ("protocol", "ice", "protocol: 'ice'.* instead of 'frozen' or"),
        ("policy/checkpoint", "x", "policy.checkpoint: unknown key"),
        ("world_model/parameters", 1.5, "world_model.parameters"),
        (f"{SEED}/return_mean", 4.0, "return_mean: is 4.0, but the other keys give 2.0"),
        (f"{SEED}/episodes", 3, "episodes: is 3, but the other keys give 2"),
        (f"{SEED}/return_std", KeyError, "seeds.42.return_std: missing"),
        (f"{SEED}/returns", [], "without episodes"),
        (f"{SEED}/returns", [1.0, math.nan], r"returns\[1\]: .* instead of a finite number"),
        (f"{SEED}/best", 9.0, "best: unknown key"),
        ("tasks/walker-stand/seeds", {}, "tasks.walker-stand: a task without seeds"),
        ("tasks/walker-stand/random_return_mean", 0.7, "not the mean of random_returns"),
        (f"{SEED}/stochastic_return_mean", 2.0, "not the mean of stochastic_returns"),
        (f"{SEED}/action_noise", math.nan, "action_noise: nan.* instead of a finite"),
        ("tasks/walker-stand/pwm_return", math.inf, "pwm_return: inf.* instead of a finite"),
        ("tasks", [], "tasks: .* instead of a table"),
    ],
)
def test_wrong_summaries_are_explained(path, value, message):
    content = copy.deepcopy(make().to_json())
    change(content, path, value)
    with pytest.raises(UserError, match=message):
        Summary.from_json(content, where="x/summary.json")


def test_versions_import_nothing():
    code = """
import sys
from fmbpo.runs.summary import versions
import fmbpo.runs.folder, fmbpo.runs.checkpoint, fmbpo.runs.sinks, fmbpo.runs.progress
import fmbpo.reporting.closing_table, fmbpo.reporting.curves
found = versions()
assert list(found) == ["fmbpo", "torch", "numpy", "mujoco", "dm_control", "python"], found
assert all(text[0].isdigit() for text in found.values()), found
heavy = {"torch", "numpy", "rich", "matplotlib", "wandb", "scipy", "safetensors"} & {*sys.modules}
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_planned_returns():
    seed = SeedResult([1.0], [2.0, 3.0])
    planning = {"samples": 8}
    summary = make(tasks={"walker-stand": TaskResult({"1": seed})}, planning=planning)
    content = json.loads(json.dumps(summary.to_json()))
    assert content["tasks"]["walker-stand"]["seeds"]["1"]["planned_returns"] == [2.0, 3.0]
    assert Summary.from_json(content) == summary
    with pytest.raises(ValueError, match="not a finite number"):
        SeedResult([1.0], [math.inf])
    with pytest.raises(ValueError, match="without episodes"):
        SeedResult([1.0], [])
