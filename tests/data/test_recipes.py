from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from whole_store import load

from fmbpo.cli import main
from fmbpo.data.collecting.episode import make_policy
from fmbpo.data.collecting.recipes import RECIPES, behaviours, recipe_named, schedule, with_noise
from fmbpo.errors import UserError
from fmbpo.tasks.env import TaskEnv
from fmbpo.tasks.mt30 import MT30

COLLECT = ["data", "collect", "--workers", "1"]
SOFT = """
[soft]
kind = "random"
share = 2
smooth = true

[random]
kind = "random"
share = 1
"""


def test_the_schedule_keeps_the_shares_and_is_extensible() -> None:
    mix = recipe_named("default").mix
    order = schedule(mix, 100)
    assert [order.count(b) for b in mix] == [35, 30, 15, 10, 10]
    assert schedule(mix, 40) == order[:40]
    assert set(order[:10]) == set(mix)


def test_the_small_set_of_all_tasks() -> None:
    recipe = recipe_named("mt30-mini")
    assert recipe.tasks == tuple(MT30)
    order = schedule(recipe.mix, recipe.episodes)
    counts = {b.name: order.count(b) for b in recipe.mix}
    assert counts == {
        "planner": 7,
        "planner-noise-0.3": 5,
        "planner-noise-0.6": 3,
        "planner-interrupted": 2,
        "random": 1,
        "random-smooth": 1,
        "random-bursts": 1,
    }


def test_random_behaviours() -> None:
    env = TaskEnv("cup-catch")
    actions = []
    for behaviour in recipe_named("random").mix:
        policy = make_policy(behaviour, env, np.random.default_rng(0))
        actions.append(np.array([policy(env, np.zeros(8, np.float32)) for _ in range(400)]))
    follow = [np.corrcoef(a[:-1, 0], a[1:, 0])[0, 1] for a in actions]
    assert abs(follow[0]) < 0.15
    assert follow[1] > 0.6


def test_noise_in_a_recipes_place() -> None:
    mix = with_noise([0, 0.25])
    assert [b.name for b in mix] == ["planner", "planner-noise-0.25"]
    assert [b.noise for b in mix] == [0, 0.25]
    assert mix[0].plain
    assert not mix[1].plain


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"a": {"kind": "planner", "share": 1, "nois": 1}}, "'noise'"),
        ({"a": {"kind": "expert", "share": 1}}, "instead of 'planner' or 'random'"),
        ({"a": {"share": 1}}, r"a\.kind: missing"),
        ({"a": {"kind": "random", "share": 0}}, "share: 0 .*must be > 0"),
        ({"a": {"kind": "random"}}, "share: missing"),
        ({"a": {"kind": "random", "share": "1"}}, "share: '1' .*instead of a number"),
        ({"a": {"kind": "random", "share": float("nan")}}, "share: nan .*of a finite number"),
        ({"a": {"kind": "planner", "share": 1, "noise": -0.1}}, "noise: -0.1 .*must be >= 0"),
        ({"a": {"kind": "planner", "share": 1, "effort": True}}, "effort: true .*of a number"),
        ({"a": {"kind": "random", "share": 1, "smooth": 1}}, "smooth: 1 .*of true or false"),
        ({"../a": {"kind": "random", "share": 1}}, r"a\.name: .*must match regex"),
        ({}, "no behaviour"),
    ],
)
def test_a_bad_mix(recipe: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        behaviours(recipe)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tasks", "mt30", "--recipe", "defalt"], "did you mean 'default'?"),
        (["--tasks", "reacher-esy"], "did you mean 'reacher-easy'?"),
        (["--tasks", "reacher-easy=few"], "not a number of episodes"),
        ([], "name the tasks"),
        (["--tasks", "mt30", "--noise", "0,x"], "as 0,0.1,0.3"),
        (["--tasks", "mt30", "--noise", "0,-1"], "noise: 'noise' must be >= 0: -1.0"),
        (["--tasks", "mt30", "--noise", "0.1,0.1"], "each only once"),
        (["--tasks", "mt30", "--noise", "nan"], "noise: 'noise' must be >= 0: nan"),
        (["--tasks", "mt30", "--recipe", "gone.toml"], "no such file: gone.toml"),
        (["--tasks", "mt30", "--recipe", "bad.toml"], "bad.toml: not TOML"),
        (["--tasks", "mt30", "--recipe", "flat.toml"], "a table [NAME]"),
        (["--tasks", "mt30", "--noise", "1e30"], "to less than 1,000,000"),
        (["--tasks", "mt30", "--episodes", "0"], "episodes: 0 is too small"),
        (["--tasks", "mt30=99999999"], "99,999,999 is too large\n  -> give at most 1,000,000"),
    ],
)
def test_bad_words(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.toml").write_text("[a\n")
    (tmp_path / "flat.toml").write_text("share = 1\n")
    assert main([*COLLECT, "--out", "x.zarr", *words]) == 2
    assert message in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.toml", "flat.toml"]


def test_a_recipe_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.toml").write_text(SOFT)
    words = ["--tasks", "pendulum-spin", "--episodes", "3", "--recipe", "own.toml"]
    assert main([*COLLECT, "--out", "x.zarr", *words]) == 0
    data = load(tmp_path / "x.zarr")
    assert data.behaviours == ("soft", "random")
    assert sorted(data.episode_behaviour.tolist()) == [0, 0, 1]


def test_all_thirty_by_one_word(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: dict[str, Any] = {}
    module = "fmbpo.data.collecting.collect"
    monkeypatch.setattr(module, lambda out, request, *_: asked.update(request.episodes))
    out = ["--out", str(tmp_path / "x.zarr")]
    assert main([*COLLECT, *out, "--tasks", "mt30=2,walker_walk=5"]) == 0
    assert asked == {**dict.fromkeys(MT30, 2), "walker-walk": 5}
    asked.clear()
    assert main([*COLLECT, *out, "--recipe", "mt30-mini"]) == 0
    assert asked == dict.fromkeys(MT30, RECIPES["mt30-mini"].episodes)
