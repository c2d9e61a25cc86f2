"""Whole runs through the command line, on a small real data set: every quadrant."""

import json
import os
import shutil
import signal

import attrs
import pytest

from fmbpo import plugins
from fmbpo.base.lock import RunLock
from fmbpo.base.metrics import read_metrics
from fmbpo.cli import main
from fmbpo.data.residence import InMemory
from fmbpo.pwm.pair import HookCall
from fmbpo.running import run
from fmbpo.runs.checkpoint import read_manifest
from fmbpo.runs.summary import Summary

QUADRANTS = [f"phase8_{w}wm_{p}policy" for w in ("mlp", "flow") for p in ("mlp", "flow")]


def arguments(experiment, store, runs, overrides, command="run"):
    where = ["--runs", str(runs)] if command == "run" else []
    options = [x for o in overrides for x in ("-o", o)]
    return [command, str(experiment), "--scale", "laptop", "--data", str(store), *where, *options]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.mark.parametrize("name", QUADRANTS)
def test_a_quadrant_runs_to_its_end(
    name, runs, repository, small_store, tiny_policy, capsys, monkeypatch, tmp_path, request
):
    if name == QUADRANTS[-1]:
        for real in ("whole_episodes", "real_costs", "real_pictures"):
            request.getfixturevalue(real)
    monkeypatch.chdir(tmp_path)
    file = repository / "experiments" / f"{name}.toml"
    command = arguments(file, small_store, runs, tiny_policy)
    assert main([*command, "--json"]) == 0
    out = capsys.readouterr()
    summary = json.loads(out.out)
    assert out.err.startswith("preflight: all ")
    assert f"\n{name}: scale laptop" in out.err

    assert set(summary) == {
        "experiment", "scale", "protocol", "conventions", "world_model", "policy", "tasks",
        "wm_validation", "flops", "seconds", "versions", "health", "planning",
    }  # fmt: skip
    assert summary["experiment"] == name
    assert (summary["scale"], summary["protocol"]) == ("laptop", "frozen")
    assert summary["conventions"] == "corrected"
    assert set(summary["tasks"]) == {"cartpole-balance", "reacher-easy"}
    for name_of_task, task in summary["tasks"].items():
        assert set(task["seeds"]) == {"1", "1.1"}
        for seed in task["seeds"].values():
            assert seed["episodes"] == len(seed["returns"]) == 2
            drawn = seed["stochastic_returns"]
            assert len(drawn) == 2
            assert drawn != seed["returns"] or name_of_task == "reacher-easy"  # both 0
            assert seed["stochastic_return_mean"] == sum(drawn) / 2
            assert 0 < seed["action_noise"] < 1
            assert seed["reality"]["episode"]["starts"] == 2
        assert len(task["random_returns"]) == 2
        assert len(task["untrained_returns"]) == 2
        assert len(task["cloned_returns"]) == 2
        assert task["cloned_return_mean"] == sum(task["cloned_returns"]) / 2
    for measure in ("flops", "seconds"):
        assert set(summary[measure]) == {"pretraining", "policy_learning"}
        assert min(summary[measure].values()) > 0

    folder = next(runs.glob(f"{name}__*"))
    assert json.loads((folder / "summary.json").read_text()) == summary
    Summary.from_json(summary)
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((folder / "config.json").read_text())["scale"] == "laptop"
    origin = json.loads((folder / "origins.json").read_text())
    assert origin["policy.plugin"].endswith(".toml")
    assert origin["policy.units"] == "override"
    manifest = read_manifest(folder / "checkpoints" / "policies")
    assert (manifest["kind"], manifest["protocol"], manifest["step"]) == ("policies", "frozen", 6)
    lines = [line for line in read_metrics(folder / "metrics.jsonl") if "task" not in line]
    assert [x["step"] for x in lines if "return" in x] == [0, 3, 6]
    assert [x["step"] for x in lines if "critic_loss" in x] == [2, 4, 6]

    # Again: nothing to do, the same answer, and no row is read.
    monkeypatch.setattr(InMemory, "packed", property(lambda _: pytest.fail("rows were read")))
    assert main([*command, "--json"]) == 0
    again = capsys.readouterr()
    assert json.loads(again.out) == summary
    assert "nothing to do" in again.err


def test_what_is_printed_while_training_is_no_result(
    repository, small_store, tiny, capsys, monkeypatch, tmp_path
):
    act = HookCall.forward
    monkeypatch.setattr(HookCall, "forward", lambda *a: print("from a hook") or act(*a))
    file = repository / "experiments" / "phase8_pretrain_mlpwm.toml"
    command = arguments(file, small_store, tmp_path, tiny)
    assert main([*command, "--json"]) == 0
    out = capsys.readouterr()
    assert json.loads(out.out)["experiment"] == "phase8_pretrain_mlpwm"
    assert "from a hook" in out.err


def test_pretraining_is_shared_by_every_experiment_that_needs_the_same(
    runs, repository, small_store, tiny, tiny_policy, capsys, monkeypatch, tmp_path
):
    """One pretrained model of each kind for two quadrants; the pretraining's own file finds it."""
    monkeypatch.chdir(tmp_path)
    for kind in ("mlp", "flow"):
        for policy in ("mlp", "flow"):  # those of the tests above are found
            file = repository / "experiments" / f"phase8_{kind}wm_{policy}policy.toml"
            assert main(arguments(file, small_store, runs, tiny_policy)) == 0
        capsys.readouterr()
        name = f"phase8_pretrain_{kind}wm"
        assert len(list(runs.glob(f"{name}__*"))) == 1
        file = repository / "experiments" / f"{name}.toml"
        assert main(arguments(file, small_store, runs, tiny)) == 0
        assert "is complete; reusing it" in capsys.readouterr().err
        assert len(list(runs.glob(f"{name}__*"))) == 1
        folder = next(runs.glob(f"{name}__*"))
        summary = json.loads((folder / "summary.json").read_text())
        assert summary["policy"] is None
        assert {"score", "reward_r2", "obs_error_h1"} <= set(summary["wm_validation"])
        assert (folder / "checkpoints" / "best.safetensors").is_file()


@pytest.fixture
def finished(runs, repository, small_store, tiny_policy, tmp_path):
    """A copy of a finished run and its pretraining, and ``command(*options, what="run")``."""
    file = repository / "experiments" / f"{QUADRANTS[0]}.toml"
    assert main(arguments(file, small_store, runs, tiny_policy)) == 0
    for name in (QUADRANTS[0], "phase8_pretrain_mlpwm"):
        (folder,) = runs.glob(f"{name}__*")
        shutil.copytree(folder, tmp_path / "copy" / folder.name)

    def command(*options, what="run", file=file):
        words = arguments(file, small_store, tmp_path / "copy", tiny_policy)
        return [what, *words[1:], *options]

    return tmp_path / "copy", command


@pytest.mark.parametrize("part", ["phase8_pretrain_mlpwm", QUADRANTS[0]])
def test_a_run_waits_for_a_part_that_another_process_trains(part, finished, capsys, monkeypatch):
    root, command = finished
    (folder,) = root.glob(f"{part}__*")
    (folder / "summary.json").rename(folder / "not_yet")
    lock = RunLock(folder / "run.lock", folder)
    if part == QUADRANTS[0]:
        (other,) = root.glob("phase8_pretrain_mlpwm__*")
    else:  # policies that are complete need no world model
        (other,) = root.glob(f"{QUADRANTS[0]}__*")
        shutil.rmtree(other)
    me = f"process {os.getpid()} on "
    assert main(command("--no-wait")) == 75
    assert f"{folder}: in use by {me}" in capsys.readouterr().err

    worker = run.worker

    def at_the_second_look(act):
        looks = []

        def look(path):
            looks.append(path)
            if len(looks) == 2:
                act()
            return worker(path)

        monkeypatch.setattr(run, "worker", look)

    at_the_second_look(lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert main(command()) == 75
    assert f"waits for {me}" in capsys.readouterr().err

    def finish():
        (folder / "not_yet").rename(folder / "summary.json")
        lock.release()

    at_the_second_look(finish)
    assert main(command()) == 0
    said = capsys.readouterr().err
    assert said.count(f"waits for {me}") == 1
    assert f"{folder} is complete" in said


@pytest.fixture
def install(monkeypatch):
    """``install(version)``: every plugin is installed in this version."""
    find = plugins._find

    def install(version, **changes):
        def changed(*which):
            return attrs.evolve(find(*which), version=version, **changes)

        monkeypatch.setattr(plugins, "_find", changed)

    return install


def test_parts_of_other_plugin_versions(finished, install, capsys):
    root, command = finished
    accept = "--accept-plugin-versions"
    install("9.0")
    for what, options in (("run", []), ("check", ["--runs", str(root)])):
        assert main(command(*options, what=what)) == 2
        said = capsys.readouterr().err
        for word in (
            "world model plugin 'mlp' 0.1.0; 9.0 is installed",
            "policy plugin 'mlp' 0.1.0",
        ):
            assert word in said
        assert f"add {accept}" in said
    assert main(command(accept, "--json")) == 0
    out = capsys.readouterr()
    assert "--accept-plugin-versions: it is used" in out.err
    made = json.loads(out.out)
    assert (made["world_model"]["version"], made["policy"]["version"]) == ("0.1.0", "0.1.0")
    # New policies in the old world model: each part has the version that trained it.
    assert main(command(accept, "--json", "-o", "grid.policies_per_model=1")) == 0
    new = json.loads(capsys.readouterr().out)
    assert (new["world_model"]["version"], new["policy"]["version"]) == ("0.1.0", "9.0")
    # A part that is not complete is never continued.
    summaries = {file: json.loads(file.read_text()) for file in root.glob(f"{QUADRANTS[0]}__*/s*n")}
    next(f for f, s in summaries.items() if len(s["tasks"]["reacher-easy"]["seeds"]) == 2).unlink()
    assert main(command(accept)) == 2
    said = capsys.readouterr().err
    assert "install version 0.1.0, choose another --runs" in said
    assert f"add {accept}" not in said


def test_parts_of_another_distribution(finished, install, capsys):
    """Whose plugin has the same name and version."""
    root, command = finished
    (best,) = root.glob("phase8_pretrain_mlpwm__*/checkpoints/best.safetensors")
    install("0.1.0", distribution="other-plugins")
    for options in ([], ["-o", f"protocol.checkpoint={best}", "-o", "grid.seeds=[7]"]):
        assert main(command(*options)) == 2
        said = capsys.readouterr().err
        made = "plugin 'mlp' 0.1.0 of fmbpo-wm-mlp; 0.1.0 of other-plugins is installed"
        assert f"made with world model {made}" in said
        assert "install version 0.1.0 of fmbpo-wm-mlp" in said
    assert main(command("--accept-plugin-versions")) == 0


def test_a_checkpoint_of_another_plugin_version(finished, install, capsys):
    root, command = finished
    (best,) = root.glob("phase8_pretrain_mlpwm__*/checkpoints/best.safetensors")
    options = ["-o", f"protocol.checkpoint={best}", "-o", "grid.seeds=[7]", "--json"]
    install("9.0")
    assert main(command(*options)) == 2
    assert f"{best}: made with world model plugin 'mlp' 0.1.0" in capsys.readouterr().err
    assert main(command(*options, "--accept-plugin-versions")) == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["world_model"]["version"], made["policy"]["version"]) == ("0.1.0", "9.0")


def test_policies_without_their_pretraining_run(finished, capsys):
    """Complete ones are used; others would continue in another world model."""
    root, command = finished
    (pretraining,) = root.glob("phase8_pretrain_mlpwm__*")
    shutil.rmtree(pretraining)
    assert main(command()) == 0
    assert "nothing to do" in capsys.readouterr().err
    assert not pretraining.exists()
    (folder,) = root.glob(f"{QUADRANTS[0]}__*")
    summary = json.loads((folder / "summary.json").read_text())
    summary["world_model"]["checkpoint"] = str(pretraining / "checkpoints" / "best")
    (folder / "summary.json").write_text(json.dumps(summary))
    assert main(["tasks", "render", "--policy", str(folder)]) == 2
    said = capsys.readouterr().err
    assert f"or copy its run {pretraining.name} to {root}" in said
    assert "trained again" not in said
    (folder / "summary.json").unlink()
    assert main(command("--runs", str(root), what="check")) == 0
    said = capsys.readouterr().out
    assert "continues only in equal world models" in " ".join(said.split())


@pytest.mark.parametrize("name", QUADRANTS)
def test_check_validates_without_training(
    name, repository, small_store, tiny_policy, capsys, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    file = repository / "experiments" / f"{name}.toml"
    assert main(arguments(file, small_store, None, tiny_policy, "check")) == 0
    out = capsys.readouterr().out
    assert "can run" in out
    assert list(tmp_path.iterdir()) == []


def test_host_settings_may_change_when_a_run_is_continued(
    repository, small_store, tiny, capsys, monkeypatch, tmp_path
):
    """Threads, workers and cadences of writing identify no result."""
    from fmbpo.running.loop import Trainer

    file = repository / "experiments" / "phase8_pretrain_mlpwm.toml"
    save = Trainer._save

    def save_and_die(self, *rest):
        save(self, *rest)
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "_save", save_and_die)
    assert main(arguments(file, small_store, tmp_path, tiny)) == 130
    monkeypatch.setattr(Trainer, "_save", save)
    changed = [*tiny, "evaluation.workers=2", "pretrain.checkpoint_every=3"]
    assert main(arguments(file, small_store, tmp_path, changed)) == 0
    assert "continues" in capsys.readouterr().err
