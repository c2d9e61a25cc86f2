"""Importing results from a CSV file: what it makes, and what it refuses."""

import json

import pytest

from fmbpo.compare.comparison import Basis, Cell, Score
from fmbpo.compare.imported import import_results, read_imported
from fmbpo.compare.reading import records_of
from fmbpo.errors import UserError
from fmbpo.runs.status import is_run, scan

HEADER = "phase,protocol,world_model,policy,task,seed,return"
ROW = "3,frozen,mlp,mlp,walker-stand,42,972.5"


@pytest.fixture
def load(tmp_path):
    def load(*lines, header=HEADER, into="runs"):
        file = tmp_path / "results.csv"
        text = lines[0] if isinstance(lines[0], bytes) else "\n".join([header, *lines]).encode()
        file.write_bytes(text)
        return import_results(file, tmp_path / into)

    return load


def test_known_results(repository, tmp_path):
    file = repository / "tests" / "golden" / "known_results.csv"
    folders = import_results(file, tmp_path)
    records = records_of(folders)
    assert [(r.phase, r.basis.protocol, str(r.cell)) for r in records] == [
        ("3", "frozen", "mlp × mlp"), ("3", "frozen", "mlp × flow"),
        ("7", "finetuned", "mlp × mlp"), ("7", "finetuned", "mlp × flow"),
    ]  # fmt: skip
    model = "mt30_48M_4900000.pt"
    assert records[0].scores["walker-stand"]["456"] == Score(923.48, world_model=model)
    assert {score.world_model for r in records for *_, score in r.policies} == {model}
    assert sum(len(seeds) for r in records for seeds in r.scores.values()) == 36
    before = {folder: (folder / "imported.json").stat().st_mtime_ns for folder in folders}
    assert import_results(file, tmp_path) == folders
    assert before == {f: (f / "imported.json").stat().st_mtime_ns for f in folders}


def test_every_column(load):
    header = HEADER + (",experiment,conventions,scale,data,evaluation,budget,checkpoint,episodes")
    more = ',old,pwm,paper,MT30,"10 episodes, seed 0",10 x 2 x 3,a.pt,10'
    (folder,) = load(ROW + more, header=header)
    record = read_imported(folder)
    assert record.basis == Basis(
        "frozen", "pwm", "paper", "MT30", "10 episodes, seed 0", "10 x 2 x 3"
    )
    assert (record.experiment, record.checkpoint) == ("old", "a.pt")
    assert record.scores == {"walker-stand": {"42": Score(972.5, (), 10, "a.pt")}}
    assert record.cell == Cell("mlp", "mlp")


def test_what_is_left_open(load):
    (folder,) = load("3,frozen,mlp,mlp,dm_control/walker_stand,042,1e2", "")
    record = read_imported(folder)
    assert set(record.scores["walker-stand"]) == {"42"}
    assert record.basis.conventions == record.basis.budget == "not stated"
    # An unknown world model is one: nothing says that there were several.
    assert record.scores["walker-stand"]["42"].world_model == "that of mlp"


def test_policies_from_scratch_have_their_own_world_models(load):
    (folder,) = load(ROW.replace("frozen", "scratch") + ",a.pt", header=f"{HEADER},checkpoint")
    assert read_imported(folder).scores["walker-stand"]["42"].world_model == ""


@pytest.mark.parametrize("text", ["0", "0.50", ".5", "1.", "+1e3", "9.725E+02", "1000.0000001"])
def test_returns_from_0_to_1000(load, text):
    (folder,) = load(ROW.replace("972.5", text))
    assert read_imported(folder).scores["walker-stand"]["42"].mean == float(text)


@pytest.mark.parametrize("experiment", ["", "old"])
def test_imported_results_are_no_run(load, tmp_path, experiment):
    (folder,) = load(f"{ROW},{experiment}", header=f"{HEADER},experiment")
    assert folder.name.count("__") == (4 if experiment else 3)
    assert not is_run(folder)
    assert scan(tmp_path / "runs") == []


def test_cells_that_read_alike_have_folders_of_their_own(load):
    others = ("mlp,m/lp", "mlp,m lp", "mlp," + 300 * "m", "mlp," + 301 * "m", "é,é")
    folders = load(ROW, *(ROW.replace("mlp,mlp", cell) for cell in others))
    assert len({folder.name for folder in folders}) == 6
    assert all("/" not in folder.name and " " not in folder.name for folder in folders)


def test_another_import_is_not_overwritten(load, tmp_path):
    (folder,) = load(ROW)
    before = (folder / "imported.json").read_bytes()
    with pytest.raises(UserError, match="another import"):
        load(ROW.replace("frozen", "scratch"), ROW.replace("972.5", "1"))
    assert (folder / "imported.json").read_bytes() == before
    # Nothing half-written: the other cell was not imported either.
    assert list((tmp_path / "runs").iterdir()) == [folder]


@pytest.mark.parametrize(
    ("lines", "header", "message"),
    [
        ([b""], "", r"results\.csv: is empty"),
        ([HEADER.encode()], "", "has no results"),
        ([b"\xff"], "", r"results\.csv:1: not UTF-8"),
        ([f"{HEADER}\n{ROW}\n\xe9".encode("latin-1")], "", r"results\.csv:3: not UTF-8"),
        ([ROW], HEADER.replace("seed", "sede"), "unknown column 'sede'\n  -> did you mean 'seed'"),
        ([ROW], HEADER.replace(",seed", ""), r"results\.csv:1: missing column seed"),
        ([ROW + ",3"], HEADER + ",seed", "column 'seed' occurs twice"),
        ([ROW, ROW + ",3"], HEADER, r"results\.csv:3: 8 values for 7 columns"),
        ([ROW.replace("972.5", "many")], HEADER, r"results\.csv:2: return 'many' is not a decimal"),
        ([ROW.replace("972.5", "nan")], HEADER, "return 'nan' is not a decimal"),
        *(
            ([ROW.replace("972.5", text)], HEADER, "is not a decimal number\n  -> write it as")
            for text in ("inf", "1_0", "1e308", "0x10", "٣", ".", "9" * 5000 + "x")
        ),
        *(
            ([ROW.replace("972.5", text)], HEADER, "is outside 0..1000\n  -> give the mean")
            for text in ("-0.1", "1000.1", "1e4", "9" * 5000)
        ),
        ([ROW.replace("42", "1" * 5000)], HEADER, r"seed '1{37}\.\.\.' is not a whole number"),
        ([ROW.replace("42", "٣")], HEADER, "seed '٣' is not a whole number"),
        ([ROW + "," + "1" * 5000], HEADER + ",episodes", r"csv:2: episodes '1{37}\.\.\.'"),
        ([ROW], HEADER.replace(",", ";"), "separate columns by commas"),
        ([ROW], HEADER.replace(",", "\t"), "separate columns by commas"),
        ([ROW.replace("972.5", "")], HEADER, "return is empty"),
        ([ROW.replace("42", "x")], HEADER, "seed 'x' is not a whole number"),
        ([ROW.replace("stand", "stnad")], HEADER, "(?s)csv:2: .*did you mean 'walker-stand'"),
        ([ROW, ROW.replace("walker-stand", "walker_stand")], HEADER, "csv:3: a second return of"),
        ([ROW + ",0"], HEADER + ",episodes", "episodes '0'"),
        ([ROW + ",a", ROW.replace("42", "1") + ",b"], HEADER + ",budget", "csv:3: budget is 'b'"),
        ([ROW + ',"a'], HEADER + ",budget", "not CSV"),
    ],
)
def test_wrong_files_are_explained(load, tmp_path, lines, header, message):
    with pytest.raises(UserError, match=message):
        load(*lines, header=header)
    assert not (tmp_path / "runs").exists()


def test_a_root_that_cannot_be(load):
    with pytest.raises(UserError, match=r"too long \(File name too long\)"):
        load(ROW, into="x" * 300)


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"absent\.csv: cannot be read"):
        import_results(tmp_path / "absent.csv", tmp_path / "runs")


@pytest.mark.parametrize("change", [{"tasks": 3}, {"policy": None}, {"tasks": {"a": {"1": {}}}}])
def test_damaged_folder(load, change):
    (folder,) = load(ROW)
    file = folder / "imported.json"
    content = {**json.loads(file.read_text()), **change}
    if content["policy"] is None:
        del content["policy"]
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match="import the results again"):
        records_of([folder])
