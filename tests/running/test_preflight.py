"""``fmbpo check`` and the preflight of ``fmbpo run``: every failing row, all of them at once."""

import json
import os
import shutil
import sys
from collections import namedtuple

import pytest
import torch

from fmbpo.base import free_memory
from fmbpo.base.lock import RunLock
from fmbpo.cli import main
from fmbpo.config import load_experiment
from fmbpo.errors import UserError, UserErrors
from fmbpo.running.blame import Role, reporting
from fmbpo.running.preflight import Report, duration, needs, on_shapes, preflight, table
from fmbpo.runs.checkpoint import save_checkpoint, weights_sha256

POLICY, STUDY = "phase8_mlpwm_mlppolicy", "demo_reward_loss_finetune"
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def command(repository, small_store, tiny_policy, tmp_path, monkeypatch, capsys):
    """``command(name, *overrides)``: status, rows of ``--json`` for check, stderr."""
    monkeypatch.chdir(tmp_path)

    def command(name, *overrides, what="check", data=small_store, file=None):
        path = file or repository / "experiments" / f"{name}.toml"
        arguments = [what, str(path), "--scale", "laptop", "--data", str(data), "--json"]
        arguments += [x for o in (*tiny_policy, *overrides) for x in ("-o", o)]
        capsys.readouterr()
        status = main(arguments)
        out = capsys.readouterr()
        rows = json.loads(out.out)["checks"] if what == "check" else None
        return status, rows, out.err

    return command


def failed(rows):
    return {(row["subject"], tuple(row["cells"])): row for row in rows if row["status"] != "ok"}


@pytest.fixture
def no_disk(monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**6, 10**6, 1000))


@pytest.fixture
def no_memory(monkeypatch):
    monkeypatch.setattr(free_memory, "host_free", lambda: 1_000_000)


@pytest.fixture
def policies(tmp_path):
    """A checkpoint that is no world model's."""
    manifest = {"kind": "policies", "step": 1}
    weights = {"a": torch.zeros(1)}
    save_checkpoint(tmp_path / "wrong", manifest=manifest, weights=weights, state=None)
    return "protocol.checkpoint=wrong"


@pytest.mark.usefixtures("real_costs")
def test_all_is_well(command, tmp_path):
    status, rows, said = command(POLICY)
    assert (status, failed(rows)) == (0, {})
    subjects = {row["subject"] for row in rows}
    assert subjects >= {"configuration", "data", "tasks", "world model", "memory", "disk"}
    assert subjects >= {"policies", "duration"}
    assert "error" not in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("what", ["check", "run"])
@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("protocol.checkpoint=gone", ["gone.safetensors: there is no checkpoint here"]),
        ("grid.tasks=['walker-run']", ["no episodes of task 'walker-run'", "choose among"]),
    ],
)
def test_what_it_rests_on(override, words, what, command, tmp_path):
    status, _, said = command(POLICY, override, what=what)
    assert status == 2
    assert all(word in said for word in words)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("what", ["check", "run"])
def test_too_little_disk(what, command, no_disk, tmp_path):
    status, rows, said = command(POLICY, what=what)
    assert status == 2
    assert "the disk is too full" in said
    assert "1 kB free" in said
    assert "--runs" in said
    assert not (tmp_path / "runs").exists()
    if rows:
        assert set(failed(rows)) == {("disk", ())}


@pytest.mark.usefixtures("real_costs")
@pytest.mark.parametrize("what", ["check", "run"])
def test_too_little_memory(what, command, no_memory, tmp_path):
    status, _, said = command(POLICY, what=what)
    assert status == 2
    assert "1 MB are free" in said or "1 MB free" in said
    assert "lower the batch" in said
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("override", "subject", "words"),
    [
        ("pretrain.batch=1000000000000", "memory", "cpu: at least 496 TB needed, the machine has"),
        ("policy_learning.batch=1000000000000000000", "memory", "at least 6.4e+07 TB needed"),
        ("policy.units=[1000000000000000000]", "memory", "overflow"),
        ("policy_learning.horizon=5000", "runs", "an update takes more than 20,000 operations"),
    ],
)
def test_sizes_beyond_every_machine(override, subject, words, command, monkeypatch):
    """Counting ends at once, and no plugin is blamed."""
    monkeypatch.setattr(on_shapes, "MOST_OPERATIONS", 20_000)
    status, rows, said = command(POLICY, override)
    assert (status, set(failed(rows))) == (2, {(subject, ())})
    assert words in failed(rows)[subject, ()]["detail"]
    assert "-> lower the" in said


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] can't allocate memory"),
        MemoryError("Unable to allocate 3 TiB"),
    ],
)
def test_memory_that_runs_out_in_a_plugin_is_not_its_fault(error, tmp_path, repository):
    e = load_experiment(repository / "experiments" / f"{POLICY}.toml", scale="laptop")
    plugin = Role("world model", e.world_model)
    reported = reporting(tmp_path, plugin, otherwise=plugin)
    with pytest.raises(UserError, match="memory is short") as caught, reported:
        raise error
    assert "world model 'mlp'" not in str(caught.value)
    assert "-> lower the batch" in str(caught.value)


class Unspeakable(Exception):
    def __str__(self):
        raise ValueError("no text")


@pytest.mark.parametrize("error", [SystemExit(0), SystemExit("bye"), Unspeakable()])
def test_a_plugin_that_exits_or_raises_what_cannot_be_said(error, tmp_path, repository):
    """It must end neither the command, with the status that it likes, nor the message."""
    e = load_experiment(repository / "experiments" / f"{POLICY}.toml", scale="laptop")
    plugin = Role("world model", e.world_model)
    reported = reporting(tmp_path, plugin, otherwise=plugin)
    with pytest.raises(UserError, match=f"world model 'mlp': {type(error).__name__}"), reported:
        raise error
    assert "Traceback" in (tmp_path / "plugin-error.txt").read_text()


def test_a_measure_that_no_longer_converges(command):
    status, rows, _ = command(POLICY, "pretrain.learning_rate=1e18")
    assert status == 2
    assert "lower the learning rate" in failed(rows)["plugins", ()]["remedy"]


def test_memory_that_is_tight_is_a_warning(command, monkeypatch):
    monkeypatch.setattr(needs, "TIGHT", 0.0)
    status, rows, _ = command(POLICY)
    assert status == 0
    assert failed(rows)["memory", ()]["status"] == "warning"
    assert "lower the batch" in failed(rows)["memory", ()]["remedy"]


def test_a_checkpoint_of_another_kind(command, policies):
    status, rows, said = command(POLICY, policies)
    assert status == 2
    assert "kind 'policies'; 'world_model' is needed" in said
    assert failed(rows)["world model", ()]["remedy"] == "name a checkpoint of kind 'world_model'"


def spoil(store, tmp_path):
    """A copy of a data set with an id that is none."""
    copy = shutil.copytree(store, tmp_path / "mine.zarr")
    meta = json.loads((copy / "zarr.json").read_text())
    meta["attributes"]["id"] = "sha256:1234"
    (copy / "zarr.json").write_text(json.dumps(meta))
    return copy


def test_a_damaged_manifest_of_the_data(command, small_store, tmp_path):
    status, rows, said = command(POLICY, data=spoil(small_store, tmp_path))
    assert status == 2
    assert "attribute id is not the SHA-256" in said
    assert "fmbpo data verify" in said
    assert ("data", ()) in failed(rows)


def test_everything_at_once_in_every_cell_of_a_study(
    command, no_disk, no_memory, policies, small_store, tmp_path, repository
):
    base = repository / "experiments" / "base" / "demo_finetuned.toml"
    bad = spoil(small_store, tmp_path)
    file = tmp_path / "study.toml"
    file.write_text(
        'kind = "study"\nfactors = ["conventions.model_loss", "protocol.checkpoint", "data.path"]\n'
        f'[cells.one]\nexperiment = "{base}"\noverrides = ["{policies}"]\n'
        f'[cells.two]\nexperiment = "{base}"\n'
        'overrides = ["conventions.model_loss=logit_mse", "protocol.checkpoint=gone"]\n'
    )
    tasks = "grid.tasks=['cartpole-balance', 'walker-run']"
    status, rows, said = command("", tasks, file=file, data=bad)
    assert status == 2
    wrong = failed(rows)
    assert wrong["world model", ("one",)]["detail"].startswith("wrong.safetensors: ")
    assert wrong["world model", ("two",)]["detail"].startswith("gone.safetensors: ")
    assert ("data", ("one", "two")) in wrong  # said once
    assert ("disk", ()) in wrong
    assert any(subject == "memory" for subject, _ in wrong)
    for words in ("cell one: wrong", "cell two: gone", "cell one and two: ", "too full"):
        assert words in said
    status, _, said = command("", tasks, file=file, data=small_store, what="run")
    assert status == 2
    for words in ("walker-run", "cell one: wrong", "cell two: gone", "too full", "FAILED"):
        assert words in said
    assert not (tmp_path / "runs").exists()


# -- before a run ----------------------------------------------------------------------------


def test_a_run_says_one_line_and_a_finished_one_tries_nothing(command, monkeypatch):
    status, _, said = command(POLICY, what="run")
    assert status == 0
    (line,) = [x for x in said.splitlines() if x.startswith("preflight: ")]
    assert line.startswith("preflight: all ")
    assert line.endswith(" checks ok, under a minute")
    assert "FAILED" not in said

    def never(*_, **__):
        raise AssertionError("a finished run is not tried")

    for name in ("pretraining_pace", "policies_pace", "matmul_rate"):
        monkeypatch.setattr(duration, name, never)
    monkeypatch.setattr("fmbpo.running.preflight.needs.try_plugins", never)
    monkeypatch.setattr("fmbpo.running.preflight.inputs.load_dataset", never)
    status, _, said = command(POLICY, what="run")
    assert status == 0
    assert "checks ok, everything is complete already" in said


@pytest.mark.parametrize("of", ["phase8_pretrain_", POLICY])
def test_a_damaged_record_of_a_finished_run(of, command, tmp_path):
    assert command(POLICY, what="run")[0] == 0
    (folder,) = (tmp_path / "runs").glob(f"{of}*")
    file = folder / "summary.json"
    whole = file.read_text()
    for text, words in (("null", "not a JSON object"), ("[]", "not a JSON object"),
                        ("5", "not a JSON object"), ("{}", "experiment: missing; ")):  # fmt: skip
        file.write_text(text)
        for what in ("check", "run"):
            status, rows, said = command(POLICY, what=what)
            assert (status, words in said, "move summary.json away" in said) == (2, True, True)
            assert rows is None or ("runs", ()) in failed(rows)
    file.write_text(whole)
    (folder / "config.json").write_text("null")
    status, _, said = command(POLICY, what="run")
    assert "config.json: not a JSON object" in said if of == POLICY else status == 0


@pytest.mark.parametrize("held", ["phase8_pretrain_", POLICY])
def test_a_run_that_another_process_holds(held, command, tmp_path):
    _, rows, _ = command(POLICY)
    (names,) = [row["detail"].split("\n") for row in rows if row["subject"] == "runs"]
    (name,) = [name for name in names if name.startswith(held)]
    (tmp_path / "runs" / name).mkdir(parents=True)
    lock = RunLock(tmp_path / "runs" / name / "run.lock", tmp_path)
    status, rows, _ = command(POLICY)
    lock.release()
    row = failed(rows)["runs", ()]
    assert (status, row["status"]) == (0, "warning")
    assert row["detail"].startswith(f"{name} is in use by process {os.getpid()} on ")
    assert row["remedy"].startswith("`fmbpo run` waits for it")
    assert failed(command(POLICY)[1]) == {}


@pytest.mark.parametrize("what", ["check", "run"])
def test_what_is_in_the_way_of_the_policies_is_found_before_pretraining(what, command, tmp_path):
    _, rows, _ = command(POLICY)
    (names,) = [row["detail"].split("\n") for row in rows if row["subject"] == "runs"]
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / names[1]).write_text("mine")
    status, _, said = command(POLICY, what=what)
    assert status == 2
    assert "there is a file in place of a folder" in said
    assert [path.name for path in (tmp_path / "runs").iterdir()] == names[1:]


def test_a_grid_of_many_seeds(command):
    status, rows, _ = command(POLICY, f"grid.seeds={list(range(2**62, 2**62 + 11))}")
    (names,) = [row["detail"].split("\n") for row in rows if row["subject"] == "runs"]
    assert (status, names[-1].split("__")[2], len(names)) == (0, "11seeds", 12)


@pytest.mark.usefixtures("real_costs")
def test_a_long_run_is_tried_and_its_results_are_the_same(command, monkeypatch, tmp_path):
    """Bit for bit, whether updates were tried and timed before it or not."""
    found, begun = [], torch.get_rng_state()
    for short in (60.0, 0.0):
        monkeypatch.setattr(duration, "SHORT", short)
        status, _, said = command(POLICY, what="run")
        assert status == 0
        assert ("about 0:0" in said) == (short == 0)
        assert torch.equal(torch.get_rng_state(), begun)
        (folder,) = (tmp_path / "runs").glob(f"{POLICY}__*")
        weights = weights_sha256(folder / "checkpoints" / "policies")
        found.append((weights, (folder / "metrics.jsonl").read_bytes()))
        shutil.rmtree(tmp_path / "runs")
    assert found[0] == found[1]


def test_check_starts_a_worker(command, whole_episodes, tmp_path, monkeypatch):
    place = tmp_path / "place"
    place.mkdir()
    (place / "dm_control.py").write_text("raise ImportError('libGL is missing')")
    monkeypatch.syspath_prepend(str(place))
    status, rows, said = command(POLICY)
    assert status == 2
    (row,) = failed(rows).values()
    assert row["detail"].endswith("cannot be imported: ImportError: libGL is missing")
    assert "learning rate" not in said
    assert "Traceback" not in said


@pytest.mark.usefixtures("real_costs")
def test_generators_and_threads_are_left_alone(repository, small_store, tiny_policy, tmp_path):
    e = load_experiment(
        repository / "experiments" / f"{POLICY}.toml",
        scale="laptop", data=str(small_store), overrides=[*tiny_policy, "system.threads=2"],
    )  # fmt: skip
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    report = preflight({"": e}, tmp_path / "runs")
    assert torch.equal(before, torch.get_rng_state())
    assert torch.get_num_threads() == threads
    assert report.known
    assert len(report.seconds) == 2


# -- the table -------------------------------------------------------------------------------


def test_the_table_is_narrow_and_says_how_to_mend(capsys, tmp_path):
    rows = table.Rows()
    rows.ok("a", "data", "x" * 150)
    rows.ok("b", "data", "x" * 150)
    rows.warn("a", "memory", "tight", "buy more")
    report = Report(rows, [], {tmp_path: 60.0}, {}, known=True)
    report.print(sys.stdout)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) < 100
    assert "a, b" in out
    assert "-> buy more" in out
    assert report.line == "preflight: 1 warning of 2 checks, about 0:01:00"
    report.raise_failures()
    rows.fail("a", "disk", UserError("full", where="runs", remedy="free some"))
    rows.fail("b", "disk", UserError("full", where="runs", remedy="free some"))
    with pytest.raises(UserErrors, match="cell a and b: runs: full\n  -> free some"):
        report.raise_failures()
