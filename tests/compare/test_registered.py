"""A registered study through the command line: before its first run, at its end, and changed."""

import csv
import json

import pytest

from fmbpo.cli import main
from fmbpo.compare.reading import records_of
from fmbpo.compare.registered import registered_in
from fmbpo.config.study_file import load_study
from fmbpo.errors import UserError
from fmbpo.running.run import Runner
from fmbpo.running.session import Session
from fmbpo.running.stop import Stop
from fmbpo.running.study import StudyRunner
from fmbpo.runs.registration import REGISTRATION

REGISTERED = """
[registration]
margin = 0.03
replicates = 2
development_tasks = ["reacher-easy"]
spread = { policy = 0.02 }
[registration.hypotheses]
"flow policies are better" = { contrast = "policy: flow - mlp", expected = "above" }
"""
NAME = "flow policies are better"


@pytest.fixture
def starts(study_of_two, tiny_policy, small_store, tmp_path, monkeypatch):
    """``starts(*overrides, text)``: the study until its first run would begin.

    Returns the registration that is there by then.
    """
    found = []

    def run(self, stop):
        found.append(history(tmp_path))
        raise UserError("the first run begins here")

    def starts(*overrides, text=REGISTERED):
        study_of_two(tmp_path, text)
        study = load_study(tmp_path / "two.toml", scale="laptop", data=small_store,
                           overrides=[*tiny_policy, *overrides])  # fmt: skip
        runner = StudyRunner(study, Session(root=tmp_path / "runs"))
        with monkeypatch.context() as patch:
            patch.setattr(Runner, "run", run)
            with pytest.raises(UserError, match="the first run begins here"):
                runner.run(Stop())
        return found.pop()

    return starts


def history(folder):
    """The versions in each folder of the study."""
    files = sorted(folder.glob(f"runs/two__study__*/{REGISTRATION}"))
    return [json.loads(file.read_text())["versions"] for file in files]


def registered(folder):
    """What the report has of the registration of the study in a folder."""
    (found,) = registered_in([folder], records_of([folder]))
    return found


def test_a_study_is_registered_before_its_first_run(starts, tmp_path):
    ((first,),) = starts()
    assert (first["begun"], len(first["runs"])) == ([], 3)
    content = first["content"]
    assert content["registration"]["tasks"] == ["cartpole-balance"]
    assert content["registration"]["hypotheses"][NAME]["expected"] == "above"
    assert set(content["versions"]) == {
        "fmbpo", "world_model mlp", "policy flow", "policy mlp",
    }  # fmt: skip
    assert content["cells"]["one"]["levels"] == {"world_model": "mlp", "policy": "flow"}
    # A setting of the machine or of W&B changes nothing; one of the algorithm does.
    starts("wandb.mode=offline", "evaluation.workers=2", "system.threads=2")
    assert history(tmp_path) == [[first]]
    starts("policy_learning.lam=0.5")
    (second,) = [found[1] for found in history(tmp_path) if len(found) == 2]
    assert second["changes"] == ["cell one and other: policy_learning.lam: 0.95 -> 0.5"]
    assert second["begun"] == []


def test_the_report_on_a_registered_study(study_of_two, starts, copy, tmp_path, capsys):
    folder = copy("two__study__*")
    assert registered_in([folder], records_of([folder])) == []
    assert main(study_of_two(tmp_path, REGISTERED)) == 0
    out, said = capsys.readouterr()
    assert said.count("nothing to do") == 2
    ((first,),) = history(tmp_path)
    record = json.loads((folder / "study.json").read_text())["registration"]
    assert record["sha256"] == first["sha256"]
    (hypothesis,) = record["hypotheses"]
    assert hypothesis["sentence"] in out

    assert main(["report", str(folder), "--out", str(tmp_path / "report")]) == 0
    out, said = capsys.readouterr()
    assert f"registered hypotheses of two\n  {hypothesis['sentence']}\nexploratory\n" in out
    assert "ATTENTION: two: Registered on" in said
    assert "after 3 of 3 runs of the study had begun" in said
    assert "ATTENTION: two: Replicates per cell: 1; registered: 2." in said
    page = (tmp_path / "report" / "report.html").read_text()
    assert page.index("Registered hypotheses: two") < page.index(">Exploratory<")
    assert "all results are exploratory" not in page
    (row,) = csv.DictReader((tmp_path / "report" / "hypotheses.csv").open())
    (by_task,) = [
        row for row in csv.DictReader((tmp_path / "report" / "effects.csv").open())
        if row["task"] == "cartpole-balance"
    ]  # fmt: skip
    # Without the development task.
    assert float(row["difference"]) == pytest.approx(float(by_task["difference"]) / 1000)

    assert "1 hypothesis, after runs had begun; all else is exploratory." in page

    # Removed: the study still knows that it was registered.
    kept = (folder / REGISTRATION).read_bytes()
    (folder / REGISTRATION).unlink()
    with pytest.raises(UserError, match="is missing"):
        registered(folder)
    (folder / REGISTRATION).write_bytes(kept)

    # Another margin: an amendment in the same folder, after every run.
    wider = REGISTERED.replace("margin = 0.03", "margin = 0.05")
    assert main(study_of_two(tmp_path, wider)) == 0
    ((again, second),) = history(tmp_path)
    assert again == first
    assert second["changes"] == ["registration.margin: 0.03 -> 0.05"]
    assert second["begun"] == first["runs"]
    found = registered(folder)
    assert (found.margin, found.history[0].sha256) == (0.05, first["sha256"])
    assert [version.changes for version in found.amendments] == [second["changes"]]
    assert any("registration.margin: 0.03 -> 0.05" in line for line in found.warnings)

    # Another setting: an amendment in another folder, which the report on this one shows too.
    starts("policy_learning.lam=0.5", text=wider)
    found = registered(folder)
    assert found.amendments[-1].changes == ["cell one and other: policy_learning.lam: 0.95 -> 0.5"]
    assert found.warnings[-2].startswith("two: The runs here are those of the version of")

    # Withdrawn: nothing is hidden, and nothing is judged.
    assert main(study_of_two(tmp_path)) == 0
    found = registered(folder)
    assert (found.hypotheses, len(found.history)) == ((), 4)
    assert found.history[-1].changes[0].startswith("registration: {")
    assert "without registration" in found.warnings[-1]

    file = folder / REGISTRATION
    file.write_text(file.read_text().replace("0.05", "0.06"))
    with pytest.raises(UserError, match="does not match its SHA-256"):
        registered(folder)
