"""A comparison as a study would give it, made up: two by two cells, and an imported section."""

import itertools
import math
import random
import statistics

from fmbpo.compare.comparison import (
    NO_VERDICT,
    OVERALL,
    Basis,
    Cell,
    CellResult,
    Comparison,
    Cost,
    Effect,
    Estimate,
    Failures,
    Profile,
    Progress,
    Record,
    Score,
    Section,
)
from fmbpo.runs.findings import Finding
from fmbpo.runs.summary import Gap, RealityCheck

HOSTILE = "<script>alert(1)</script>"
KINDS = ("mlp", "flow")
LEVELS = {
    "world_model": {"world_model": ("flow", "mlp")},
    "policy": {"policy": ("flow", "mlp")},
    "interaction": {"world_model": ("flow", "mlp"), "policy": ("flow", "mlp")},
}
CELLS = [Cell(w, p) for w in KINDS for p in KINDS]
TASKS = {  # base return, PWM's, TD-MPC2's
    "reacher-easy": (940.0, 991.7, 960.1),
    "walker-stand": (880.0, 995.4, 960.6),
    "cheetah-run": (310.0, 414.5, 203.5),
    f"pendulum|spin $x_1$ {HOSTILE}": (610.0, None, None),
}
PLANNER = {"reacher-easy": 985.5, "cheetah-run": 545.5}
SEEDS = ("42", "123", "456")
FROZEN = Basis(
    "frozen", "corrected", "paper", "mt30 9f31c2ab", "10 episodes, initial states of seed 7",
    "policies 15,000 x 512 x 16; pretraining 200,000 x 1024 x 16",
)  # fmt: skip
REALITY = RealityCheck(Gap(151.2, 100.1, 60.0, 50), Gap(2.75, 2.25, 0.9, 500), 0.123, 0.456)
ORIGINAL = Basis(
    "frozen", "pwm", "paper", "mt30 (published checkpoint)", "unknown",
    "policies 15,000 x 512 x 16; pretraining about two weeks on an RTX 3090",
)  # fmt: skip
PHASE3 = {
    "mlp": {
        "reacher-easy": (981.20, 983.50, 982.20),
        "walker-stand": (972.32, 977.35, 923.48),
        "cheetah-run": (108.80, 134.97, 93.69),
    },
    "flow": {
        "reacher-easy": (983.40, 981.90, 976.70),
        "walker-stand": (744.92, 854.53, 919.90),
        "cheetah-run": (120.52, 80.97, 94.75),
    },
}


def estimate(values, scale=1.0):
    t = {2: 12.706, 3: 4.303}.get(len(values))
    half = t and t * statistics.stdev(values) / math.sqrt(len(values))
    mean = statistics.fmean(values)
    ends = (None, None) if half is None else ((mean - half) / scale, (mean + half) / scale)
    return Estimate(mean / scale, *ends)


def results(cells, tasks, values, published, world_models=0):
    """Of ``values[cell][task]``; then over all tasks."""
    found = []
    for task in tasks:
        for cell in cells:
            one = values[cell][task]
            names = SEEDS[: len(one)]
            found.append(
                CellResult(
                    cell,
                    task,
                    names,
                    one,
                    estimate(one),
                    estimate(one),
                    len(one),
                    world_models,
                    *published(task),
                )
            )
    for cell in cells:
        one = [
            statistics.fmean(x)
            for x in itertools.zip_longest(*values[cell].values(), fillvalue=280.0)
        ]
        levels = [published(task) for task in tasks]
        means = [
            statistics.fmean(x) / 1000 if None not in x else None for x in zip(*levels, strict=True)
        ]
        overall = estimate(one, 1000)
        number = sum(map(len, values[cell].values()))
        scaled = [x / 1000 for x in one]
        found.append(
            CellResult(cell, OVERALL, SEEDS, scaled, overall, overall, number, world_models, *means)
        )
    return found


def effect(name, kind, task, differences, improvement=None, scale=1.0):
    found = estimate(differences, scale)
    better, _, other = name.partition(": ")[2].partition(" - ")
    word = "undecided"
    if kind == "interaction":
        better, other = KINDS[::-1]
    if found.low is not None and (found.low > 0 or found.high < 0):
        word = f"{better if found.low > 0 else other} ahead"
    p = 0.012 if word != "undecided" else 0.4
    return Effect(
        name=name, kind=kind, task=task, levels=LEVELS[kind], difference=found,
        error=1.0, freedom=4.0, p=p, improvement=improvement,
        paired=kind != "world_model", verdict=word,
    )  # fmt: skip


def effects(values, tasks):
    def of(cell, task):
        return values[cell][task]

    found = []
    for name, kind, signs in (
        ("world model: flow - mlp", "world_model", (-0.5, -0.5, 0.5, 0.5)),
        ("policy: flow - mlp", "policy", (-0.5, 0.5, -0.5, 0.5)),
        ("interaction: (flow - mlp) x (flow - mlp)", "interaction", (1, -1, -1, 1)),
    ):
        contrasts = {
            task: [
                sum(sign * x for sign, x in zip(signs, seeds, strict=True))
                for seeds in zip(*(of(cell, task) for cell in CELLS), strict=False)
            ]
            for task in tasks
        }
        over = [x for task in tasks for x in contrasts[task]][:3]
        better = None if kind == "interaction" else Estimate(0.3712, 0.2501, 0.4913)
        found.append(effect(name, kind, OVERALL, over, better, 1000))
        found += [effect(name, kind, task, contrasts[task], better) for task in tasks]
    return found


def failures(values):
    """The last cell fails once."""
    found = []
    for number, cell in enumerate(CELLS):
        policies = sum(len(values[cell][task]) for task in PLANNER)
        by_task = {"cheetah-run": 1} if number == 3 else {}
        rate = Estimate(1 / 5, 0.005051, 0.716418) if by_task else Estimate(0.0, 0.0, 0.459258)
        found.append(Failures(cell, policies, by_task, rate))
    return found


def main_section(video=None):
    draw = random.Random(3)
    shift = dict(zip(CELLS, (0.0, -90.0, 30.0, -25.0), strict=True))
    values = {
        cell: {
            task: [min(999.0, base + shift[cell] + draw.gauss(0, 18)) for _ in SEEDS]
            for task, (base, *_) in TASKS.items()
        }
        for cell in CELLS
    }
    values[CELLS[3]]["cheetah-run"].pop()
    records = [record(number, cell, values[cell], draw, video) for number, cell in enumerate(CELLS)]
    thresholds = [i / 20 for i in range(21)]

    def profile(cell):
        scores = [x / 1000 for task in values[cell].values() for x in task]
        share = [sum(s > t for s in scores) / len(scores) for t in thresholds]
        low, high = [max(0, s - 0.17) for s in share], [min(1, s + 0.17) for s in share]
        return Profile(cell, thresholds, share, low, high)

    return Section(
        title="frozen, paper scale, corrected conventions",
        bases=[FROZEN],
        mixed=[],
        records=records,
        cells=CELLS,
        tasks=list(TASKS),
        world_models={"mlp": 3, "flow": 3},
        references={
            "planner": PLANNER,
            "random": dict.fromkeys(PLANNER, 31.25),
            "cloned": dict.fromkeys(PLANNER, 321.5),
        },
        results=results(CELLS, list(TASKS), values, lambda task: TASKS[task][1:], 3),
        failures=failures(values),
        effects=effects(values, list(TASKS)),
        profiles=[profile(cell) for cell in CELLS],
        costs=[
            Cost(r.cell, r.petaflops, r.seconds / 3600, r.hardware, (7, i + 1))
            for i, r in enumerate(records)
        ],
        progress=[
            Progress(
                r.cell,
                [
                    (41.73 + 3 * x, estimate([9 * x, 9.5 * x + i, 8 * x], 1000))
                    for x in (0, 10, 40, 80)
                ],
            )
            for i, r in enumerate(records)
        ],
        model_errors={
            "mlp": {1: 0.0412, 2: 0.0698, 4: 0.1187, 8: 0.2045, 16: 0.3519},
            "flow": {1: 0.0387, 2: 0.0671, 4: 0.1203, 8: 0.2198, 16: 0.4037},
        },
    )


def record(number, cell, values, draw, video):
    name = f"phase8_{cell.world_model}wm_{cell.policy}policy__frozen__42-123-456__{number:010x}"

    def curve(end):
        points = range(0, 15001, 1500)
        return [(i, end * (1 - math.exp(-i / 3500)) + draw.gauss(0, 12)) for i in points]

    gate = Finding(
        "reward_unexplained", "the decoded reward explains nothing on held-out episodes",
        "R² -0.31", "cheetah-run/456", 4500,
    )  # fmt: skip
    scores = {
        task: {
            seed: Score(
                x,
                (x - 1.25, x + 1.25),
                10,
                stochastic=x - 3,
                action_noise=0.31,
                untrained=51.5,
                reality=REALITY,
            )
            for seed, x in zip(SEEDS, v, strict=False)
        }
        for task, v in values.items()
    }
    curves = {
        task: {seed: curve(score.mean) for seed, score in seeds.items()}
        for task, seeds in scores.items()
    }
    return Record(
        name=f"{name} {HOSTILE}" if number == 1 else name,
        source=f"runs/{name}",
        experiment=f"phase8_{cell.world_model}wm_{cell.policy}policy",
        phase="8",
        cell=cell,
        basis=FROZEN,
        checkpoint=f"{cell.world_model}wm_mt30_best (phase8_pretrain_{cell.world_model}wm)",
        scores=scores,
        curves=curves,
        gradients={
            "esnr": {
                seed: [(i, 0.2 - number / 10 - i / 1e5 + place / 50) for i in (0, 5000, 10000)]
                for place, seed in enumerate(SEEDS)
            },
            "jacobian/latent_to_latent": {"42": [(5000, 1.25 + number)]},
        },
        petaflops=41.73 * (1 + number),
        seconds=11521.0 * (1 + number),
        hardware="NVIDIA H100 80GB HBM3",
        health=[gate] if number == 3 else (),
        videos={("reacher-easy", "42"): str(video)} if video and number < 2 else {},
    )


def imported_section():
    cells = [Cell("mlp", policy) for policy in PHASE3]
    tasks = list(PHASE3["mlp"])
    values = {cell: {t: list(PHASE3[cell.policy][t]) for t in tasks} for cell in cells}
    records = [
        Record(
            name=f"phase3_{cell.policy}policy",
            source="phase3.csv",
            experiment=f"phase3_{cell.policy}policy",
            phase="3",
            cell=cell,
            basis=ORIGINAL if cell.policy == "mlp" else FROZEN,
            checkpoint="mt30_48M_4900000.pt",
            scores={
                t: {
                    s: Score(x, world_model="mt30_48M_4900000.pt")
                    for s, x in zip(SEEDS, values[cell][t], strict=True)
                }
                for t in tasks
            },
        )
        for cell in cells
    ]
    better = Estimate(0.3148, 0.1112, 0.5556)

    def one(task, difference, p, verdict):
        return Effect(
            name="policy: flow - mlp", kind="policy", task=task, levels=LEVELS["policy"],
            difference=Estimate(*difference),
            error=1.0, freedom=2.5, p=p, improvement=better, paired=False, verdict=verdict,
            scope="in this one world model",
        )  # fmt: skip

    single = [
        one("reacher-easy", (-1.6333, -6.71, 3.44), 0.61, "undecided"),
        one("walker-stand", (-117.9333, -204.4, -31.5), 0.024, "mlp ahead"),
        one("cheetah-run", (-13.7400, -54.2, 26.7), 0.61, "undecided"),
    ]
    over = one(OVERALL, (-0.044436, -0.0911, 0.0022), 0.055, "undecided")
    models = Effect(
        name="world model: flow - mlp", kind="world_model", task=OVERALL,
        levels=LEVELS["world_model"],
        difference=Estimate(0.0123), improvement=Estimate(0.6), paired=False, verdict=NO_VERDICT,
        reason="one world model of mlp: another of its kind may differ as much",
    )  # fmt: skip
    return Section(
        title="frozen, original checkpoint",
        bases=[ORIGINAL, FROZEN],
        mixed=["conventions", "data", "budget"],
        records=records,
        cells=cells,
        tasks=tasks,
        world_models={"mlp": 1},
        references={},
        results=results(cells, tasks, values, lambda task: TASKS[task][1:], 1),
        failures=[],
        effects=[over, models, *single],
        profiles=[],
        costs=[Cost(cell, None, None, "", None) for cell in cells],
        model_errors={},
    )


def comparison(video=None):
    main, imported = main_section(video), imported_section()
    return Comparison(
        name="phase8",
        description="In miniature: does flow matching help?",
        sections=[main, imported],
        attention={
            "": ["PWM's own model was trained for about two weeks, these for 200,000 iterations."],
            main.title: [
                "flow × flow has no seed 456 on cheetah-run.",
                f"flow × flow: the decoded reward explains nothing {HOSTILE}.",
            ],
            imported.title: ["Two different budgets stand side by side."],
        },
    )
