"""Installed, not cloned: the wheels in an environment of their own, away from the repository."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile

import pytest

SHORT = """
import json, sys
from fmbpo.cli import main
from fmbpo.measure.evaluation import Evaluator
from fmbpo.training import behaviour_cloning
behaviour_cloning.UPDATES = 2
run = Evaluator.run
Evaluator.run = lambda self, act, tasks, episodes, steps=None, progress=None: run(
    self, act, tasks, episodes, 10, progress)
print([main(words) for words in json.loads(sys.argv[1])])
"""
"""Command lines, with episodes of 10 steps and little cloning."""
PLUGINS = ("wm_mlp", "wm_flow", "policy_mlp", "policy_flow")


@pytest.fixture(scope="module")
def site(repository, tmp_path_factory):
    """An environment with the wheels; everything else comes from the tests' environment."""
    pytest.importorskip("hatchling")
    home = tmp_path_factory.mktemp("away")
    projects = [repository, *(repository / "plugins" / name for name in PLUGINS)]
    for project in projects:
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(home)]
        subprocess.run(command, cwd=project, check=True, capture_output=True)
    venv.create(home / "env", symlinks=True)
    (packages,) = home.glob("env/lib/python3.*/site-packages")
    # No .pth file of that folder is read, so that no editable install is found through it.
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"))
    command = [sys.executable, "-m", "pip", "--python", str(home / "env"), "install", "-q"]
    command += ["--no-deps", "--no-index", "--no-compile", "--disable-pip-version-check"]
    wheels = [str(wheel) for wheel in home.glob("*.whl")]
    subprocess.run([*command, *wheels], check=True, capture_output=True)
    return home


@pytest.fixture(scope="module")
def call(site):
    """Runs a program of the environment; its stdout and stderr."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "FMBPO_DATA")}

    def call(program, *words):
        command = [str(site / "env/bin" / program), *words]
        done = subprocess.run(command, cwd=site, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout, done.stderr

    return call


def test_the_wheel_has_the_catalogue(site, repository):
    folder = repository / "experiments"
    files = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    with zipfile.ZipFile(next(site.glob("fmbpo-*.whl"))) as wheel:
        names = {name for name in wheel.namelist() if name.startswith("fmbpo/catalogue/")}
    assert names == {f"fmbpo/catalogue/{path}" for path in files}


def test_the_experiments_are_listed_with_their_older_names(call, repository):
    entries = json.loads(call("fmbpo", "experiments", "--json")[0])
    found = {entry["name"]: entry for entry in entries}
    assert set(found) == {path.stem for path in repository.glob("experiments/*.toml")}
    assert found["phase8"]["kind"] == "study"
    assert found["phase8_flowwm_mlppolicy"]["aliases"] == ["pwm_48M_mt_flowwm"]
    table = call("fmbpo", "experiments")[0]
    assert all(name in table for name in (*found, "pwm_48M_mt_flowwm"))


def test_experiments_run_and_studies_are_checked_by_name(call, site, tiny_policy):
    """In one process, which imports torch once."""
    overrides = [*tiny_policy, 'data.tasks=["pendulum-spin"]', "grid.seeds=[1]"]
    overrides += ["policy_learning.evaluate_every=6", "evaluation.final_episodes=1"]
    options = [word for override in overrides for word in ("-o", override)]
    commands = [
        ["check", "demo_reward_loss_finetune", *options],
        ["run", "phase8_flowwm_mlppolicy", *options],
        ["run", "pwm_48M_mt_flowwm", *options],
        ["report", "phase8_flowwm_mlppolicy", "--out", "report"],
    ]
    out, said = call("python", "-c", SHORT, json.dumps(commands))
    assert out.endswith("[0, 0, 0, 0]\n"), said
    assert "/catalogue/demo_reward_loss_finetune.toml can run" in out
    assert out.count("pendulum-spin") >= 2  # in the closing tables
    assert len(list(site.glob("runs/phase8_flowwm_mlppolicy__*/summary.json"))) == 1
    assert f"pwm_48M_mt_flowwm is an older name of {site}/env/" in said
    assert "is complete; nothing to do" in said
    assert (site / "report/report.html").is_file()


def test_a_copy_is_whole(call, site, repository):
    out, _ = call("fmbpo", "experiments", "copy", "phase8", "--out", "mine")
    assert out == "mine/phase8.toml\n"
    copied = {path.relative_to(site / "mine") for path in site.glob("mine/**/*.*")}
    assert len(copied) == 1 + 4 + 7 + 1  # the study, its cells, what they extend, the schema
    for path in copied:
        theirs = (repository / "experiments" / path).read_bytes()
        assert (site / "mine" / path).read_bytes() == theirs
