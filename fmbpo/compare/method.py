"""How a comparison computes its numbers: the sentences that every report repeats."""

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
    "The unit is the seed: a seed's return on a task is the mean over its episodes. Numbers for "
    "one task are returns (0 to 1000). For numbers over all tasks, returns are divided by 1000, "
    "every task counts the same, and only tasks that every cell has count. The interquartile mean "
    "leaves out the lowest and the highest quarter of all runs.",
    "Intervals have a level of 95 %. They come from a stratified percentile bootstrap: 9999 "
    "resamples of seeds within each task and cell, with the level corrected for few seeds (Agarwal "
    "et al. 2021, arXiv 2108.13264; Hesterberg, arXiv 1411.5279). If there are too few seeds to "
    "reach that level by resampling (a cell on one task with five or fewer; an effect on one task "
    "if a cell has two), the interval is Student's t interval with the bootstrap's standard error. "
    "A single seed has no interval.",
    "The effect of a factor is its difference averaged over the levels of the other factor; the "
    "interaction is the difference of two such differences. Cells are paired by task and seed if "
    "they have the same seeds and enough of them to resample pairs (three seeds on three tasks are "
    "enough, three on one task are not); otherwise each cell's seeds are resampled by themselves.",
    "A verdict follows from the interval of the difference alone: if the interval excludes 0, one "
    "level is ahead; otherwise there is no decision. Verdicts are not corrected for the number of "
    "tasks: expect one or two false ones among thirty.",
    "The probability of improvement is the share of pairs of runs on the same task in which one is "
    "better (ties count half): pairs with the same seed if cells are paired, otherwise all pairs. "
    "It has no interval if there are too few seeds to reach the level by resampling.",
    "The intervals were tested on 9000 factorials of artificial returns with known effects "
    "(benchmarks/coverage.py: 3 tasks × 2 seeds, 3 × 3, 4 × 5 and 10 × 3; normal and skewed noise, "
    "and noise that cells share by seed). They contain the true main effect over all tasks in "
    f"{_percent('main effect')} of all cases, the interaction in {_percent('interaction')}, a "
    f"""cell's mean in {_percent("cell's mean")} and its interquartile mean in """
    f"""{_percent("cell's IQM")}; the lowest shares belong to skewed noise. On one task they """
    f"""contain the main effect in {_percent("one task: main effect")} and a cell's mean in """
    f"""{_percent("one task: cell's mean")}.""",
    "If there is no difference, a verdict on one task is false in "
    f"{_percent('one task: false verdict, 2x2')} of 2×2 factorials, but in "
    f"{_percent('one task: false verdict, two cells')} of comparisons between only two cells: with "
    "three seeds each, take such a verdict as a hint. With two seeds, false verdicts are no more "
    "frequent, but only differences that are large beside the noise are found.",
    "Published returns are those of PWM and TD-MPC2 (one seed). PWM's own world model was trained "
    "for about two weeks on an RTX 3090 (millions of steps); the runs here trained theirs for the "
    "iterations that their budget states.",
)
