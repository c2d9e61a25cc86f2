"""``fmbpo runs import`` and ``fmbpo report``, from files to pages."""

import csv
import shutil

import pytest

from fmbpo.cli import main


@pytest.fixture
def imported(repository, tmp_path, monkeypatch, capsys):
    """The study's earlier results, taken in under ``runs``."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(repository / "tests/golden/known_results.csv", "results.csv")
    assert main(["runs", "import", "results.csv"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    return sorted(str(path) for path in (tmp_path / "runs").iterdir())


def phase(imported, number):
    return [path for path in imported if f"phase{number}" in path]


def test_phase_3_decides_nothing(imported, tmp_path, capsys):
    assert main(["report", *phase(imported, 3), "--out", "report"]) == 0
    out, err = capsys.readouterr()
    verdicts = {line.split(":")[0].strip(): line for line in out.splitlines()[1:]}
    assert verdicts.keys() == {"walker-stand", "reacher-easy", "cheetah-run", "all tasks"}
    assert all("undecided" in line for line in verdicts.values())
    assert all("; in this one world model)" in line for line in verdicts.values())
    assert "failed replication?" in err
    assert "One world model of mlp for all its policies" in err
    rows = list(csv.DictReader((tmp_path / "report" / "effects.csv").open(encoding="utf-8")))
    assert {row["verdict"] for row in rows} == {"undecided"}
    assert {row["scope"] for row in rows} == {"in this one world model"}
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert page.index('id="attention"') < page.index("failed replication?")


def test_phase_3_is_not_ranked_against_phase_7(imported, tmp_path, capsys):
    assert main(["report", *imported, "--out", "report"]) == 2
    said = capsys.readouterr().err
    assert "protocol: frozen | finetuned" in said
    assert "--separate" in said
    assert "--allow-mixing" not in said  # each has the same cells, tasks and seeds
    assert not (tmp_path / "report").exists()
    assert main(["report", *imported, "--out", "report", "--separate"]) == 0
    out = capsys.readouterr().out
    assert [line.split(" · ")[0] for line in out.splitlines() if " · " in line] == [
        "frozen", "finetuned",
    ]  # fmt: skip


def test_what_is_mixed_is_named_in_the_title(imported, tmp_path, capsys):
    mixing = ["--allow-mixing", "protocol", "--allow-mixing", "conventions"]
    chosen = [phase(imported, 3)[0], phase(imported, 7)[1]]
    assert main(["report", *chosen, "--out", "report", *mixing]) == 0
    assert "MIXED: protocol, conventions" in capsys.readouterr().out
    assert "MIXED: protocol, conventions" in (tmp_path / "report/report.html").read_text("utf-8")
    assert main(["report", *imported, "--out", "other", *mixing]) == 2
    assert "which one counts?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "nowhere"),
        (["experiments/phase8.toml"], "there is no run of phase8"),
        (["experiments/phase9.toml"], "phase9.toml"),
        (["runs"], "runs"),
    ],
)
def test_mistakes(words, said, imported, repository, tmp_path, capsys):
    (tmp_path / "experiments").symlink_to(repository / "experiments")
    assert main(["report", *words, "--out", "report"]) == 2
    err = capsys.readouterr().err
    assert "error: " in err
    assert said in err
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize("name", ["/etc", "*", "[a"])
def test_a_name_in_a_file_is_no_pattern(name, imported, tmp_path, capsys):
    (tmp_path / "x.toml").write_text(f'name = "{name}"')
    assert main(["report", "x.toml", "--out", "report", "--runs", "runs"]) == 2
    assert f"there is no run of {name}" in capsys.readouterr().err


def test_an_older_name_is_an_alias(repository, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(repository)
    words = ["config", "show", "experiments/pwm_48M_mt_fullflow.toml", "--scale", "laptop"]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert 'name = "phase8_flowwm_flowpolicy"' in out
    assert "is an older name of experiments/phase8_flowwm_flowpolicy.toml" in err
    new, other = (
        f"experiments/phase8_{cell}.toml" for cell in ("flowwm_flowpolicy", "mlpwm_mlppolicy")
    )
    compared = []
    for file in ("experiments/pwm_48M_mt_fullflow.toml", new):
        assert main(["compare", file, other, "--scale", "laptop"]) == 0
        compared.append(capsys.readouterr().out)
    assert compared[0] == compared[1]
    assert main(["config", "show", "experiments/pwm_48M.toml"]) == 2
    assert "pwm_48M.toml" in capsys.readouterr().err


def test_an_older_name_in_a_report(repository, imported, tmp_path, capsys):
    """It stands for the run that the file's new name left."""
    (tmp_path / "experiments").symlink_to(repository / "experiments")
    shutil.move(imported[0], tmp_path / "runs" / "phase8_flowwm_flowpolicy__x__1__00")
    file = "experiments/pwm_48M_mt_fullflow.toml"
    assert main(["report", file, "--out", "report"]) == 0
    assert "pwm_48M_mt_fullflow is an older name of experiments/phase8_" in capsys.readouterr().err
    text = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "<title>phase8_flowwm_flowpolicy: " in text
    # A folder is what its name says, whatever files stand beside it.
    (tmp_path / "mine.toml").write_text('aliases = ["nowhere"]')
    assert main(["report", "nowhere", "--out", "other"]) == 2
    assert "no such path, and no experiment of this name: 'nowhere'" in capsys.readouterr().err


def test_where_it_goes_is_looked_at_first(imported, tmp_path, capsys):
    (tmp_path / "report").write_text("mine")
    assert main(["report", *phase(imported, 3), "--out", "report"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert "it is a file" in err
    assert (tmp_path / "report").read_text() == "mine"
