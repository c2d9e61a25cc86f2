"""The plugins in ``examples/plugins``: what outsiders write works, and the core did not bend.

They are not installed here: a ``dist-info`` folder made from their own ``pyproject.toml`` offers
them for the time of the test.
"""

import importlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from sources import code_lines, imported

from fmbpo.base.metrics import read_metrics
from fmbpo.cli import main
from fmbpo.config.study_file import load_study
from fmbpo.plugins import load_plugin

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples" / "plugins"
FOLDERS = sorted(path.parent for path in EXAMPLES.glob("*/pyproject.toml"))
MAX_CODE_LINES = 100
every_example = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)


def project(folder):
    return tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def offered(folder):
    """(group, name, object) of an example's entry points."""
    return [
        (group, name, value)
        for group, entries in project(folder)["entry-points"].items()
        for name, value in entries.items()
    ]


def package(folder):
    (path,) = folder.glob("fmbpo_example_*")
    return path


def path_entries(home, write_dist_info):
    """The examples as if installed: ``sys.path`` entries, one of them made in ``home``."""
    for folder in FOLDERS:
        write_dist_info(folder, home)
    return [str(home), *map(str, FOLDERS)]


@pytest.fixture(scope="module")
def installed(tmp_path_factory, write_dist_info):
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("site") / "packages"
        for entry in path_entries(home, write_dist_info):
            patch.syspath_prepend(entry)
        importlib.invalidate_caches()
        yield


def test_code_lines_are_counted_right():
    assert (
        code_lines('"""A.\n\nB."""\n\n# c\nx = 1  # d\n\n\ndef f():\n    """E."""\n    y()\n') == 3
    )


@every_example
def test_an_outsider_knows_the_contract_and_the_blocks_alone(folder):
    allowed = {"fmbpo.hookspecs", "fmbpo.nn"}
    for place, more in ((package(folder), ()), (folder / "tests", ("plugins", "testing"))):
        known = (*allowed, package(folder).name, *(f"fmbpo.{name}" for name in more))
        for file in place.rglob("*.py"):
            names = [name for name in imported(file) if re.match(r"fmbpo(\.|_|$)", name)]
            beyond = [n for n in names if not any(f"{n}.".startswith(f"{k}.") for k in known)]
            assert beyond == [], file


@every_example
def test_it_is_short_and_outside_the_workspace(folder):
    texts = [file.read_text(encoding="utf-8") for file in package(folder).rglob("*.py")]
    assert sum(map(code_lines, texts)) <= MAX_CODE_LINES
    workspace = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]["workspace"]
    assert folder not in [path for pattern in workspace["members"] for path in ROOT.glob(pattern)]
    contract = (folder / "tests" / "test_contract.py").read_text(encoding="utf-8")
    assert code_lines(contract) == 4


@every_example
def test_nothing_in_the_repository_knows_it(folder):
    files = [p for place in ("fmbpo", "plugins", "experiments") for p in (ROOT / place).rglob("*")]
    texts = [p.read_text(encoding="utf-8") for p in files if p.suffix in (".py", ".toml")]
    assert len(texts) > 50
    assert not any(package(folder).name in text for text in texts)


@every_example
def test_the_readme_lists_the_settings_with_their_defaults(folder, installed):
    text = (folder / "README.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| `(.*?)` \|", text, re.MULTILINE))
    for group, name, _ in offered(folder):
        config = load_plugin(KINDS[group], name).Config()
        assert rows == {f.name: str(getattr(config, f.name)) for f in config.__attrs_attrs__}


KINDS = {"fmbpo.world_models": "world_model", "fmbpo.policies": "policy"}


def test_their_own_tests_pass_outside_of_the_repository(tmp_path, write_dist_info):
    for folder in FOLDERS:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(folder, tmp_path / folder.name, ignore=ignored)
    site, *_ = path_entries(tmp_path / "site", write_dist_info)
    copies = [str(tmp_path / folder.name) for folder in FOLDERS]
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider"]
    command += ["--import-mode=importlib", *copies]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([site, *copies, str(ROOT)]),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # The contract's checks in one or two configurations each, and their own tests.
    for check, count in (("predicted_latent_is_that_of_its_row", 4), ("policys_input_is_cut", 5)):
        assert len(re.findall(rf"^PASSED .*{check}-[01]\]$", done.stdout, re.MULTILINE)) == count
    for file in (file for folder in FOLDERS for file in folder.glob("tests/test_*.py")):
        assert re.search(rf"^PASSED .*/{file.name}::", done.stdout, re.MULTILINE), file


@pytest.fixture
def run(installed, tmp_path, monkeypatch, capsys):
    """``run(name, toml, data, overrides, runs)``: the summary and the metrics' lines."""
    monkeypatch.chdir(tmp_path)

    def run(name, toml, data, overrides, runs):
        file = tmp_path / f"{name}.toml"
        file.write_text(toml)
        options = [word for override in overrides for word in ("-o", override)]
        where = ["--scale", "laptop", "--data", str(data), "--runs", str(runs)]
        status = main(["run", str(file), *where, *options])
        assert status == 0, capsys.readouterr().err
        (folder,) = runs.glob(f"{name}__*")
        summary = json.loads((folder / "summary.json").read_text())
        return summary, list(read_metrics(folder / "metrics.jsonl"))

    return run


BASE = ROOT / "experiments" / "base"


def cell(world_model, policy, protocol):
    """A policy experiment."""
    pretrained = "" if protocol == "scratch" else f'world_model = "pretrain_{world_model}"\n'
    return (
        f'extends = ["{BASE}/policies.toml"]\n'
        f'[world_model]\nplugin = "{world_model}"\n[policy]\nplugin = "{policy}"\n'
        f'[protocol]\nkind = "{protocol}"\n{pretrained}'
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Shared, so that pairs with the same world model pretrain it once."""
    return tmp_path_factory.mktemp("runs")


PAIRS = [
    ("ensemble", "mlp"),
    ("ensemble", "mixture"),
    ("mlp", "mixture"),
    ("mlp", "fql"),
    ("rssm", "fql"),
    ("shortcut", "entropy"),
]
"""Other pairs learn beside their world models below."""
OWN_METRICS = {
    "ensemble": "model_disagreement",
    "rssm": "model_kl",
    "mixture": "actor_components",
    "entropy": "actor_entropy",
    "fql": "actor_distance",
}


@pytest.mark.parametrize(
    ("world_model", "policy", "protocol"),
    [
        *((*pair, "frozen") for pair in PAIRS),
        ("ensemble", "flow", "finetuned"),
        ("ensemble", "mlp", "scratch"),
        ("mlp", "mixture", "finetuned"),
        ("flow", "mixture", "scratch"),
        pytest.param("rssm", "entropy", "scratch", marks=pytest.mark.endurance),
    ],
)
def test_it_runs_with_every_other(
    world_model, policy, protocol, run, runs, small_store, tiny_policy
):
    name, toml = f"{world_model}_{policy}_{protocol}", cell(world_model, policy, protocol)
    summary, lines = run(name, toml, small_store, tiny_policy, runs)
    assert summary["protocol"] == protocol
    plugins = summary["world_model"]["plugin"], summary["policy"]["plugin"]
    assert plugins == (world_model, policy)
    assert set(summary["tasks"]) == {"cartpole-balance", "reacher-easy"}
    for task in summary["tasks"].values():
        assert [len(seed["returns"]) for seed in task["seeds"].values()] == [2, 2]
    # What lies on no simplex is not held against one.
    measured = any("simplex_error" in key for key in summary["wm_validation"])
    assert measured == (world_model not in ("ensemble", "rssm"))
    assert "off_simplex" not in [finding["gate"] for finding in summary["health"]]
    # The plugins' own metrics reach the log.
    learning = {policy} if protocol == "frozen" else {policy, world_model}
    for plugin, metric in OWN_METRICS.items():
        assert any(metric in line for line in lines) == (plugin in learning)
    if protocol != "frozen":
        measures = summary["wm_validation"]
        assert measures["before_score"] != measures["after_score"]


def test_the_example_experiment_can_run(installed, small_store, tiny_policy, capsys, monkeypatch):
    monkeypatch.chdir(EXAMPLES)
    options = [word for override in tiny_policy for word in ("-o", override)]
    file = str(EXAMPLES / "ensemble_mixture.toml")
    status = main(["check", file, "--scale", "laptop", "--data", str(small_store), *options])
    out = capsys.readouterr()
    assert status == 0, out.err
    assert "can run" in out.out


def test_the_example_study_compares_every_pair(installed):
    study = load_study(EXAMPLES / "study.toml", scale="laptop")
    pairs = [(e.world_model.plugin, e.policy.plugin) for e in study.cells.values()]
    wanted = itertools.product(("mlp", "rssm", "shortcut"), ("mlp", "entropy", "fql"))
    assert sorted(pairs) == sorted(wanted)


PRETRAIN = [
    "grid.seeds=[1]",
    'data.tasks=["pendulum-spin"]',
    "world_model.encoder_units=[64]",
    "world_model.units=[64, 64]",
    "world_model.latent_dim=64",
    "pretrain.iterations=300",
    "pretrain.batch=64",
    "pretrain.horizon=4",
    "pretrain.validate_every=300",
    "system.device=cpu",
    "system.threads=1",
]
LEARN = [
    *PRETRAIN,
    'grid.tasks=["pendulum-spin"]',
    "grid.policies_per_model=2",
    "policy.units=[32]",
    "critic.units=[32]",
    "policy_learning.iterations=60",
    "policy_learning.evaluate_every=60",
    "evaluation.episodes=1",
    "evaluation.final_episodes=2",
    "evaluation.workers=1",
]


@pytest.mark.endurance
def test_the_world_model_learns(run, tmp_path):
    """300 updates on real data: it explains held-out rewards and beats predicting no change."""
    toml = (
        f'extends = ["{BASE}/world_models.toml"]\nkind = "pretrain"\n'
        '[world_model]\nplugin = "ensemble"\n'
    )
    overrides = [*PRETRAIN, "pretrain.learning_rate=3e-3"]
    summary, lines = run("alone", toml, "embedded", overrides, tmp_path / "runs")
    first, last = [line for line in lines if "held_out/score" in line]
    assert last["held_out/score"] < 0.5 * first["held_out/score"]
    assert last["held_out/reward_r2"] > 0.5
    for steps in (1, 4, 16):
        assert last[f"held_out/obs_error_h{steps}"] < 0.9 * last[f"held_out/copy_error_h{steps}"]
    assert last["held_out/effective_rank"] > 4
    assert summary["health"] == []


@pytest.mark.endurance
def test_the_policy_learns(run, tmp_path, whole_episodes):
    """60 updates in imagination: what it imagines pays more, and in the real simulator the
    pendulum spins."""
    toml = cell("mlp", "mixture", "frozen")
    summary, lines = run("pair", toml, "embedded", LEARN, tmp_path / "runs")
    imagined = [line["actor_return"] for line in lines if "actor_return" in line]
    assert imagined[-1] > imagined[0] + 5
    task = summary["tasks"]["pendulum-spin"]
    untrained = max(task["untrained_returns"])
    for seed in task["seeds"].values():
        assert min(seed["returns"]) > untrained + 200
