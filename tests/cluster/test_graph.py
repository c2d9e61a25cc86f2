"""The graph of jobs, and the line of sbatch for each."""

import shlex
from pathlib import Path

import pytest

from fmbpo.cluster.graph import EARLIEST, START, TIMES, Work, jobs_of
from fmbpo.cluster.lines import Lines
from fmbpo.cluster.record import ATTEMPTS, FOLDER, failed_nodes
from fmbpo.cluster.site import Site
from fmbpo.errors import UserErrors

GIB, NONE = 2**30, Site()
MODELS = [Work(f"model-{seed}", (), 3000.0, GIB) for seed in (1, 2)]
NEEDS = ["model-1", "model-2"]
CELLS = [Work(f"cell-{name}", NEEDS, 9000.0, 2 * GIB) for name in "abc"]


def graph(works, site=NONE, waiting=None, report=True):
    waiting = [work.run for work in works] if waiting is None else waiting
    return jobs_of(works, waiting, site, base=GIB, report=report)


def lines(site=NONE, **changes):
    values = {"name": "study", "command": ["run", "a b.toml"], "report": [["report", "x"]]}
    values |= {"folder": Path("/runs/jobs"), "here": Path("/home"), "cores": 4}
    return Lines(site=site, **values | changes)


def test_runs_that_are_alike_are_one_array():
    models, cells, report = graph([*MODELS, *CELLS])
    assert (models.key, models.runs, models.behind) == ("J1", NEEDS, ())
    assert (cells.key, cells.runs) == ("J2", ["cell-a", "cell-b", "cell-c"])
    assert list(cells.behind) == NEEDS
    assert (report.runs, report.behind) == ([], [*NEEDS, "cell-a", "cell-b", "cell-c"])


def test_runs_that_differ_are_apart():
    other = Work("cell-d", NEEDS, 90_000.0, 2 * GIB)
    avoiding = Work("cell-e", NEEDS, 9000.0, 2 * GIB, ("n1",))
    fewer = Work("cell-f", ["model-1"], 9000.0, 2 * GIB)
    arrays = graph([*MODELS, *CELLS, other, avoiding, fewer], report=False)
    assert [len(job.runs) for job in arrays] == [2, 3, 1, 1, 1]


def test_limits_are_the_estimates_with_a_margin():
    (job,) = graph([MODELS[0]], report=False)
    assert job.seconds == TIMES * 3000 + START
    assert job.memory == "2304M"  # 1 GiB here, and 1.25 more
    (short,) = graph([Work("x", (), 1.0, 0)], report=False)
    assert short.seconds == 900  # a whole step
    assert (job.warning, short.warning) == (EARLIEST, 225)


def test_no_job_is_longer_than_its_partition_allows():
    jobs = jobs_of(CELLS, [], NONE, base=GIB, report=True, longest=1800.0)
    assert [job.seconds for job in jobs] == [1800, 1800]
    (job,) = jobs_of([MODELS[0]], [], Site(time="2:00:00"), base=GIB, report=False, longest=1800.0)
    assert job.seconds == 7200  # asked for: SLURM decides


def test_the_site_wins():
    (job,) = graph([Work("x")], Site(time="1-00:00:00", memory="16G"), report=False)
    assert (job.seconds, job.memory) == (86_400, "16G")


@pytest.mark.parametrize(
    ("work", "said"),
    [(Work("x", (), None, 1), "give --time"), (Work("x", (), 1.0, None), "give --mem")],
)
def test_what_is_not_known_must_be_given(work, said):
    with pytest.raises(UserErrors, match=said):
        graph([work, *MODELS])


def test_a_run_waits_only_for_what_is_not_complete():
    (job,) = graph([CELLS[0]], waiting=["cell-a", "model-2"], report=False)
    assert list(job.behind) == ["model-2"]


def test_the_lines():
    models, cells, report = graph([*MODELS, *CELLS])
    ids = {"model-1": "7_1", "model-2": "7_2"}
    first = lines().sbatch(models, Path("/runs/jobs/study-1.txt"), {})
    assert first[:2] == ["sbatch", "--parsable"]
    assert {"--array=1-2", "--requeue", "--signal=B:USR1@300", "--cpus-per-task=4"} <= set(first)
    assert "--time=0-01:25:00" in first
    assert first[-2:] == ["/runs/jobs/study.sh", "/runs/jobs/study-1.txt"]
    assert not any("dependency" in word for word in first)
    second = lines().sbatch(cells, Path("/runs/jobs/study-2.txt"), ids)
    assert {"--dependency=afterok:7_1:7_2", "--kill-on-invalid-dep=yes"} <= set(second)
    last = lines().sbatch(report, None, ids | {"cell-a": "8_1"})
    assert "--dependency=afterany:7_1:7_2:8_1" in last
    assert last[-1] == "/runs/jobs/study.sh"
    assert not any("kill" in word or "array" in word or "requeue" in word for word in last)


def test_the_lines_of_a_site():
    site = Site(partition="gpu", account="me", gpus_per_job=2, options=["--constraint=h100"])
    (job,) = graph([Work("x", (), 1.0, 1, ("n1", "n2"))], site, report=False)
    words = lines(site).sbatch(job, Path("f"), {})
    wanted = {"--partition=gpu", "--account=me", "--gres=gpu:2", "--constraint=h100"}
    assert wanted | {"--exclude=n1,n2"} <= set(words)
    assert not any(word.startswith("--qos") for word in words)
    two = Site(nodes_per_job=2, processes=2)
    words = lines(two).sbatch(job, Path("f"), {})
    assert {"--nodes=2", "--ntasks-per-node=2", "--cpus-per-task=2"} <= set(words)


def test_the_script():
    site = Site(setup=["module load x"], container="apptainer exec 'my image.sif'", processes=2)
    text = lines(site).script
    assert "\nmodule load x\n" in text
    run = "apptainer exec 'my image.sif' fmbpo run 'a b.toml' --processes 2"
    assert f'\n{run} --only "$run" &\n' in text
    assert "\n  apptainer exec 'my image.sif' fmbpo report x\n" in text
    assert "$$" not in text
    several = lines(Site(nodes_per_job=2, processes=2)).script
    (line,) = (line for line in several.splitlines() if line.endswith("&") and "srun" in line)
    words = shlex.split(line)
    assert words[:3] == ["srun", "bash", "-c"]
    assert "LOCAL_WORLD_SIZE=2" in words[3]
    assert "--processes" not in words


def test_a_node_counts_as_failed_after_two_attempts_without_an_end(tmp_path):
    file = tmp_path / FOLDER / ATTEMPTS / "x.txt"
    file.parent.mkdir(parents=True)
    assert failed_nodes(tmp_path, "x") == []
    rows = ["begin n1 1_1 t", "end 75", "begin n1 1_1 t", "begin n2 1_1 t", "end 75"]
    file.write_text("\n".join(rows))
    assert failed_nodes(tmp_path, "x") == []
    file.write_text("\n".join([*rows, "begin n1 1_1 t"]))
    assert failed_nodes(tmp_path, "x") == ["n1"]
