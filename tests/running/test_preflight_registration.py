"""``fmbpo check`` of a registered study: its mistakes, its changes, the power of its tests."""

import math
import re

import pytest
from scipy import stats

from fmbpo.config.study_file import load_study
from fmbpo.running.preflight.inputs import Candidate, find_store
from fmbpo.running.preflight.registration import check_registration
from fmbpo.running.preflight.table import Rows
from fmbpo.running.registration import PlannedCell, register_study
from fmbpo.training.device import resolve_device

CELLS = ["mlpwm_mlppolicy", "mlpwm_flowpolicy", "flowwm_mlppolicy", "flowwm_flowpolicy"]
REGISTERED = """
[registration]
margin = 0.03
replicates = 3
development_tasks = ["reacher-easy", "walker-walk"]
spread = { world_model = 0.05, policy = 0.02 }
[registration.hypotheses]
"models differ" = { contrast = "world model: flow - mlp", expected = "above" }
"policies do not" = { contrast = "policy: flow - mlp", expected = "equivalent" }
"""


@pytest.fixture
def checked(repository, small_store, tiny_policy, tmp_path):
    """``checked(*overrides, text)``: the rows of the registration, and the study with its cells."""

    def checked(*overrides, text=REGISTERED):
        lines = ['kind = "study"', 'factors = ["world_model", "policy"]']
        for cell in CELLS:
            file = repository / "experiments" / f"phase8_{cell}.toml"
            lines += [f"[cells.{cell}]", f'experiment = "{file}"']
        (tmp_path / "four.toml").write_text("\n".join(lines) + text)
        given = [*tiny_policy, "grid.seeds=[1, 2, 3]", *overrides]
        study = load_study(tmp_path / "four.toml", scale="laptop", overrides=given,
                           data=small_store)  # fmt: skip
        rows, cells = Rows(), []
        for name, e in study.cells.items():
            one = Candidate(name, e, device=resolve_device("cpu"), store=find_store(e))
            one.name(rows)
            cells.append(one)
        check_registration(rows, study, cells, tmp_path / "runs")
        return list(rows), study, cells

    return checked


def details(rows, subject, status):
    return [f"{r.detail} -> {r.remedy}" for r in rows if (r.subject, r.status) == (subject, status)]


def test_power_of_each_hypothesis(checked):
    rows, *_ = checked()
    models, policies = details(rows, "power", "warning")
    assert models.startswith("models differ (world model: flow - mlp above 0): 3 replicates find")

    def power(difference, n):
        """Of Student's t of two samples, at 2.5 %, since there are two hypotheses."""
        critical, error = stats.t.ppf(1 - 0.0125, 2 * n - 2), 0.05 * math.sqrt(2 / n)
        return stats.nct.sf(critical, 2 * n - 2, difference / error)

    smallest = float(re.search("find a difference of ([0-9.]+) with", models)[1])
    assert power(smallest, 3) == pytest.approx(0.8, abs=0.005)
    assert f"one of 0.03 (the margin) with {power(0.03, 3):.0%}" in models
    needed = next(n for n in range(2, 200) if power(0.03, n) >= 0.8)
    assert f"-> {needed} replicates find a difference of 0.03 with 80%" in models
    assert "policies do not (policy: flow - mlp within ±0.03)" in policies
    assert "replicates show equivalence with 80%" in policies
    assert details(rows, "registration", "ok")[1].startswith(
        "endpoint: cartpole-balance; reacher-easy is reported apart; walker-walk is not in the grid"
    )
    enough, *_ = checked(text=REGISTERED.replace("margin = 0.03", "margin = 0.3"))
    assert len(details(enough, "power", "ok")) == 2


def test_a_change_after_the_registration(checked, tmp_path):
    rows, study, cells = checked()
    (new, _) = details(rows, "registration", "ok")
    planned = {
        one.cell: PlannedCell(one.recorded, one.store.id, list(one.store.tasks), one.names)
        for one in cells
    }
    folder = tmp_path / "runs" / "four__study__1-2-3__0"
    folder.mkdir(parents=True)
    sha256, _ = register_study(study, planned, folder)
    assert new == f"SHA-256 {sha256}, which `fmbpo run` writes before the first run -> "
    rows, *_ = checked("wandb.mode=offline", "system.threads=2", "evaluation.workers=2")
    assert details(rows, "registration", "ok")[0].startswith(f"SHA-256 {sha256}, of 20")
    rows, *_ = checked("policy_learning.lam=0.5")
    (changed,) = details(rows, "registration", "warning")
    assert "policy_learning.lam: 0.95 -> 0.5 -> `fmbpo run` records an amendment" in changed
    assert changed.startswith("changed since 20")
    (withdrawn,) = details(checked(text="")[0], "registration", "warning")
    assert "-> null" in withdrawn


def test_the_grid_has_other_replicates(checked):
    rows, *_ = checked("grid.seeds=[1, 2]")
    (found,) = details(rows, "registration", "warning")
    assert found.startswith("grid.seeds has 2 replicates, 3 are registered")
    assert next(r.cells for r in rows if r.status == "warning") == tuple(CELLS)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("world model: flow - mlp", "world model: flow - mpl", "did you mean 'world model: flow"),
        (", policy = 0.02", "", "policies do not: the power of policy: flow - mlp needs"),
        ('"walker-walk"', '"cartpole-balance"', "no task is left for the endpoint"),
    ],
)
def test_mistakes(old, new, said, checked, tmp_path):
    rows, *_ = checked(text=REGISTERED.replace(old, new))
    (failed,) = [row for row in rows if row.error]
    assert said in f"{failed.detail} {failed.remedy}"
    assert not (tmp_path / "runs").exists()


def test_one_imported_world_model_gives_no_verdict_on_world_models(checked):
    given = ["protocol.checkpoint=imported", "protocol.world_model=''"]
    (models, *_) = details(checked(*given)[0], "power", "warning")
    assert models.startswith("models differ: one world model of mlp, so there will be no verdict")


def test_without_a_registration_there_is_no_row(checked):
    assert checked(text="")[0] == []


def test_runs_that_have_begun_make_a_registration_late(checked, tmp_path):
    rows, _, cells = checked()
    assert not details(rows, "registration", "warning")
    run = tmp_path / "runs" / cells[0].names.policies
    run.mkdir(parents=True)
    (run / "config.json").write_text("{}")
    rows, *_ = checked()
    (late,) = details(rows, "registration", "warning")
    assert late.startswith("1 of 10 runs have begun: a registration now is late -> ")
