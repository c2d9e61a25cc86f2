"""How the numbers of a comparison are made: the sentences that every report repeats."""

from __future__ import annotations

MEASURED = {
    "main effect": (0.937, 0.955),
    "interaction": (0.920, 0.943),
    "cell's mean": (0.897, 0.951),
    "cell's IQM": (0.843, 0.945),
    "one task: cell's mean": (0.870, 0.959),
    "one task: main effect": (0.931, 0.976),
    "one task: false verdict, 2x2": (0.024, 0.069),
    "one task: false verdict, two cells": (0.041, 0.118),
    "one task: false verdict, 2x2, paired": (0.041, 0.269),
}
"""Lowest and highest share over the settings of ``benchmarks/results/coverage.json``."""


def _percent(name: str) -> str:
    low, high = MEASURED[name]
    return f"{100 * low:.0f} to {100 * high:.0f} %"


METHOD = (
    "The unit is the seed: a seed's return on a task is the mean over its episodes. Numbers of one "
    "task are returns (0 to 1000); over all tasks, returns are divided by 1000, every task counts "
    "the same, and only tasks that every cell has count. The interquartile mean leaves out the "
    "lowest and the highest quarter of all runs.",
    "Intervals are of 95 %: stratified percentile bootstrap, 9999 resamples of seeds within each "
    "task and cell, with the level corrected for few seeds (Agarwal et al. 2021, arXiv "
    "2108.13264; Hesterberg, arXiv 1411.5279). Where so few seeds cannot be resampled to that "
    "level (a cell on one task with five or fewer; an effect on one task, where a cell has two) it "
    "is Student's t interval, with the bootstrap's standard error. One seed has none.",
    "An effect is a factor's difference averaged over the levels of the other; the interaction is "
    "the difference of two such differences. Cells are paired by task and seed where their seeds "
    "are the same and enough to resample pairs (three seeds on three tasks are, three on one task "
    "are not); else each cell's seeds are resampled by themselves.",
    "A verdict follows from the interval of the difference alone: without 0 in it one level is "
    "ahead, else there is no decision. It is not corrected for the number of tasks: among thirty, "
    "one or two false ones are to be expected.",
    "The probability of improvement is the share of pairs of runs on the same task in which one is "
    "better (ties half): of the same seed where cells are paired, else all pairs. It has no "
    "interval where so few seeds cannot be resampled to that level.",
    "Measured on 9000 factorials made up with known effects (benchmarks/coverage.py: 3 tasks × 2 "
    "seeds, 3 × 3, 4 × 5 and 10 × 3; normal and skewed noise, and noise that cells share by seed), "
    "the intervals hold the truth of a main effect over all tasks in "
    f"{_percent('main effect')}, of an interaction in {_percent('interaction')}, of a cell's mean "
    f"""in {_percent("cell's mean")} and of its interquartile mean in {_percent("cell's IQM")} """
    "of all cases, the lowest with skewed noise; on one task, of a main effect in "
    f"""{_percent("one task: main effect")} and of a cell's mean in """
    f"""{_percent("one task: cell's mean")}.""",
    "Where there is no difference, a verdict on one task is false in "
    f"{_percent('one task: false verdict, 2x2')} of 2×2 factorials, but in "
    f"{_percent('one task: false verdict, two cells')} of comparisons between two cells alone: "
    "with three seeds each, take it as a hint. With two seeds false ones are no more frequent, but "
    "only differences that are large beside the noise are found.",
    "Published returns are of PWM and TD-MPC2 (one seed). PWM's own world model was trained for "
    "about two weeks on an RTX 3090 (millions of steps), those of the runs here for the iterations "
    "that their budget states.",
)
