"""``fmbpo status`` as people and programs read it."""

import io
import json
from contextlib import suppress

import attrs
import pytest

from fmbpo.cli import main
from fmbpo.reporting.status_table import WIDTH, markdown, print_status
from fmbpo.runs.folder import RunFolder
from fmbpo.runs.outcome import Interrupted
from fmbpo.runs.status import Entry


def entry(**changes):
    content = {
        "phase": "8", "experiment": "phase8_flowwm_flowpolicy", "cell": "flow-flow",
        "task": "cartpole-swingup-sparse", "seed": 123, "job": "4411234_12",
        "hardware": "NVIDIA H100 80GB HBM3", "state": "completed", "iteration": 200_000,
        "total": 200_000, "runtime": 90_000.0, "final_return": 1000.0,
        "folder": "runs/phase8_flowwm_flowpolicy__flow-flow__123__00112233aa",
    }  # fmt: skip
    return Entry(**{**content, **changes})


def shown(entries, width=WIDTH):
    stream = io.StringIO()
    print_status(entries, stream, width=width)
    return stream.getvalue()


LONGEST = [
    entry(),
    entry(seed=1, final_return=None),
    entry(state="running", folder="runs/other__00ffeedd", beat=5000.0, progress=350_000.0),
]


def test_the_longest_values_fit_and_nothing_is_cut_off():
    text = shown(LONGEST)
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "…" not in text
    squeezed = "".join(text.split())
    for part in ("200000/200000", "1d01:00:00", "1000.0", "83m/97h", "4411234_12", "80GBHBM3",
                 "swingup-sparse", "flowpolicy", "completed", "#001122", "#00ffee"):  # fmt: skip
        assert part in squeezed, part
    assert "…" not in shown(LONGEST, width=40)


def test_no_name_is_markup():
    name = "[/bold][red]x :bug: [0]"
    text = shown([entry(phase=name, hardware="a", folder=name, state="failed", reason=name)])
    assert text.count(name) == 2 + text.count(f"failed: {name}")


def test_what_is_the_runs_stands_once_and_empty_columns_are_left_out():
    plain = {"job": "", "phase": "", "beat": None, "iteration": 300, "total": 700}
    text = shown([entry(**plain, seed=s) for s in (1, 2, 3)])
    assert text.count("phase8_flowwm_") == 1
    assert text.count("NVIDIA") == 1
    assert text.count("300/700") == 3
    head = next(line for line in text.splitlines() if "task" in line)
    assert head.split() == [
        "experiment", "cell", "task", "seed", "hardware", "state", "progress", "runtime", "return",
    ]  # fmt: skip
    assert "#" not in text


def test_tasks_share_rows_in_a_run_of_many_policies():
    """By seed and progress, with the mean of their returns if all are there."""
    many = [
        entry(task=f"task-{t}", seed=s, final_return=100.0 * t if s == 1 or t else None)
        for t in range(11)
        for s in (1, 2)
    ]
    few = [entry(folder="runs/few", task=f"other-{t}") for t in range(20)]
    lines = shown([*many, *few]).splitlines()
    rows = [line for line in lines if "11 tasks" in line]
    assert len(rows) == 2
    assert "500.0" in rows[0]
    assert ".0" not in rows[1]
    assert not any("task-" in line for line in lines)
    assert sum("other-" in line for line in lines) == 20
    assert lines[-1] == "tasks share rows; --json has a row for each"
    ahead = attrs.evolve(many[0], iteration=9, total=9)
    assert "10 tasks" in shown([ahead, *many[1:]])
    assert markdown(many).count("task-") == 22


def test_runs_are_counted_and_reasons_said():
    entries = [
        entry(seed=1), entry(seed=2),
        entry(folder="runs/b", state="stale", reason="no heartbeat for 3:00:00"),
        entry(folder="runs/c", state="failed", reason="the disk is full (/scratch)"),
    ]  # fmt: skip
    assert shown(entries).splitlines()[-3:] == [
        "1 completed, 1 stale, 1 failed",
        "stale: runs/b: no heartbeat for 3:00:00",
        "failed: runs/c: the disk is full (/scratch)",
    ]


def test_markdown_has_everything_in_every_row():
    lines = markdown([entry(seed=1, reason="a | b"), entry(seed=2)]).splitlines()
    head, _, first, second = lines
    assert head.startswith(
        "| phase | experiment | cell | task | seed | job | hardware | scheduler |"
    )
    assert all(line.replace(r"\|", "").count("|") == head.count("|") for line in lines)
    assert r"a \| b" in first
    for part in ("4411234_12", "NVIDIA H100 80GB HBM3", "200000/200000", "1d 01:00:00", "1000.0"):
        assert part in first
        assert part in second


@pytest.fixture
def runs(tmp_path):
    for phase, name in (("8", "a"), ("9", "b")):
        config = {"name": name, "phase": phase, "grid": {"tasks": ["reacher-easy"], "seeds": [7]},
                  "policy_learning": {"iterations": 70}}  # fmt: skip
        run = RunFolder.create_or_resume(tmp_path, f"{name}__mlp-mlp__7__00", config, {})
        with suppress(Interrupted), run, run.at_work("Abacus", {"p": ["reacher-easy/7"]}):
            run.beat("p", 30, 70, 65.0)
            raise Interrupted("p: saved at iteration 30", "SIGTERM")
    return tmp_path


def test_control_characters_are_shown_and_not_obeyed():
    found = [entry(phase="a\x1b[31m\nb", reason="c\r\x85d", folder="runs/\x07")]
    out = io.StringIO()
    print_status(found, out)
    for text in (out.getvalue(), markdown(found)):
        assert not {"\x1b", "\r", "\x85", "\x07"} & set(text)
        assert r"a\x1b[31m\nb" in text
        assert r"c\r\x85d" in text
    assert len(markdown(found).splitlines()) == 3


def test_the_command(runs, capsys):
    def status(*words):
        assert main(["status", "--runs", str(runs), *words]) == 0
        return capsys.readouterr()

    text = status().out
    assert "30/70" in text
    assert "2 stopped" in text
    assert f"stopped: {runs}/a__mlp-mlp__7__00: SIGTERM (p: saved at iteration 30)" in text
    (one,) = json.loads(status("--json", "--phase", "9").out)
    assert one == {
        "phase": "9", "experiment": "b", "cell": "mlp-mlp", "task": "reacher-easy", "seed": 7,
        "policy": 0, "state": "stopped", "reason": "SIGTERM (p: saved at iteration 30)",
        "iteration": 30, "total": 70, "runtime": 65.0, "final_return": None, "beat": None,
        "progress": None,
        "job": one["job"], "scheduler": "", "hardware": "Abacus",
        "folder": f"{runs}/b__mlp-mlp__7__00",
    }  # fmt: skip
    assert "| b | mlp-mlp | reacher-easy | 7 |" in status("--markdown", "--phase", "9").out
    empty = status("--phase", "1")
    assert (empty.out, empty.err) == ("", f"no runs of phase 1 in {runs}\n")
    assert main(["status", "--runs", str(runs / "none")]) == 2
    assert "cannot be listed" in capsys.readouterr().err
