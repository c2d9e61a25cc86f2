import io
import re

import attrs
import pytest

from fmbpo.reporting.closing_table import is_above, mean_over_tasks, print_run, print_study
from fmbpo.reporting.interval import above, basis, planned_sample, sample, t_interval
from fmbpo.runs.findings import Finding
from fmbpo.runs.summary import (
    Gap,
    Part,
    RealityCheck,
    SeedResult,
    Summary,
    TaskResult,
    WorldModelPart,
)

STUDY = {  # three seeds of the study's phase 3: MLP, then Flow
    "reacher-easy": ([981.20, 983.50, 982.20], [983.40, 981.90, 976.70]),
    "walker-stand": ([972.32, 977.35, 923.48], [744.92, 854.53, 919.90]),
    "cheetah-run": ([108.80, 134.97, 93.69], [120.52, 80.97, 94.75]),
}


def run_text(summary):
    stream = io.StringIO()
    print_run(summary, stream, width=100)
    return stream.getvalue()


def task(means, **levels):
    return TaskResult({str(i): SeedResult([m - 1, m + 1]) for i, m in enumerate(means)}, **levels)


def summary(tasks, **changes):
    content = {
        "experiment": "phase3_mlppolicy", "scale": "full", "protocol": "frozen",
        "conventions": "corrected", "world_model": WorldModelPart("mlp", "1", {"a": 1}, 1),
        "policy": Part("mlp", "1", {"a": 1}, 1),
        "tasks": tasks, "wm_validation": {}, "flops": 1.0, "seconds": 1.0, "versions": {},
        "health": [], "planning": None,
    }  # fmt: skip
    return Summary(**{**content, **changes})


def test_interval_against_a_textbook():
    found = t_interval([1.0, 2.0, 3.0])
    assert found.mean == 2
    assert found.half == pytest.approx(4.302653 / 3**0.5, rel=1e-6)
    assert str(t_interval([5.0])) == "5.0"
    assert t_interval([4.0, 4.0]).half == 0
    with pytest.raises(ValueError, match="at least one"):
        t_interval([])


def test_above_equals_scipys_welch():
    stats = pytest.importorskip("scipy.stats")
    for means in STUDY.values():
        for a, b in (means, means[::-1]):
            result = stats.ttest_ind(a, b, equal_var=False)
            assert above(a, b) == (result.pvalue < 0.05 and result.statistic > 0)
    a, b = [10.0, 11, 12, 10, 11], [7.0, 9, 8, 5]
    assert stats.ttest_ind(a, b, equal_var=False).pvalue < 0.05
    assert above(a, b)
    assert not above(b, a)


def test_above_at_the_edges():
    assert not above([5.0], [1.0, 1.0])
    assert not above([5.0, 5.0], [1.0])
    assert above([5.0, 5.0], [1.0, 1.0])
    assert not above([5.0, 5.0], [5.0, 5.0])
    assert above([1000.0, 1000.0, 1000.0], [3.0, 5.0, 4.0])


def test_the_seed_is_the_unit():
    many = task([10.0, 20.0, 30.0])
    assert sample(many) == [10, 20, 30]
    assert basis(many) == "3 seeds"
    one = TaskResult({"42": SeedResult([1.0, 2.0])})
    assert sample(one) == [1, 2]
    assert basis(one) == "2 episodes of 1 seed"


def test_the_replicate_is_the_unit():
    def of(means):
        return TaskResult({s: SeedResult([m - 1, m + 1], [m, m]) for s, m in means.items()})

    several = of({"42": 10.0, "42.1": 20.0, "7": 40.0, "7.1": 60.0})
    assert sample(several) == planned_sample(several) == [15, 50]
    assert basis(several) == "2 seeds"
    assert mean_over_tasks([several]).half == pytest.approx(12.706205 * 17.5, rel=1e-6)
    one = of({"42": 10.0, "42.1": 20.0, "42.2": 30.0})
    assert sample(one) == planned_sample(one) == [10, 20, 30]
    assert basis(one) == "3 policies of 1 seed"
    assert mean_over_tasks([one]).half == pytest.approx(4.302653 * 10 / 3**0.5, rel=1e-6)


@pytest.mark.parametrize(
    ("seeds", "checkpoint", "said"),
    [
        (("42", "42.1"), "a/checkpoints/best", True),
        (("42", "7"), "imported", True),  # all begin with one checkpoint
        (("42", "7"), None, False),
        (("42",), "a/checkpoints/best", False),
    ],
)
def test_one_world_model_is_said(seeds, checkpoint, said):
    tasks = {"walker-run": TaskResult({seed: SeedResult([1.0, 2.0]) for seed in seeds})}
    model = WorldModelPart("mlp", "1", {"a": 1}, 1, checkpoint)
    text = " ".join(run_text(summary(tasks, world_model=model)).split())
    assert ("trained in one world model" in text) == said


def test_mean_over_tasks():
    found = mean_over_tasks([task([10.0, 20.0]), task([30.0, 60.0])])
    assert found.mean == 30
    assert found.half == pytest.approx(12.706205 * 10, rel=1e-6)
    other = TaskResult({"x": SeedResult([0.0])})
    assert mean_over_tasks([task([10.0, 20.0]), other]).half is None


def test_table():
    levels = {"random_return_mean": 50.0, "random_returns": [49.0, 50.0, 51.0]}
    tasks = {
        name: task(
            means[0],
            **levels,
            untrained_return_mean=60.0,
            cloned_returns=[89.0, 91.0],
            reference_return=900.0 if name != "cheetah-run" else None,
            pwm_return=990.0,
        )
        for name, means in STUDY.items()
    }
    health = [
        Finding("worse_than_copy", "worse than the copy baseline"),
        *(Finding("reward_constant", "constant", f"by {i}", f"a/{i}", 30 - i) for i in range(8)),
    ]
    text = run_text(summary(tasks, health=health))
    lines = [line.rstrip() for line in text.splitlines()]
    assert lines[0].startswith("phase3_mlppolicy · scale full · frozen · conventions corrected ·")
    rows = [" ".join(line.split()) for line in lines]
    assert "walker-stand 957.7 ± 73.9 50.0 60.0 90.0 900.0 990.0 106 %" in rows
    assert "cheetah-run 112.5 ± 51.9 50.0 60.0 90.0 – 990.0 –" in rows
    assert "mean of 3 684.2 ± 40.5 50.0 60.0 90.0 – 990.0 –" in rows
    assert "±: 95 % t interval over 3 seeds." in lines
    assert (
        "Above random beyond the 95 % interval: reacher-easy, walker-stand, cheetah-run." in lines
    )
    assert not any("untrained beyond" in line for line in lines)
    cloned = "Above behaviour cloning beyond the 95 % interval: reacher-easy, walker-stand; not: "
    assert f"{cloned}cheetah-run." in " ".join(lines)
    said = " ".join(lines[-4:])
    assert said.startswith("WARNING: worse than the copy baseline WARNING: constant: a/0 (by 0, ")
    assert "a/1 (by 1, since iteration 29)" in said
    assert said.endswith("a/5 (by 5, since iteration 25); and 2 more")
    assert max(map(len, lines)) <= 100


def test_drawn_noise_stands_beside_the_modes_return():
    def noisy(mean):
        return SeedResult([mean], stochastic_returns=[mean - 4], action_noise=mean / 100)

    cloned = {"cloned_returns": [2.0, 3.0]}
    drawn = {"a": TaskResult({"1": noisy(10.0)}, **cloned), "b": TaskResult({"1": noisy(20.0)})}
    said = (
        "With the policies' noise drawn, the return is 11.0 instead of 15.0, mean of 2 tasks; the "
        "standard deviation of their actions is 0.15."
    )
    assert said in " ".join(run_text(summary(drawn)).split())
    assert "noise drawn" not in run_text(summary({**drawn, "b": task([1.0])}))
    stream = io.StringIO()
    print_study({"x": summary(drawn), "y": summary({"a": task([1.0])})}, (), stream, width=100)
    rows = [" ".join(row.split()) for row in stream.getvalue().splitlines()]
    assert "with noise, a 6.0 –" in rows
    assert "to compare with random untrained cloned planner PWM" in rows
    assert any(re.fullmatch(r"a \S+ \S+ 2\.5 \S+ \S+", row) for row in rows), rows
    assert "noise of the actions 0.150 –" in rows


def test_imagined_minus_real_is_said():
    def checked(gap, **models):
        one = RealityCheck(Gap(10.0 + gap, 10.0, 20.0, 2), Gap(2.5, 2.0, 1.0, 20), **models)
        return SeedResult([1.0], reality=one)

    def said(*seeds):
        tasks = {"a": TaskResult({str(i): seed for i, seed in enumerate(seeds)})}
        return " ".join(run_text(summary(tasks)).split())

    text = "Imagined minus real return, discounted: +4.0 over the episode, +0.50 over the horizon"
    assert f"{text}; no disagreement, as there is one world model." in said(checked(3), checked(5))
    models = [{"disagreement": 0.1, "rank_correlation": x} for x in (0.25, 0.75)]
    both = said(*(checked(4, **one) for one in models))
    assert f"{text}; rank correlation of its size with the models' disagreement: 0.50." in both
    assert "Imagined" not in said(SeedResult([1.0]))


def test_not_beyond_is_said():
    noisy = task([10.0, 90.0], random_return_mean=20.0, random_returns=[19.0, 21.0])
    assert is_above(noisy, "random") is False
    assert is_above(noisy, "untrained") is None
    text = run_text(summary({"a": noisy}))
    assert "Above random beyond the 95 % interval: none; not: a." in text
    assert "mean of" not in text


def test_one_seed_says_what_its_interval_is():
    text = run_text(summary({"a": TaskResult({"1": SeedResult([1.0, 3.0])})}))
    assert "2.0 ± 12.7" in text
    assert "over 2 episodes of 1 seed." in text
    assert "of evaluation, not of training" in text


def test_pretraining_has_no_table():
    stream = io.StringIO()
    print_run(
        summary({}, policy=None, protocol=None, health=[Finding("rank", "rank 1")]),
        stream,
        width=100,
    )
    head, warning = stream.getvalue().splitlines()
    assert "pretraining" in head
    assert warning == "WARNING: rank 1"


def test_markup_in_names_is_plain_text():
    text = run_text(summary({"a[b]": task([1.0, 2.0])}, experiment="x[red]"))
    assert "a[b]" in text
    assert "x[red]" in text


def test_cost_is_stated_with_network_evaluations_and_returns_are_not_divided_by_it():
    """A random policy costs nothing: its return per operation would be infinite."""
    one = summary(
        {"a": task([1.0, 2.0])}, flops={"pretraining": 2e15, "policy_learning": 3e15}, seconds=60.0,
        world_model=WorldModelPart("flow", "1", {"a": 1}, 7),
    )  # fmt: skip
    text = " ".join(run_text(one).split())
    assert "Training took 5 PFLOP and 60 s." in text
    assert "Network evaluations per step: world model 7, policy 1." in text
    alone = attrs.evolve(one, policy=None, tasks={}, protocol=None)
    stream = io.StringIO()
    print_study({"both": one, "world model": alone}, [], stream, width=120)
    rows = [" ".join(row.split()) for row in stream.getvalue().splitlines()]
    assert "network evaluations per step, world model 7 7" in rows
    assert "network evaluations per step, policy 1 –" in rows
    assert not any("return per" in row for row in (text, *rows))


def test_planning_stands_beside_the_policys_own_return():
    planning = {"samples": 64, "horizon": 3, "iterations": 2, "episodes": 2}
    planned = TaskResult({str(i): SeedResult([10.0 + i], [20.0 + i, 22.0 + i]) for i in range(3)})
    tasks = {"a": planned, "b": task([1.0, 2.0, 3.0])}
    rows = [" ".join(row.split()) for row in run_text(summary(tasks)).splitlines()]
    assert not any("MPPI" in row for row in rows)
    text = run_text(summary(tasks, planning=planning))
    rows = [" ".join(row.split()) for row in text.splitlines()]
    assert "a 11.0 ± 2.5 22.0 ± 2.5 – – –" in rows
    assert "b 2.0 ± 2.5 – – – –" in rows
    assert (
        "MPPI: 64 sequences of 3 steps, 2 refinements, at every step; 2 episodes per seed." in rows
    )
