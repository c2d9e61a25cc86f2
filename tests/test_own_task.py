"""A task of one's own, from its table in an experiment to a report, with the commands alone."""

import json

import numpy as np
import pytest

import fmbpo
from fmbpo.cli import main
from fmbpo.data.store import info

TABLE = """
kind = "policy"

[tasks.pole]
gymnasium = "InvertedPendulum-v5"

[world_model]
plugin = "mlp"
continuation_coef = 1.0

[policy]
plugin = "mlp"

[protocol]
kind = "frozen"
world_model = "pole_model"
"""
"""The tiny settings (``conftest.py``) are the rest."""


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_policy):
    """A folder with the experiment, random data and a finished run."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "pole.toml").write_text(TABLE)
    assert main(collecting(folder, "pole.zarr", "random")) == 0
    words = ["run", str(folder / "pole.toml"), "--data", str(folder / "pole.zarr")]
    words += ["--runs", str(folder / "runs")]
    for override in (*tiny_policy, "policy_learning.horizon=3"):
        words += ["-o", override]
    assert main(words) == 0
    return folder


def collecting(folder, out, policy):
    words = ["data", "collect", "--experiment", str(folder / "pole.toml"), "--tasks", "pole"]
    words += ["--policy", policy, "--episodes", "12", "--workers", "1"]
    return [*words, "--out", str(folder / out)]


@pytest.fixture(scope="module")
def run(place):
    (found,) = (place / "runs").glob("pole__*")
    return found


def test_the_networks_have_the_tasks_sizes(run):
    config = json.loads((run / "config.json").read_text())
    assert config["suite"] == ["pole"]
    assert config["tasks"]["pole"]["gymnasium"] == "InvertedPendulum-v5"
    policy = fmbpo.load_policy(run, "pole", 1)
    assert policy.act(np.zeros((5, 4))).shape == (5, 1)
    assert policy._actors.pair.world_model.task_embedding.weight.shape[0] == 1


def test_returns_are_sums_to_the_ends_of_the_episodes(run):
    """The reward is 1 in every step but the last."""
    (task,) = json.loads((run / "summary.json").read_text())["tasks"].values()
    returns = [value for seed in task["seeds"].values() for value in seed["returns"]]
    assert all(value == int(value) and 0 < value <= 1000 for value in returns)
    assert task.get("pwm_return") is None
    assert task.get("reference_return") is None


def test_the_world_model_learns_that_episodes_end(place, run):
    (model,) = (place / "runs").glob("pole_model__*")
    losses = [row["continuation_loss"] for row in rows_of(model) if "continuation_loss" in row]
    assert losses[-1] < losses[0]
    goes_on = [row["imagined_continue"] for row in rows_of(run) if "imagined_continue" in row]
    assert goes_on
    assert all(0 < x < 1 for x in goes_on)


def rows_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def check(place, tiny_policy, capsys):
    """``check(override)``: exit status and output of the check with this setting."""

    def check(override, what="check"):
        words = [what, str(place / "pole.toml"), "--data", str(place / "pole.zarr")]
        words += ["--runs", str(place / "others")]
        for one in (*tiny_policy, "policy_learning.horizon=3", override):
            words += ["-o", one]
        status = main(words)
        said = capsys.readouterr()
        return status, " ".join((said.out + said.err).split())

    return check


@pytest.mark.parametrize(("coef", "warned"), [(0, True), (1, False)])
def test_a_model_that_does_not_see_the_ends_is_warned_of(coef, warned, check):
    status, said = check(f"world_model.continuation_coef={coef}")
    assert status == 0
    assert ("imagined episodes never end" in said) == warned


@pytest.mark.parametrize("what", ["check", "run"])
def test_rewards_beyond_the_bins_are_refused(what, check):
    status, said = check("world_model.reward_bound=0.5", what)
    assert status == 2
    assert "rewards reach 1 in the data" in said
    assert "bins end at 0.648721" in said
    assert "set it to 0.7 or more" in said


def test_rewards_within_one_bin_are_warned_of(check):
    status, said = check("world_model.reward_bound=40")
    assert status == 0
    assert "all rewards lie within ±1" in said
    assert "set world_model.reward_bound, for example to 0.76" in said


def test_a_report_and_the_status_know_the_task(place, run, capsys):
    assert main(["report", str(run), "--out", str(place / "report")]) == 0
    page = (place / "report" / "report.html").read_text()
    assert "pole" in page
    capsys.readouterr()
    assert main(["status", "--runs", str(place / "runs"), "--json"]) == 0
    assert "pole" in capsys.readouterr().out


def test_the_policies_collect_and_are_filmed(place, run, tmp_path):
    assert main(collecting(place, "again.zarr", str(run))) == 0
    assert set(info(place / "again.zarr")["episodes"]["pole"]) >= {"policy", "random"}
    film = tmp_path / "pole.gif"
    assert main(["tasks", "render", "--policy", str(run), "--out", str(film)]) == 0
    assert film.stat().st_size > 0


def test_the_list_has_the_task(place, capsys):
    assert main(["tasks", "--experiment", str(place / "pole.toml"), "--json"]) == 0
    *_, last = json.loads(capsys.readouterr().out)
    assert (last["suite"], last["name"], last["obs_dim"]) == ("own tasks", "pole", 4)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[tasks.pole]", "[tasks.walker-walk]", "MT30 already has a task 'walker-walk'"),
        ("[tasks.pole]", '[tasks."a b"]', "does not name a task"),
        ("gymnasium", "gymnasum", "did you mean 'gymnasium'?"),
        ("[tasks.pole]", "[tasks.stick]", "[tasks.pole]"),
        ("InvertedPendulum-v5", "CartPole-v1", "not Box"),
        ("InvertedPendulum-v5", "Pendulum-v1", "[4, 1] numbers per observation and action"),
        ("[protocol]", '[grid]\ntasks = ["poel"]\n[protocol]', "did you mean 'pole'?"),
    ],
)
def test_mistakes_in_a_table(old, new, said, place, tmp_path, capsys):
    assert old in TABLE
    file = tmp_path / "mine.toml"
    file.write_text(TABLE.replace(old, new))
    assert main(["check", str(file), "--data", str(place / "pole.zarr")]) == 2
    printed = capsys.readouterr()
    assert said in " ".join((printed.out + printed.err).split())
