"""What verdicts and intervals are worth: measured again in small, and as the pages say it."""

import importlib.util
import json

import attrs
import numpy as np
import pytest

from fmbpo.compare.comparison import Cell, Score
from fmbpo.compare.contrasts import contrasts
from fmbpo.compare.effects import effect
from fmbpo.compare.statistics import RESAMPLES
from fmbpo.compare.strata import strata
from fmbpo.compare.t_test import difference

CELLS = [Cell("a", "p"), Cell("a", "q"), Cell("b", "p"), Cell("b", "q")]
NOMINAL, MOST = 0.05, 0.07
"""The rate of false verdicts that is aimed at, and the highest that is accepted."""


@pytest.fixture(scope="module")
def coverage(repository):
    place = repository / "benchmarks" / "coverage.py"
    spec = importlib.util.spec_from_file_location("coverage_bench", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def recorded(repository):
    return json.loads((repository / "benchmarks" / "results" / "coverage.json").read_text())


def rates(coverage, row):
    """The rates of false verdicts of a row."""
    return {
        name: value
        for name, value in row.items()
        if name not in (*attrs.fields_dict(coverage.Setting), *coverage.COVERAGES)
    }


def check_false_verdicts(coverage, number):
    for of in (
        coverage.Setting("replicated", "normal", 3, 3, 1.0, 0.5),
        coverage.Setting("scratch", "unequal", 3, 3),
    ):
        found = rates(coverage, coverage.measure(number, 2, of))
        room = 3 * np.sqrt(NOMINAL / number)
        assert len(found) == 6
        assert all(value <= NOMINAL + room for value in found.values()), (of, found)
        assert all(value > 0 for value in found.values())


def test_false_verdicts_of_a_thousand_factorials(coverage):
    check_false_verdicts(coverage, 1000)


@pytest.mark.endurance
def test_false_verdicts_of_many_factorials(coverage):
    check_false_verdicts(coverage, 50_000)


def test_the_measurement_can_fail(coverage):
    """As if policies in one world model were independent: every second verdict is false."""
    of = coverage.Setting("replicated", "normal", 30, 3, 1.0, 0.5)
    x = coverage.factorials(np.random.default_rng(3), 500, of)
    weights = coverage.EFFECTS["world model"]
    assert coverage.false_verdicts(x, weights, "replicated")[0] < 0.08
    assert coverage.false_verdicts(x, weights, "scratch")[0] > 0.5


@pytest.mark.endurance
def test_every_recorded_coverage_is_found_again(coverage, recorded):
    """With the same random numbers; another version of numpy may round differently."""
    few = recorded["of interquartile means"]
    for of, row in zip(coverage.settings(), recorded["settings"], strict=True):
        found = coverage.measure(recorded["factorials"], few, of)
        assert found == pytest.approx({name: row[name] for name in found}, abs=0.005), row


@pytest.mark.parametrize("noise", ["normal", "skewed", "unequal", "crossed"])
def test_made_up_factorials_are_what_they_are_called(coverage, noise):
    of = coverage.Setting("replicated", noise, 3, 2, 0.5, 0.1)
    x = coverage.factorials(np.random.default_rng(0), 50_000, of)
    away = (x - x.mean((2, 3), keepdims=True)) / of.spreads[:, None, None]
    np.testing.assert_allclose(x.mean((2, 3))[:, 1], 450, atol=1)
    np.testing.assert_allclose(away.var((2, 3)), 1 + 0.5**2, rtol=0.05)

    def together(one, other):
        return np.mean(away[one] * away[other])

    # The same world model: on one task all of its variance, on two what tasks share.
    assert together((0, 0), (1, 0)) == pytest.approx(0.25, abs=0.03)
    assert together((0, 0), (1, 1)) == pytest.approx(0.025, abs=0.03)
    assert together((0, 0), (2, 0)) == pytest.approx(0, abs=0.03)
    policies = 0.5 if noise == "crossed" else 0
    assert together((0, 0), (0, 1)) == pytest.approx(0.025 + policies, abs=0.03)


@pytest.mark.parametrize("design", ["replicated", "scratch"])
@pytest.mark.parametrize(("tasks", "replicates"), [(3, 3), (1, 3), (3, 2)])
def test_what_is_measured_is_what_a_comparison_computes(coverage, design, tasks, replicates):
    of = coverage.Setting(design, "skewed", tasks, replicates, 1.0, 0.5)
    x = coverage.factorials(np.random.default_rng(5), 2, of)
    names = [f"t{t}" for t in range(tasks)]
    for i in range(2):
        scores = {
            cell: {
                name: {
                    str(s): Score(
                        x[c, t, i, s],
                        world_model=f"{cell.world_model}{s}" if design == "replicated" else "",
                    )
                    for s in range(replicates)
                }
                for t, name in enumerate(names)
            }
            for c, cell in enumerate(CELLS)
        }
        for of_cells in contrasts(CELLS):
            one = effect(of_cells, scores, names, task="")
            weights = coverage.EFFECTS[one.kind.replace("_", " ")]
            value, error, freedom = (part[i] for part in coverage.tested(x, weights, design))
            found = (one.difference.value, one.error, one.freedom)
            assert found == pytest.approx((value, error, freedom))
        parts = strata(scores, CELLS[:1], names)
        mean = difference(parts, {CELLS[0]: 1.0}).estimate
        low, high = coverage.cell_mean(x, design)
        assert (mean.low, mean.high) == pytest.approx((low[i], high[i]))


def test_false_verdicts_are_rare_wherever_there_are_three_replicates(coverage, recorded):
    for row in recorded["settings"]:
        worst = max(rates(coverage, row).values())
        assert worst <= MOST, row
    measured = {(row["noise"], row["ratio"], row["shared"]) for row in recorded["settings"]}
    models = {(0.0, 0.0), *((r, s) for r in (0.5, 1.0) for s in (0.0, 0.1, 0.5))}
    assert measured >= {(noise, *of) for noise in ("normal", "unequal", "skewed") for of in models}
    assert [attrs.asdict(of) for of in coverage.settings()] == [
        {name: row[name] for name in attrs.fields_dict(coverage.Setting)}
        for row in recorded["settings"]
    ]


def test_the_page_has_the_tables(repository, coverage, recorded):
    page = (repository / "docs" / "statistics.md").read_text(encoding="utf-8")
    for table in coverage.tables(recorded["settings"]):
        assert table in page


def test_reports_say_what_was_measured(coverage, recorded, repository):
    page = repository / "fmbpo" / "reporting" / "pages" / "templates" / "method.html.jinja"
    text = " ".join(page.read_text(encoding="utf-8").split())
    rows = recorded["settings"]
    worst = max(max(rates(coverage, row).values()) for row in rows)
    mean, iqm = ([row[name] for row in rows] for name in coverage.COVERAGES)
    number = recorded["factorials"]
    assert f"{len(rows)} designs, {number:,} artificial factorials of each" in text
    assert f"at most {100 * worst:.0f} % of the verdicts were false" in text
    assert f"of a cell's mean in {100 * min(mean):.0f} to {100 * max(mean):.0f} %" in text
    assert f"interquartile mean in {100 * min(iqm):.0f} to {100 * max(iqm):.0f} %" in text
    assert recorded["resamples"] == RESAMPLES
    assert f"{RESAMPLES} resamples" in text
    assert "about two weeks on an RTX 3090" in text


def test_the_benchmark_runs(coverage, tmp_path, capsys, monkeypatch):
    of = [
        coverage.Setting("replicated", "normal", 3, 3),
        coverage.Setting("scratch", "normal", 3, 3),
    ]
    monkeypatch.setattr(coverage, "settings", lambda: iter(of))
    assert coverage.main(["--number", "30", "--few", "3", "--json", str(tmp_path / "c.json")]) == 0
    assert "| scratch | normal | 3 | 3 |" in capsys.readouterr().out
    assert json.loads((tmp_path / "c.json").read_text())["factorials"] == 30
