"""A study whose disk becomes full at any moment reports it, loses nothing, and can be continued."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from forked import Forks
from small_study import assert_same

from fmbpo.runs.checkpoint import list_checkpoints, load_checkpoint

pytestmark = pytest.mark.slow

DISK = "40m"
FILLED = {
    "import": [("open", 1)],
    "study": [
        ("save", 2), ("line@pretraining", 2), ("save@checkpoint", 3), ("step@evaluation", 15),
        ("line@policies", 2),
    ],
    "imported": [("step@evaluation", 30)],
    "report": [("open@report", 3)],
}  # fmt: skip
"""When the disk is filled, command by command."""


def assert_says_so(ended, words="the disk is full"):
    """In one message."""
    assert ended.status == 2, (ended, ended.said)
    message = ended.said[ended.said.index("error: ") :]
    assert words in message, ended.said
    assert "\n  -> " in message
    assert ended.said.count("error: ") == 1


RESULTS = {"summary", "study", "report", "results", "metrics", "safetensors"}
"""Parts of the names of files that hold results."""


def assert_says_so_of_results(ended):
    """A picture and a heartbeat may fail: no result is lost with them."""
    if ended.status == 0 and "cannot draw " in ended.said:
        assert "the disk is full" in ended.said
        assert RESULTS.isdisjoint(ended.file.split(".")), ended
    elif ended.status or ended.at != "heartbeat":
        assert_says_so(ended)


def assert_intact(folder):
    """Every checkpoint in ``folder`` loads; how many there are."""
    found = [path for place in folder.rglob("checkpoints") for path in list_checkpoints(place)]
    return len([load_checkpoint(path) for path in found])


@pytest.fixture
def small_disk(tmp_path):
    """Processes with a disk of their own; its folder, and where this process sees it."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = f'mount -t tmpfs -o size={DISK} none {place} && exec "$0" "$@"'
    words = ["unshare", "-m", "sh", "-c", mount]
    if shutil.which("unshare") is None or os.geteuid() != 0:
        pytest.skip("needs a mount of its own")
    if subprocess.run([*words, "true"], capture_output=True).returncode:
        pytest.skip("no mount allowed here")
    with Forks(tmp_path, *words) as forks:
        forks.run(tmp_path, ["plugins"])  # when it answers, the disk is there
        yield forks, place, Path(f"/proc/{forks.process.pid}/root{place}")


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.endurance)])
def test_a_really_full_disk(every, small_disk, small_study, whole_study):
    forks, place, seen = small_disk
    folder, seen_folder = place / "study", small_study.write(seen / "study")
    filler, seen_filler = place / "filler", seen / "filler"
    checkpoints = []
    for name, moments in FILLED.items():
        arguments = small_study.commands[name]
        for kind, number in moments if every else moments[-2:]:
            ended = forks.run(folder, arguments, [kind, number, f"fill {filler}"])
            assert ended.at, (name, kind, number)
            assert seen_filler.stat().st_size > 2**20
            assert_says_so(ended)
            checkpoints.append(assert_intact(seen_folder))
            if name in ("study", "imported"):  # and does not begin while there is no space
                assert_says_so(forks.run(folder, arguments), "the disk is too full: ")
            seen_filler.unlink()
        small_study.finish(forks, folder, name)
    assert max(checkpoints) >= 4
    assert_same(forks, folder, whole_study, seen_folder)


LAST = {
    "study": (["study.json", "comparison.png"], {"plan", "study", "comparison"}, {"open": 2}),
    "imported": (["summary.json", "curves.png"], {"heartbeat", "curves", "summary"}, {}),
    "report": ([], {"report.html", "results.csv"}, {"open": 9, "save": 3}),
}
"""The files that a command makes again if they are missing, some of the files that it then writes,
and the steps between two events."""


@pytest.mark.parametrize(
    ("name", "every"),
    [
        *(("study", False), ("report", False)),
        *(pytest.param(name, True, marks=pytest.mark.endurance) for name in LAST),
    ],
)
def test_the_last_writes(name, every, forks, small_study, whole_study, tmp_path):
    """The disk is full from the n-th file on that is opened, brought to the disk or renamed;
    ``every``: for each n."""
    again, wanted, steps = LAST[name]
    folder, hit = tmp_path / "study", set()
    shutil.copytree(whole_study, folder)
    # The study's folder, or the newest run's, which is the imported one's.
    made = {path for file in again for path in folder.glob(f"runs/*/{file}")}
    if name == "imported":
        ours = {path.parent for path in made if (path.parent / "config.json").exists()}
        newest = max(ours, key=lambda run: (run / "config.json").stat().st_mtime_ns)
        made = {path for path in made if path.parent == newest}
    for kind in ("save", "open"):
        number, more = 1, True
        while more:
            for path in made:
                path.unlink(missing_ok=True)
            ended = forks.run(folder, small_study.commands[name], [kind, number, "full"])
            more = bool(ended.at)
            if more:
                assert_says_so_of_results(ended)
            else:
                assert ended.status == 0, ended.said
            hit.add(ended.file.split(".")[1] if ended.file[:1] == "." else ended.file)
            number += 1 if every else steps.get(kind, 1)
    assert wanted <= hit if every else wanted & hit
    assert_intact(folder)
    small_study.finish(forks, folder, name, "report")
    assert_same(forks, folder, whole_study)


@pytest.mark.parametrize("step", [32, pytest.param(8, marks=pytest.mark.endurance)])
def test_writes_from_the_beginning_on(forks, small_study, whole_study, tmp_path, step):
    folder = small_study.write(tmp_path / "study")
    number, attempts = 1, 0
    for arguments in small_study.commands.values():
        done = False
        while not done:
            kind = ("save", "open")[attempts % 2]
            ended = forks.run(folder, arguments, [kind, number, "full"])
            done = not ended.at
            if not done:
                assert_says_so_of_results(ended)
            else:
                assert ended.status == 0, ended.said
            assert_intact(folder)
            attempts += 1
            number = 1 if done else number + step
    assert attempts > 2 * len(small_study.commands)
    assert_same(forks, folder, whole_study)
