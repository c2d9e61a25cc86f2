"""Cells of the factorial differ in their declared factors and in nothing else."""

import itertools

import attrs
import pytest

from fmbpo.cli import main
from fmbpo.config import load_experiment
from fmbpo.config.factors import differences
from fmbpo.measure.sizes import size_parity
from fmbpo.tasks.mt30 import SUITE

QUADRANTS = [f"phase8_{w}wm_{p}policy" for w in ("mlp", "flow") for p in ("mlp", "flow")]


@pytest.fixture
def file(repository):
    return lambda name: repository / "experiments" / f"{name}.toml"


@pytest.mark.parametrize("scale", ["paper", "laptop"])
@pytest.mark.parametrize("names", list(itertools.combinations(QUADRANTS, 2)))
def test_two_cells(names, scale, file):
    pair = [load_experiment(file(name), scale=scale, data="embedded") for name in names]
    declared, undeclared = differences(pair)
    assert undeclared == []
    changed = {line.split(".")[0] for line in declared}
    first, second = (name.removeprefix("phase8_").split("_") for name in names)
    tables = ("world_model", "policy")
    assert changed == {t for t, a, b in zip(tables, first, second, strict=True) if a != b}


def test_the_whole_factorial(file, capsys):
    assert main(["compare", *(str(file(name)) for name in QUADRANTS)]) == 0
    out = capsys.readouterr().out
    assert 'declared    world_model.plugin: "mlp" | "mlp" | "flow" | "flow"' in out
    assert "differ in nothing else" in out
    # The flow's dynamics have one input column more: far below 2 %.
    assert "parameters  world model, dynamics: 6,102,272 | 6,102,272 | 6,104,064 | 6,104,064" in out
    assert "parameters  world model, reward: 4,904,805 | 4,904,805 | 4,904,805 | 4,904,805" in out
    assert "parameters  policy, all: 409,912 | " in out
    assert "WARNING" not in out


def test_world_models_of_other_sizes_are_named(file, tmp_path, capsys):
    other = tmp_path / "other.toml"
    other.write_text(f'extends = ["{file(QUADRANTS[2])}"]\n[world_model]\nsource = "noise"\n'
                     "endpoint_coef = 0.0\n")  # fmt: skip
    assert main(["compare", str(file(QUADRANTS[0])), str(other)]) == 0
    out = capsys.readouterr().out
    assert "WARNING     world models differ by 7.3 % in size" in out


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "[world_model]\nunits = [64, 64]",
            "UNDECLARED  world_model.units: [1792, 1792] | [64, 64]",
        ),
        ("[policy_learning]\nlam = 0.9", "UNDECLARED  policy_learning.lam: 0.95 | 0.9"),
        ("[conventions]\nbundle = 'pwm'", "UNDECLARED  conventions.critic_targets"),
        ("[grid]\nseeds = [1]", "UNDECLARED  grid.seeds: [42, 123, 456, 789, 1011] | [1]"),
    ],
)
def test_an_undeclared_difference(line, said, file, tmp_path, capsys):
    other = tmp_path / "other.toml"
    other.write_text(f'extends = ["{file(QUADRANTS[1])}"]\n{line}\n')
    assert main(["compare", str(file(QUADRANTS[1])), str(other)]) == 2
    out = capsys.readouterr()
    assert said in out.out
    assert "beyond the declared factors" in out.err
    key = said.split()[1].rstrip(":")
    if "lam" in key or "grid" in key:
        arguments = ["compare", str(file(QUADRANTS[1])), str(other), "--factor", key]
        assert main(arguments) == 0
        assert f"declared    {key}" in capsys.readouterr().out


def test_mistakes(file, capsys):
    assert main(["compare", str(file(QUADRANTS[0]))]) == 2
    assert "name another" in capsys.readouterr().err
    files = [str(file(name)) for name in QUADRANTS[:2]]
    assert main(["compare", *files, "--factor", "polciy"]) == 2
    assert "did you mean 'policy'" in capsys.readouterr().err


def test_a_world_model_is_held_against_the_mlp_model_of_its_widths(file):
    tables = {
        name: load_experiment(file(name), scale="paper", data="embedded").world_model
        for name in (QUADRANTS[0], QUADRANTS[2])
    }
    assert size_parity(tables[QUADRANTS[0]], SUITE) == 0
    assert size_parity(tables[QUADRANTS[2]], SUITE) == pytest.approx(1792 / 18_983_909, rel=1e-3)
    wide = attrs.evolve(tables[QUADRANTS[2]].config, source="noise", endpoint_coef=0.0)
    assert size_parity(attrs.evolve(tables[QUADRANTS[2]], config=wide), SUITE) > 0.07
