"""``fmbpo submit`` in a real SLURM of two nodes: graphs, stops, failures, cancelling."""

import json
import re
import tempfile
from pathlib import Path

import pytest
from slurm import Slurm, missing

from fmbpo.base.metrics import read_metrics
from fmbpo.base.worker import search_path
from fmbpo.cli import main

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing()), reason=missing() or "SLURM can be started"),
]
MANY = 100_000
"""Iterations: more than any test waits for."""
EVERY = ("validate_every", "checkpoint_every")


@pytest.fixture(scope="module")
def slurm():
    # Sockets have short paths.
    with (
        pytest.MonkeyPatch.context() as patch,
        tempfile.TemporaryDirectory(prefix="slurm") as folder,
        Slurm(Path(folder)) as running,
    ):
        patch.setenv("SLURM_CONF", running.environment["SLURM_CONF"])
        patch.setenv("PYTHONPATH", search_path())
        patch.delenv("FMBPO_SITE", raising=False)
        yield running


@pytest.fixture
def study(small_study, tmp_path, monkeypatch):
    """The words for a study of two cells that share a world model, in a folder of its own."""
    monkeypatch.chdir(small_study.write(tmp_path / "pair"))
    return small_study.commands["study"][1:]


@pytest.fixture
def long(repository, small_store, tiny, tmp_path, monkeypatch):
    """The words for the training of a world model that takes long."""
    monkeypatch.chdir(tmp_path)
    words = [str(repository / "experiments/phase8_pretrain_mlpwm.toml"), "--scale", "laptop"]
    changes = [*tiny, f"pretrain.iterations={MANY}", *(f"pretrain.{key}={MANY}" for key in EVERY)]
    changes += ["pretrain.log_every=20"]
    return [*words, "--data", str(small_store), *(x for o in changes for x in ("-o", o))]


def rows(capsys):
    """What ``fmbpo status`` knows of each run, by its name."""
    capsys.readouterr()
    assert main(["status", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    return {Path(row["folder"]).name: row for row in found}


def jobs():
    file = Path("runs/jobs/jobs.json")
    return json.loads(file.read_text()) if file.exists() else {}


def queued(slurm):
    return slurm("squeue", "-h", "-r", "-o", "%i %T %r").strip()


def logs():
    return "".join(path.read_text() for path in sorted(Path("runs/jobs/logs").glob("*.txt")))


def step():
    """The last logged step of the only run."""
    files = list(Path("runs").glob("*__*/metrics.jsonl"))
    lines = [line for file in files for line in read_metrics(file)]
    return max((line.get("step", 0) for line in lines), default=0)


def test_two_studies_that_share_a_world_model(slurm, study, repository, capsys):
    """From the graph to the report; each run once; nothing is queued twice. The other study is
    cancelled, except for the world model."""
    with slurm.closed():
        assert main(["submit", *study, "--time", "10"]) == 0
        said = capsys.readouterr().out
        assert re.search(r"J1  1 run: .*\n    phase8_pretrain", said)
        assert re.search(r"J2  2 runs behind J1_1: 0:10:00, \d+M each\n", said)
        assert re.search(r"J3  the report, behind all: ", said)
        first = jobs()
        (model,) = (run for run in first if "pretrain" in run)
        cells = [run for run in first if "policy" in run]
        assert [first[run]["behind"] for run in cells] == [[model], [model]]
        (array,) = {first[run]["job"].split("_")[0] for run in cells}
        assert f"afterok:{first[model]['job']}" in slurm("scontrol", "show", "job", f"{array}_1")

        other = [str(repository / "experiments/phase8_mlpwm_mlppolicy.toml"), *study[1:]]
        assert main(["submit", *other, "-o", "policy_learning.batch=5"]) == 0
        both = jobs()
        assert both[model] == first[model] | {"of": ["pair", "phase8_mlpwm_mlppolicy"]}
        assert {run: one for run, one in both.items() if run in cells} == {
            c: first[c] for c in cells
        }
        (new,) = both.keys() - first.keys() - {"phase8_mlpwm_mlppolicy"}
        assert both[new]["behind"] == [model]
        assert main(["submit", *study, "--time", "10"]) == 0
        assert "nothing to submit: all runs are queued or running" in capsys.readouterr().out
        assert jobs() == both

        found = rows(capsys)
        assert found.keys() == {model, new, *cells}
        assert {found[run]["job"] for run in cells} == {f"{array}_1", f"{array}_2"}
        assert {found[run]["scheduler"] for run in (new, *cells)} == {"PENDING (Dependency)"}
        assert main(["status"]) == 0
        assert "report of pair: job" in capsys.readouterr().out
        assert main(["cancel", other[0]]) == 0
        said = capsys.readouterr().out
        assert f"kept: {model}, job {first[model]['job']}, which pair needs" in said
        assert said.count("cancelled: ") == 2
    slurm.wait(lambda: not queued(slurm))
    found = rows(capsys)
    assert found.keys() == {model, *cells}
    assert {(row["state"], row["scheduler"]) for row in found.values()} == {
        ("completed", "COMPLETED")
    }
    assert {run: row["job"] for run, row in found.items()} == {r: both[r]["job"] for r in found}
    assert list(Path("runs").glob("pair__study__*/study.json"))
    assert "</html>" in Path("runs/reports/pair/report.html").read_text()
    both = jobs()
    assert main(["submit", *study]) == 0
    assert "nothing to submit: everything is complete" in capsys.readouterr().out
    assert jobs() == both


def test_a_job_continues_after_whatever_stops_it(slurm, long, capsys):
    """The warning of the time limit, a requeue by hand, preemption; then it is cancelled."""
    assert main(["submit", *long, "--mem", "1000"]) == 0
    ((run, one),) = jobs().items()
    job = one["job"]

    def goes_on(before):
        slurm.wait(lambda: step() > before)
        assert rows(capsys)[run]["scheduler"] == "RUNNING"

    goes_on(0)
    slurm("scancel", "--batch", "--signal=USR1", job)
    slurm.wait(lambda: "(SIGUSR1); the same command continues" in logs())
    goes_on(step())
    slurm("scontrol", "requeue", job)
    slurm.wait(lambda: "(SIGTERM); the same command continues" in logs())
    assert main(["submit", *long]) == 0
    assert "nothing to submit" in capsys.readouterr().out
    goes_on(step())
    slurm("sbatch", "--partition=urgent", "--nodes=2", "--exclusive", "--wrap=sleep 2")
    slurm.wait(lambda: logs().count("(SIGTERM); the same command continues") == 2)
    goes_on(step())
    assert "Restarts=3" in slurm("scontrol", "show", "job", job)
    starts = list(map(int, re.findall(r"pretrain: continues at (\d+)", logs())))
    stops = list(map(int, re.findall(r"saved at iteration (\d+) ", logs())))
    assert starts == stops
    assert 0 < stops[0] < stops[1] < stops[2]

    assert main(["cancel", long[0]]) == 0
    assert f"cancelled: {run}, job {job}" in capsys.readouterr().out
    slurm.wait(lambda: not queued(slurm))
    row = rows(capsys)[run]
    assert (row["state"], row["reason"][:8], row["scheduler"]) == (
        "stopped",
        "SIGTERM ",
        "CANCELLED",
    )
    assert main(["cancel", long[0]]) == 0
    assert "nothing to cancel" in capsys.readouterr().out
    logged = [
        line["step"]
        for line in read_metrics(next(Path("runs").glob("*/metrics.jsonl")))
        if "loss" in line
    ]
    assert logged == list(range(20, logged[-1] + 1, 20))


@pytest.mark.endurance
def test_the_time_limit(slurm, long, capsys):
    """SLURM's own, after which the same job continues."""
    assert main(["submit", *long, "--time", "1", "--mem", "1000"]) == 0
    ((run, one),) = jobs().items()
    slurm.wait(lambda: "(SIGUSR1); the same command continues" in logs())
    slurm.wait(lambda: "pretrain: continues at" in logs())
    assert rows(capsys)[run]["job"] == one["job"]
    assert main(["cancel", long[0]]) == 0
    slurm.wait(lambda: not queued(slurm))


@pytest.mark.endurance
def test_a_node_that_fails_twice_is_left(slurm, long):
    assert main(["submit", *long, "--mem", "1000"]) == 0
    (run,) = jobs()
    attempts = Path("runs/jobs/attempts") / f"{run}.txt"

    def begun():
        lines = attempts.read_text().splitlines() if attempts.exists() else []
        return [line.split()[1] for line in lines if line.startswith("begin")]

    failed = []
    while len(set(failed)) == len(failed):  # none twice
        slurm.wait(lambda: len(begun()) > len(failed))
        failed.append(begun()[-1])
        slurm.fail(failed[-1])
    slurm.wait(lambda: len(begun()) > len(failed))
    bad = failed[-1]
    assert begun()[-1] != bad
    slurm.wait(lambda: step() > 0)
    assert main(["cancel", long[0]]) == 0
    slurm.wait(lambda: not queued(slurm))
    # The next submission knows it too.
    assert main(["submit", *long, "--mem", "1000"]) == 0
    job = slurm("scontrol", "show", "job", jobs()[run]["job"])
    assert f"ExcNodeList={bad}" in job
    assert main(["cancel", long[0]]) == 0
    slurm.wait(lambda: not queued(slurm))


def test_a_world_model_that_fails_stops_its_policies(slurm, study, tmp_path, capsys):
    site = tmp_path / "site.toml"
    site.write_text('setup = ["ulimit -f 20"]  # kB: no checkpoint fits\n')
    assert main(["submit", *study, "--site", str(site)]) == 0
    model, *cells = [run for run in jobs() if "__" in run]
    slurm.wait(lambda: not queued(slurm))
    found = rows(capsys)
    assert (found[model]["state"], found[model]["scheduler"]) == ("failed", "FAILED")
    for cell in cells:
        assert (found[cell]["state"], found[cell]["scheduler"]) == ("queued", "CANCELLED")
        assert found[cell]["reason"].startswith(f"its world model {model} failed: ")
        assert "File too large" in found[cell]["reason"]
    assert "the study is not complete; missing: mlp, flow" in logs()
    # Mended, it continues.
    assert main(["submit", *study, "--dry-run"]) == 0
    assert re.search(r"J1  1 run: ", capsys.readouterr().out)


def test_one_run_on_two_nodes(slurm, long):
    few = ["-o", "pretrain.iterations=40"]
    assert main(["submit", *long, *few, "--nodes-per-job", "2", "--mem", "1000"]) == 0
    slurm.wait(lambda: not queued(slurm))
    assert list(Path("runs").glob("*/summary.json")), logs()
    job = next(iter(jobs().values()))["job"]
    assert "NodeList=n[1-2]" in slurm("scontrol", "show", "job", job)
    assert logs().count("written to") == 1  # by the first process, for both


def test_a_job_that_slurm_refuses(slurm, long, capsys):
    assert main(["submit", *long, "--partition", "nowhere"]) == 2
    said = capsys.readouterr().err
    assert "sbatch: error: invalid partition specified: nowhere; nothing is queued" in said
    assert "Traceback" not in said
    assert jobs() == {}
    assert queued(slurm) == ""
