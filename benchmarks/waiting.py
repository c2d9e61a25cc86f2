"""Times pretraining at the scale ``laptop`` by how torch's threads wait for each other.

    python benchmarks/waiting.py --json benchmarks/results/waiting.json

libgomp's threads spin for a while before they sleep. That is quick on idle cores; beside other work
it holds the cores from the threads that are waited for. Each way of waiting is measured alone, then
beside an endless loop of lowest priority in another session, with which Linux shares a core
equally. All take turns, and the medians count.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

EXPERIMENT = Path(__file__).parent.parent / "experiments/phase8_pretrain_mlpwm.toml"
WAYS = {
    "libgomp's default": (2, {"GOMP_SPINCOUNT": "300000"}),
    "2,000 spins": (2, {"GOMP_SPINCOUNT": "2000"}),
    "1,000 spins": (2, {"GOMP_SPINCOUNT": "1000"}),
    "passive": (2, {"OMP_WAIT_POLICY": "passive"}),
    "one thread": (1, {}),
}
"""Threads and environment."""
LOOP = "import os; os.nice(19)\nwhile True: pass"
"""Another process."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write the JSON if asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--seconds", type=float, default=4.0, help="of one measurement")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--worker", type=int, metavar="THREADS", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.worker:
        return work(options.worker)
    load = os.getloadavg()
    rates: dict[str, dict[str, list[float]]] = {w: {"alone": [], "busy": []} for w in options.ways}
    workers = {way: start(*WAYS[way]) for way in options.ways}
    for turn in range(options.repeats):
        for way, worker in workers.items():
            for beside, found in rates[way].items():
                found.append(rate(worker, beside == "busy", options.seconds))
        print(f"turn {turn + 1} of {options.repeats}", file=sys.stderr)
    for worker in workers.values():
        worker.kill()
    for way, by in rates.items():
        alone, busy = map(statistics.median, by.values())
        print(f"{way}: {alone:.1f} updates per second alone, {busy:.1f} beside another process")
    if options.json:
        from update import machine

        from fmbpo.runs.summary import versions

        content = {
            "machine": machine("cpu"),
            "load_average": load,
            "versions": versions(),
            "seconds": options.seconds,
            "updates_per_second": rates,
        }
        options.json.write_text(json.dumps(content, indent=2) + "\n")
    return 0


def start(threads: int, environment: dict[str, str]) -> subprocess.Popen[str]:
    """A process that measures when asked; stopped, since its threads may spin."""
    names = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    plain = {name: value for name, value in os.environ.items() if name not in names}
    command = [sys.executable, __file__, "--worker", str(threads)]
    pipe = subprocess.PIPE
    worker = subprocess.Popen(
        command, env={**plain, **environment}, stdin=pipe, stdout=pipe, text=True
    )
    rate(worker, False, 0.0)
    return worker


def rate(worker: subprocess.Popen[str], beside: bool, seconds: float) -> float:
    """Updates per second, alone or beside a busy process."""
    assert worker.stdin
    assert worker.stdout
    loop = [sys.executable, "-c", LOOP]
    busy = subprocess.Popen(loop, start_new_session=True) if beside else None
    worker.send_signal(signal.SIGCONT)
    try:
        print(seconds, file=worker.stdin, flush=True)
        return float(worker.stdout.readline())
    finally:
        worker.send_signal(signal.SIGSTOP)
        if busy:
            busy.kill()
            busy.wait()


def work(threads: int) -> int:
    """For each line on stdin, a number of seconds, print the updates per second."""
    import torch

    from fmbpo.config import load_experiment
    from fmbpo.training.context import Context
    from fmbpo.training.dataset import load_dataset
    from fmbpo.training.pretraining import Pretraining

    cpu = torch.device("cpu")
    e: Any = load_experiment(EXPERIMENT, scale="laptop", data="embedded")
    torch.set_num_threads(threads)
    stage = Pretraining(Context(e, load_dataset(e.data, cpu), cpu), 42)
    stage.step(1)
    done = 1
    for line in sys.stdin:
        began, first = time.perf_counter(), done
        while True:
            done += 1
            stage.step(done)
            if (taken := time.perf_counter() - began) >= float(line):
                break
        print((done - first) / taken, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
