"""Write ``docs/mt30-mini.md``'s table and picture from a finished store.

``python docs/generate_mini.py mt30-mini.zarr`` reads the store; without it the table and the
picture are made again from the numbers read earlier, ``docs/mt30_mini.json``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from fmbpo.data.store import info, open_store, starts
from fmbpo.tasks.mt30 import MT30

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "mt30-mini.md"
NUMBERS = ROOT / "docs" / "mt30_mini.json"
PICTURE = ROOT / "docs" / "images" / "mt30_mini.png"
BEGIN, END = "<!-- generated:begin -->", "<!-- generated:end -->"
BLUE, GREY, ORANGE = "#2563eb", "#9ca3af", "#d97706"


def numbers(path: Path) -> dict[str, Any]:
    """What the page says of a store: returns of every episode by task and behaviour, size, id."""
    store, about = open_store(path), info(path)
    reward = np.asarray(store.arrays["data/reward"][:], np.float64)
    returns = np.add.reduceat(reward, starts(store.episode_ends))
    by_task: dict[str, dict[str, list[float]]] = {task: {} for task in store.tasks}
    for value, t, b in zip(returns, store.episode_task, store.episode_behaviour, strict=True):
        by_task[store.tasks[t]].setdefault(store.behaviours[b], []).append(round(float(value), 1))
    return {
        "id": about["id"],
        "rows": about["rows"],
        "bytes": about["bytes"],
        "held_out": about["held_out"],
        "seed": about["provenance"]["request"]["seed"],
        "planner": about["provenance"]["planner"],
        "packages": about["provenance"]["packages"],
        "returns": by_task,
    }


def table(found: dict[str, Any]) -> str:
    """Mean returns by task and behaviour, beside the published scores of learned agents."""
    returns = found["returns"]
    behaviours = list(dict.fromkeys(name for row in returns.values() for name in row))
    episodes = sum(len(values) for row in returns.values() for values in row.values())
    lines = [
        f"{len(returns)} tasks, {episodes} episodes, {found['rows']:,} rows, "
        f"{found['bytes'] / 1e6:.1f} MB, {found['held_out']} episodes held out; seed "
        f"{found['seed']}, id `{found['id']}`. Mean returns, with the planner's lowest and highest "
        "episode in brackets:",
        "",
        "| task | " + " | ".join(behaviours) + " | PWM | TD-MPC2 |",
        "| --- |" + " --: |" * (len(behaviours) + 2),
    ]
    for task, row in returns.items():
        cells = [f"{np.mean(row[name]):.0f}" for name in behaviours]
        first = row[behaviours[0]]
        cells[0] += f" ({min(first):.0f} to {max(first):.0f})"
        published = [MT30[task].pwm_return, MT30[task].tdmpc2_return]
        lines.append(
            f"| `{task}` | " + " | ".join([*cells, *(f"{x:.0f}" for x in published)]) + " |"
        )
    means = [np.mean([np.mean(row[name]) for row in returns.values()]) for name in behaviours]
    means += [np.mean([MT30[t].pwm_return for t in returns])]
    means += [np.mean([MT30[t].tdmpc2_return for t in returns])]
    lines.append("| **mean** | " + " | ".join(f"**{x:.0f}**" for x in means) + " |")
    return "\n".join(lines)


def draw(found: dict[str, Any]) -> None:
    """The planner's episodes as points, beside the published scores."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    returns = found["returns"]
    tasks = list(returns)[::-1]
    figure, axes = pyplot.subplots(figsize=(8, 8.5), layout="constrained")
    for y, task in enumerate(tasks):
        values = returns[task]["planner"]
        axes.plot(values, [y] * len(values), "o", color=BLUE, alpha=0.35, ms=5, mew=0)
        axes.plot(np.mean(values), y, "D", color=BLUE, ms=6)
        axes.plot(MT30[task].pwm_return, y, "|", color=ORANGE, ms=13, mew=2.5)
        axes.plot(MT30[task].tdmpc2_return, y, "|", color=GREY, ms=13, mew=2.5)
    for label, marker, colour in (
        ("planner in the true simulator: episodes, mean", "D", BLUE),
        ("PWM (published)", "|", ORANGE),
        ("TD-MPC2 (published)", "|", GREY),
    ):
        axes.plot([], [], marker, color=colour, label=label, mew=2 if marker == "|" else 0)
    axes.set_yticks(range(len(tasks)), tasks)
    axes.set_xlim(-15, 1015)
    axes.set_xlabel("return of an episode (at most 1000)")
    axes.grid(axis="x", color="#e5e7eb")
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, dpi=110)


def page(found: dict[str, Any]) -> str:
    """The page with its table current."""
    text = PAGE.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    return f"{before}{BEGIN}\n{table(found)}\n{END}{after}"


def main() -> None:
    """Numbers, table and picture."""
    if len(sys.argv) > 1:
        NUMBERS.write_text(json.dumps(numbers(Path(sys.argv[1])), indent=1) + "\n")
    found = json.loads(NUMBERS.read_text())
    PAGE.write_text(page(found), encoding="utf-8")
    draw(found)
    print(table(found))


if __name__ == "__main__":
    main()
