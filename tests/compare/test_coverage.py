"""What the intervals are worth: measured again in small, and as reports say it."""

import importlib.util
import json

import numpy as np
import pytest

from fmbpo.compare import statistics
from fmbpo.compare.comparison import Cell
from fmbpo.compare.effects import contrasts, effect
from fmbpo.compare.statistics import RESAMPLES

CELLS = [Cell("a", "p"), Cell("a", "q"), Cell("b", "p"), Cell("b", "q")]
SAID = {
    "main effect": "the true main effect over all tasks in {} of all cases",
    "interaction": "the interaction in {},",
    "cell's mean": "cases, the interaction in 92 to 94 %, a cell's mean in {} and",
    "cell's IQM": "its interquartile mean in {};",
    "one task: cell's mean": "the main effect in 93 to 98 % and a cell's mean in {}.",
    "one task: main effect": "On one task they contain the main effect in {} and",
    "one task: false verdict, 2x2": "a verdict on one task is false in {} of 2×2 factorials",
    "one task: false verdict, two cells": "in {} of comparisons between only two cells",
    "one task: false verdict, 2x2, paired": "",  # the rule for pairs avoids these
}
"""The report's words about each measurement: its lowest and highest share over all settings."""


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


def check_coverage(coverage, number):
    x = coverage.factorials(np.random.default_rng(3), number, 3, 3, "normal")
    interval = coverage.contrast(x, coverage.MAIN_WEIGHTS)
    assert 0.92 <= coverage.covers(interval, coverage.MAIN) <= 0.98
    # The measurement can fail: another value is seldom covered.
    assert coverage.covers(interval, 3 * coverage.MAIN) < 0.5


def test_three_hundred_factorials(coverage):
    check_coverage(coverage, 300)


@pytest.mark.endurance
def test_a_thousand_factorials(coverage):
    check_coverage(coverage, 1000)


@pytest.mark.endurance
def test_every_recorded_coverage_is_found_again(coverage, recorded):
    """With the same random numbers; another version of numpy may round differently."""
    for row in recorded["settings"]:
        found = coverage.measure(recorded["factorials"], row["tasks"], row["seeds"], row["noise"])
        assert found == pytest.approx({name: row[name] for name in found}, abs=0.005), row


@pytest.mark.parametrize("noise", ["normal", "skewed", "shared"])
def test_made_up_factorials_are_what_they_are_called(coverage, noise):
    x = coverage.factorials(np.random.default_rng(0), 50_000, 2, 3, noise)
    mean = x.mean((1, 2, 3))
    assert mean @ coverage.MAIN_WEIGHTS == pytest.approx(coverage.MAIN, abs=0.6)
    assert mean @ coverage.INTERACTION_WEIGHTS == pytest.approx(coverage.INTERACTION, abs=1.2)
    assert x[0, 0].std() == pytest.approx(coverage.SPREAD, rel=0.02)
    together = np.corrcoef(x[0, 0].ravel(), x[1, 0].ravel())[0, 1]
    assert together == pytest.approx(0.5 if noise == "shared" else 0, abs=0.02)


@pytest.mark.parametrize(("tasks", "seeds"), [(3, 3), (1, 3), (1, 6), (3, 2), (1, 2)])
def test_what_is_measured_is_what_a_comparison_computes(coverage, tasks, seeds):
    x = coverage.factorials(np.random.default_rng(5), 2, tasks, seeds, "skewed")
    found = {one.kind: one for one in contrasts(CELLS)}
    low, high = coverage.contrast(x, coverage.MAIN_WEIGHTS)
    for i in range(2):
        values = {
            cell: {f"t{t}": {str(s): x[c, t, i, s] for s in range(seeds)} for t in range(tasks)}
            for c, cell in enumerate(CELLS)
        }
        names = [f"t{t}" for t in range(tasks)]
        one = effect(found["policy"], values, names, task="").difference
        # Seeds stand in another order: the same interval but for the resampling's chance.
        width = one.high - one.low
        # The benchmark's effect is q - p, the comparison's p - q.
        assert low[i] == pytest.approx(-one.high, abs=0.08 * width)
        assert high[i] == pytest.approx(-one.low, abs=0.08 * width)


@pytest.mark.parametrize("weights", ["MAIN_WEIGHTS", "TWO_WEIGHTS"])
def test_two_seeds_make_no_false_verdicts(coverage, weights):
    """On one task, where the range of the data would be wrong in a case of six."""
    x = coverage.factorials(np.random.default_rng(4), 2000, 1, 2, "normal")
    w = getattr(coverage, weights)
    truth = coverage.MAIN if weights == "MAIN_WEIGHTS" else coverage.MAIN - coverage.INTERACTION / 2
    assert 0.93 <= coverage.covers(coverage.contrast(x, w), truth) <= 0.97
    blocks = [x[cell : cell + 1, 0, :500] for cell in np.flatnonzero(w)]
    statistic = statistics.contrast([w[i : i + 1] for i in np.flatnonzero(w)])
    assert coverage.covers(statistics.bootstrap_interval(blocks, statistic), truth) < 0.9


def test_reports_say_what_was_measured(recorded, repository):
    page = repository / "fmbpo" / "reporting" / "pages" / "templates" / "report.html.jinja"
    text = " ".join(page.read_text(encoding="utf-8").split())
    for name, words in SAID.items():
        values = [row[name] for row in recorded["settings"]]
        ends = f"{100 * min(values):.0f} to {100 * max(values):.0f} %"
        assert words.format(ends) in text, name
    assert set(recorded["settings"][0]) == {"tasks", "seeds", "noise", *SAID}
    assert f"{recorded['factorials'] * len(recorded['settings'])} factorials" in text
    assert recorded["resamples"] == RESAMPLES
    assert f"{RESAMPLES} resamples" in text
    assert "about two weeks on an RTX 3090" in text
    sizes = {(row["tasks"], row["seeds"]) for row in recorded["settings"]}
    assert sizes == {(3, 2), (3, 3), (4, 5), (10, 3)}


def test_the_page_has_every_number(repository, recorded):
    page = (repository / "docs" / "statistics.md").read_text(encoding="utf-8")
    for name in SAID:
        numbers = " | ".join(f"{row[name]:.3f}" for row in recorded["settings"])
        assert f"| {name} | {numbers} |" in page


def test_the_benchmark_runs(coverage, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(coverage, "SETTINGS", [((3, 3), "normal")])
    assert coverage.main(["--number", "3", "--json", str(tmp_path / "c.json")]) == 0
    assert "interaction" in capsys.readouterr().out
    assert json.loads((tmp_path / "c.json").read_text())["factorials"] == 3
