"""The checks of tasks bite, and ``fmbpo tasks check`` and ``parametrize_task_checks`` run them."""

import json
import re

import pytest
from task_mutants import MUTANTS, NoPictures, PuckEnv, subject

from fmbpo.cli import main
from fmbpo.errors import UserError
from fmbpo.tasks.table import GymnasiumTable
from fmbpo.testing import parametrize_task_checks
from fmbpo.testing.outcomes import Seen
from fmbpo.testing.task_contract import CHECKS, run_check, subjects

PARTS = re.compile(r"expected: \S.*\n   found: \S.*\n  remedy: \S.*", re.DOTALL)
OWN = {
    "pole": GymnasiumTable(gymnasium="InvertedPendulum-v5"),
    "reacher": GymnasiumTable(gymnasium="Reacher-v5", action_repeat=2),
}
DRAWING = {"pictures_show_the_state", "drawing_changes_nothing"}


def outcomes(task):
    seen = Seen()
    return {name: run_check(task, name, seen) for name in CHECKS}


def with_status(found, status):
    return {name for name, outcome in found.items() if outcome.status == status}


@pytest.mark.parametrize("task", ["cup-spin", *OWN])
def test_tasks_of_mt30_and_of_gymnasium_pass(task):
    (one,) = subjects([task], OWN)
    found = outcomes(one)
    assert with_status(found, "failed") == set()
    optional = {*DRAWING, *(["a_state_continues_its_episode"] if task == "cup-spin" else [])}
    assert with_status(found, "skipped") <= optional  # pictures: without an OpenGL library
    assert len(found) == len(CHECKS)


def test_the_original_passes_and_need_not_be_drawn():
    assert with_status(outcomes(subject()), "ok") == CHECKS.keys()
    found = outcomes(subject(env=NoPictures))
    assert with_status(found, "skipped") == DRAWING
    assert found["drawing_changes_nothing"].message == "no pictures: there are no pictures of pucks"
    assert with_status(found, "ok") == CHECKS.keys() - DRAWING


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: f"{m.name}-{m.check}")
def test_a_mutant_is_caught_by_the_check_meant_for_it_alone(mutant):
    """Others may be stopped by the same error, as when nothing can be repeated."""
    found = outcomes(mutant.subject())
    assert with_status(found, "failed") == {mutant.check}
    assert mutant.says in found[mutant.check].message
    assert PARTS.fullmatch(found[mutant.check].message)
    stopped = {found[name].message for name in with_status(found, "stopped")}
    assert stopped <= {f"by the same error as {mutant.check}"}


def test_every_check_is_failed_by_a_mutant():
    assert {mutant.check for mutant in MUTANTS} == CHECKS.keys()
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


@pytest.fixture
def offered(tmp_path, offer_project):
    """``offered(line)``: a suite ``throw-away`` of the scaffold's tasks, after this line."""

    def offer(line=""):
        home = tmp_path / "site"
        home.mkdir()
        source = "from attrs import evolve\nfrom task_mutants import *\n" + line
        source += "\nTASK = Made(name='throw-1', obs_dim=6, env=Env)\nfrom fmbpo.tasks.suite import"
        source += " Suite\nSUITE = Suite('throw-away', (TASK, evolve(TASK, name='throw-2')))\n"
        (home / f"throw_away_{tmp_path.name}.py").write_text(source)
        (home / "pyproject.toml").write_text(
            '[project]\nname = "throw"\nversion = "1"\n[project.entry-points."fmbpo.tasks"]\n'
            f'throw = "throw_away_{tmp_path.name}:SUITE"\n'
        )
        return offer_project(home)

    return offer


GOOD, BAD = "Env = PuckEnv", "Env = Double"
ONE = ["--check", "observations_are_finite_float32"]


def test_a_suite_is_checked_in_tables(offered, capsys):
    offered(GOOD)
    assert main(["tasks", "check", "throw-away"]) == 0
    out, err = capsys.readouterr()
    assert [line for line in out.splitlines() if line.startswith("task ")] == [
        "task throw-1 (throw-away)",
        "task throw-2 (throw-away)",
    ]
    assert out.count(f"  {len(CHECKS)} ok\n") == 2
    assert re.search(r"time_up_is_no_termination +ok +3 of 4 episodes are terminated", out)
    assert "error" not in err


def test_a_broken_task_is_an_error(offered, capsys):
    offered(BAD)
    assert main(["tasks", "check", "throw-2", "--json", *ONE]) == 2
    out, err = capsys.readouterr()
    (task,) = json.loads(out)
    (check,) = task.pop("checks")
    assert task == {"task": "throw-2", "suite": "throw-away"}
    assert (check["check"], check["status"]) == (ONE[1], "failed")
    assert "expected: observations are float32" in check["message"]
    assert "tasks check throw-2: 1 check(s) failed\n  -> " in err
    assert main(["tasks", "check", "cup-spin", "throw-away", *ONE]) == 2
    rows = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    assert [row[1] for row in rows if row[0] == ONE[1]] == ["ok", "failed", "failed"]


FAILS = """
class Env(PuckEnv):
    def step(self, action):
        print("here")
        raise KeyError("my mistake")
"""


def test_an_error_of_the_task_is_told_once_with_its_place(offered, capsys):
    offered(FAILS)
    assert main(["tasks", "check", "throw-1"]) == 2
    out, err = capsys.readouterr()
    assert out.count("my mistake") == 3  # two more checks name what `step` raises instead
    assert re.search(r"the task fails: KeyError: 'my mistake'\n +remedy: see .*, in step", out)
    assert "stopped by the same error as keeps_its_interface: sizes_are_as_declared, " in out
    assert "here" in err
    assert "here" not in out


MISSING = """
from fmbpo.errors import UserError
class Env(PuckEnv):
    def __init__(self, task):
        raise UserError("no simulator", where=task.name, remedy="install my_simulator")
"""


def test_a_simulator_that_is_not_installed_is_told_with_its_own_remedy(offered, capsys):
    offered(MISSING)
    assert main(["tasks", "check", "throw-1"]) == 2
    said = r"found: throw-1: no simulator\n +remedy: install my_simulator\n"
    assert len(re.findall(said, capsys.readouterr().out)) == 1


def test_the_tasks_of_an_experiment_are_checked(tmp_path, capsys):
    file = tmp_path / "pole.toml"
    file.write_text('[tasks.pole]\ngymnasium = "InvertedPendulum-v5"\n')
    for name in ([], ["pole"]):
        assert main(["tasks", "check", *name, "--experiment", str(file), *ONE]) == 0
        assert capsys.readouterr().out.startswith("task pole (own tasks)\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "there is nothing to check"),
        (["walker-rum"], "no suite and no task has the name 'walker-rum'\n  -> did you mean"),
        (["mt80"], "did you mean 'mt30'?"),
        (["walker-run", "--check", "steps_counted"], "did you mean 'steps_are_counted_down'?"),
        (["pole", "--experiment", "gone.toml"], "gone.toml"),
    ],
)
def test_a_mistake_of_the_users(words, said, capsys):
    assert main(["tasks", "check", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert "  -> " in err


def test_every_task_and_check_becomes_a_test(offered):
    offered(BAD)
    _, cases = parametrize_task_checks("throw-away", {ONE[1]: "it is double"}).mark.args
    assert [case.id for case in cases] == [f"{c}-throw-{i}" for i in (1, 2) for c in CHECKS]
    for case in cases[: len(CHECKS)]:
        if case.id.startswith(ONE[1]):
            with pytest.raises(pytest.xfail.Exception, match="it is double"):
                case.values[0]()
        else:
            case.values[0]()
    _, cases = parametrize_task_checks("throw-1", {"info_can_be_sent": "never"}).mark.args
    for check, said in ((ONE[1], "float64"), ("info_can_be_sent", "passes, but was expected")):
        (run,) = [case.values[0] for case in cases if case.id == f"{check}-throw-1"]
        with pytest.raises(pytest.fail.Exception, match=said):
            run()


def test_a_mistake_in_the_test_file_is_named():
    with pytest.raises(UserError, match="no suite and no task has the name 'mine'"):
        parametrize_task_checks("mine")
    with pytest.raises(UserError, match=r"no check stays_calm[\s\S]*bad_actions_are_refused"):
        parametrize_task_checks("walker-run", {"stays_calm": "never"})


def test_states_are_optional():
    """Without them, the planner does not act in the task."""

    class NoStates(PuckEnv):
        get_state = None

    outcome = run_check(subject(env=NoStates), "a_state_continues_its_episode")
    assert outcome.status == "skipped"
