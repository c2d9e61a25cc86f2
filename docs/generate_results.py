"""Write the results table of the README, and its picture, from finished runs.

``python docs/generate_results.py runs`` takes every policy run in the folder.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from fmbpo.base.metrics import replicate_of
from fmbpo.reporting.closing_table import is_above
from fmbpo.reporting.interval import sample, t_interval
from fmbpo.runs.summary import Summary, TaskResult

README = Path(__file__).parent.parent / "README.md"
PICTURE = README.parent / "docs" / "images" / "learning_curves.png"
DRAWN = "quickstart"
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"


def load(runs: Path) -> dict[str, tuple[Path, Summary]]:
    """The policy runs in a folder, by experiment."""
    found = {}
    for path in sorted(runs.glob("*/summary.json")):
        summary = Summary.from_json(json.loads(path.read_text()), where=str(path))
        if summary.policy is not None:
            found[summary.experiment] = (path.parent, summary)
    return found


def described(summary: Summary) -> tuple[object, ...]:
    """What all columns of a table must share."""
    grid = {t: {s: len(r.returns) for s, r in x.seeds.items()} for t, x in summary.tasks.items()}
    return summary.scale, summary.protocol, summary.conventions, grid


def cell(task: TaskResult) -> str:
    """Mean ± interval, share of the planner, and a mark where a baseline is not beaten."""
    text = f"{t_interval(sample(task))}"
    if task.reference_return:
        text += f" ({100 * task.return_mean / task.reference_return:.0f} %)"
    beaten = is_above(task, "random") and is_above(task, "untrained")
    return text if beaten else text + " †"


def table(results: dict[str, tuple[Path, Summary]]) -> str:
    """Rows are tasks, columns quadrants."""
    summaries = [summary for _, summary in results.values()]
    tasks = list(summaries[0].tasks)
    for summary in summaries:  # one table holds one protocol, scale, grid and kind of evaluation
        assert described(summary) == described(summaries[0]), summary.experiment
    heads = [f"{s.world_model.plugin} × {s.policy.plugin}" for s in summaries if s.policy]
    seeds = list(next(iter(summaries[0].tasks.values())).seeds)
    one = len({replicate_of(seed) for seed in seeds}) == 1
    sample, where = ("policies", " in one world model") if one else ("seeds", "")
    episodes = len(next(iter(next(iter(summaries[0].tasks.values())).seeds.values())).returns)
    lines = [
        f"Scale `{summaries[0].scale}`, protocol `{summaries[0].protocol}`, conventions "
        f"`{summaries[0].conventions}`. Mean return of {len(seeds)} {sample} × {episodes} episodes"
        f"{where} ± 95 % interval over {sample} (share of the planner's return); world model × "
        "policy:",
        "",
        "| task | " + " | ".join(heads) + " | planner | behaviour cloning | random |",
        "| --- |" + " --: |" * (len(heads) + 3),
    ]
    for task in tasks:
        first = summaries[0].tasks[task]
        cells = [cell(s.tasks[task]) for s in summaries]
        references = first.reference_return, first.cloned_return_mean, first.random_return_mean
        row = [f"`{task}`", *cells, *("" if x is None else f"{x:.0f}" for x in references)]
        lines.append("| " + " | ".join(row) + " |")
    for part in ("pretraining", "policy_learning"):
        flops = [s.flops[part] / 1e12 for s in summaries if isinstance(s.flops, dict)]
        lines.append(
            f"| TFLOP, {part.replace('_', ' ')} | "
            + " | ".join(f"{x:.0f}" for x in flops)
            + " | | | |"
        )
    parts = {"world model": [s.world_model for s in summaries]}
    parts["policy"] = [s.policy for s in summaries if s.policy]
    for name, found in parts.items():
        counts = " | ".join(str(part.evaluations) for part in found)
        lines.append(f"| network evaluations per step, {name} | {counts} | | | |")
    lines.append("")
    if any("†" in line for line in lines):
        lines += ["† not above the random and the untrained policy beyond the 95 % interval.", ""]
    return "\n".join(lines)


def main() -> None:
    """Fill the README between its markers and copy the picture."""
    results = load(Path(sys.argv[1]))
    text = README.read_text()
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    README.write_text(f"{before}{BEGIN}\n{table(results)}{END}{after}")
    PICTURE.parent.mkdir(exist_ok=True)
    shutil.copy(results[DRAWN][0] / "curves.png", PICTURE)
    print(table(results))


if __name__ == "__main__":
    main()
