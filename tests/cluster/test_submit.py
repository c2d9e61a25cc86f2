"""``fmbpo submit``, ``cancel`` and ``status`` with programs in place of SLURM's: the
questions to them, and mistakes. ``tests/test_cluster.py`` uses the real ones."""

import json
import os
import sys
import tomllib
from pathlib import Path

import attrs
import pytest

from fmbpo.cli import main
from fmbpo.cluster.site import Site

SBATCH = """
import json, sys
from pathlib import Path
here = Path(__file__).parent
asked = here / "asked.json"
words = json.loads(asked.read_text()) if asked.exists() else []
if len(words) >= int((here / "most").read_text()):
    sys.exit("sbatch: error: Batch job submission failed: the queue is full")
asked.write_text(json.dumps([*words, sys.argv[1:]]))
number = len(words) + 1
name = next(w.split("=")[1] for w in sys.argv if w.startswith("--job-name"))
array = next((int(w.split("-")[-1]) for w in sys.argv if w.startswith("--array")), 0)
ids = [f"{number}_{i + 1}" for i in range(array)] or [str(number)]
with (here / "queue").open("a") as file:
    file.writelines(f"{one}|{name}|PENDING|Priority\\n" for one in ids)
print(number)
"""
SQUEUE = "print(open(__file__.removesuffix('squeue') + 'queue').read(), end='')"
SCANCEL = """
import sys
import tomllib
from pathlib import Path
here = Path(__file__).parent
with (here / "cancelled").open("a") as file:
    file.writelines(f"{one}\\n" for one in sys.argv[1:] if one[0] != "-")
"""
SINFO = "print('main*|infinite', 'gpu|1-00:00:00', 'short|10:00', sep='\\n')"
SACCT = "import sys; sys.exit('Slurm accounting storage is disabled')"


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A folder with the programs, and what they were asked for."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    programs = {"sbatch": SBATCH, "squeue": SQUEUE, "scancel": SCANCEL, "sacct": SACCT}
    programs["sinfo"] = SINFO
    for name, text in programs.items():
        (folder / name).write_text(f"#!{sys.executable} -S\n{text}")
        (folder / name).chmod(0o755)
    (folder / "queue").touch()
    (folder / "most").write_text("99")
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("FMBPO_SITE", raising=False)
    return folder


@pytest.fixture
def study(small_study, tmp_path, monkeypatch):
    monkeypatch.chdir(small_study.write(tmp_path / "pair"))
    return small_study.commands["study"][1:]


def refused(capsys, *words):
    capsys.readouterr()
    assert main(list(map(str, words))) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said[said.index("error: ") :]


def test_a_refused_job_cancels_those_before_it(slurm, study, capsys):
    (slurm / "most").write_text("2")
    said = refused(capsys, "submit", *study)
    assert (
        "sbatch: error: Batch job submission failed: the queue is full; nothing is queued" in said
    )
    assert "it called: sbatch --parsable --job-name=fmbpo-pair" in said
    assert (slurm / "cancelled").read_text().split() == ["1", "2"]
    assert json.loads(Path("runs/jobs/jobs.json").read_text()) == {}
    assert not list(Path("runs/jobs").glob("*.txt"))
    assert not list(Path("runs").glob("pair__*"))


@pytest.mark.parametrize("partition", ["short", "gpu,short"])
def test_a_partition_limits_the_time(partition, slurm, study, capsys):
    assert main(["submit", *study, "--dry-run", "--partition", partition]) == 0
    said = capsys.readouterr().out
    assert "no job is longer than 0:10:00, the partition's limit" in said
    assert said.count(" --time=0-00:10:00 ") == 3


def test_a_dry_run_says_all_and_writes_nothing(slurm, study, capsys):
    before = sorted(Path().rglob("*"))
    assert main(["submit", *study, "--dry-run", "--partition", "gpu"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line[:4] for line in said if line[0] == "J"] == ["J1  ", "J2  ", "J3  "]
    dry = [line for line in said if line.startswith("sbatch ")]
    assert len(dry) == 3
    assert "--dependency=afterok:J1_1 " in dry[1]
    assert all("--partition=gpu" in line for line in dry)
    assert sorted(Path().rglob("*")) == before
    assert not (slurm / "asked.json").exists()


def test_only_what_is_missing_is_submitted(slurm, study, capsys):
    assert main(["submit", *study]) == 0
    model, *cells = [
        run for run in json.loads(Path("runs/jobs/jobs.json").read_text()) if "__" in run
    ]
    queue = slurm / "queue"
    # One cell's job is gone; another job has the same id as the other's.
    text = queue.read_text().replace("2_1|fmbpo-pair", "2_1|else").replace("2_2|", "9_9|")
    queue.write_text(text)
    capsys.readouterr()
    assert main(["submit", *study]) == 0
    said = capsys.readouterr().out
    assert f"{model}: job 1_1 is PENDING (Priority)" in said
    assert "J1  2 runs behind 1_1: " in said
    asked = json.loads((slurm / "asked.json").read_text())
    assert "--dependency=afterok:1_1" in asked[3]
    assert "--dependency=afterany:1_1:4_1:4_2" in asked[4]
    assert (slurm / "cancelled").read_text().split() == ["3"]  # the former report
    files = sorted(path.name for path in Path("runs/jobs").glob("*.txt"))
    assert files == ["pair-1.txt", "pair-2.txt", "pair-3.txt"]
    assert Path("runs/jobs/pair-3.txt").read_text().split() == cells


def test_cancelling_keeps_what_another_study_needs(slurm, study, capsys):
    assert main(["submit", *study]) == 0
    other = Path("other.toml")
    other.write_text(Path("pair.toml").read_text())
    changed = ["-o", "policy_learning.batch=5"]
    assert main(["submit", "other.toml", *study[1:], *changed]) == 0
    capsys.readouterr()
    assert main(["cancel", "pair.toml"]) == 0
    said = capsys.readouterr().out
    assert "job 1_1, which other needs" in said
    assert said.count("cancelled: ") == 3
    assert (slurm / "cancelled").read_text().split() == ["2_1", "2_2", "3"]
    assert main(["cancel", "other.toml"]) == 0
    assert (slurm / "cancelled").read_text().split()[3:] == ["1_1", "4_1", "4_2", "5"]


def test_status_without_slurm(slurm, study, capsys, monkeypatch):
    assert main(["submit", *study]) == 0
    capsys.readouterr()
    (slurm / "squeue").write_text(f"#!{sys.executable} -S\nimport sys; sys.exit('no controller')")
    assert main(["status"]) == 0
    said = capsys.readouterr()
    assert "1_1" in said.out
    assert "PENDING" not in said.out
    assert "SLURM's states are not known: no controller" in said.err
    monkeypatch.setenv("PATH", "/nowhere")
    assert main(["status"]) == 0
    assert "1_1" in capsys.readouterr().out


def test_mistakes(slurm, study, tmp_path, capsys, monkeypatch):
    site = tmp_path / "site.toml"

    def with_site(text):
        site.write_text(text)
        return refused(capsys, "submit", *study, "--site", site)

    said = with_site('partitions = "gpu"\ntime = "soon"\nprocesses = "2"')
    assert "site.toml: partitions: unknown key\n  -> did you mean 'partition'?" in said
    assert "'soon' is not a time limit" in said
    assert "processes: '2' (a string) instead of an integer" in said
    assert "no such file" in refused(capsys, "submit", *study, "--site", "nowhere.toml").lower()
    said = refused(capsys, "submit", *study, "--gpus-per-job", 1)
    assert "srun --gres=gpu:1 fmbpo submit" in said
    said = refused(capsys, "submit", *study, "-o", "pretrain.batch=100000000")
    assert "needed" in said  # of the memory, by the preflight
    assert not (slurm / "asked.json").exists()
    assert "no job of pair was submitted" in refused(capsys, "cancel", "pair.toml")
    monkeypatch.setenv("FMBPO_SITE", str(site))
    assert "unknown key" in refused(capsys, "submit", *study)
    monkeypatch.delenv("FMBPO_SITE")
    Path("runs/jobs").mkdir(parents=True)
    Path("runs/jobs/jobs.json").write_text("[]")
    for words in (["submit", *study], ["cancel", "pair.toml"], ["status"]):
        assert "it does not list jobs" in refused(capsys, *words)
    monkeypatch.setenv("PATH", "/nowhere")
    said = refused(capsys, "submit", *study)
    assert "SLURM's sbatch is not on this machine" in said


def test_the_page_has_every_key_of_a_site(repository):
    page = (repository / "docs/cluster.md").read_text(encoding="utf-8")
    keys = [field.name for field in attrs.fields(Site)]
    assert [key for key in keys if f"`{key}`" not in page] == []
    example = page.split("```toml\n")[1].split("```")[0]
    assert set(tomllib.loads(example)) <= set(keys)
