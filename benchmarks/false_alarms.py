"""How often the contract's checks of learning refuse a sound plugin, and catch a broken one.

    python benchmarks/false_alarms.py

Runs the checks of ``JUDGED`` on variants of the plugins and the examples of this repository, on the
sound plugins of ``tests/support/sound.py``, and on the mutants of ``tests/testing`` that these
checks are there to catch, each from several initialisations. A warning counts as a refusal. The
status is 1 if a sound variant is refused or a mutant passes.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs

from fmbpo.plugins import Component, Kind, load_plugin
from fmbpo.testing.contract import CHECKS, configured, run_check, subject_of

ROOT = Path(__file__).parent.parent
JUDGED = (
    "predicted_latent_is_that_of_its_row",
    "decoded_reward_follows_the_real_one",
    "loss_falls",
    "return_rises",
    "only_the_return_moves_latents",
    "other_parameters_learn_apart",
    "data_do_not_repel",
)
"""Names of checks."""
RK4 = {"solver": "rk4", "substeps": 2, "trained_from": "mixed", "endpoint_coef": 1.0}
TANGENT = {"parameterisation": "tangent", "tau": "logit_normal", "solver": "midpoint"}
LOGIT = {"parameterisation": "logit", "trained_from": "teacher"}
COEFFICIENTS: list[dict[str, Any]] = [{"consistency_coef": c} for c in (2.0, 5.0, 20.0, 40.0)]
SOUND: dict[str, list[dict[str, Any]]] = {
    "mlp": [
        *COEFFICIENTS,
        {"rho": 0.5},
        {"latent_dim": 8},
        {"units": [16, 16, 16, 16]},
        {"units": [64, 64], "encoder_units": [64], "latent_dim": 64},
    ],
    "flow": [
        *COEFFICIENTS,
        {"solver": "euler", "substeps": 1},
        RK4,
        TANGENT,
        LOGIT,
        {"source": "noise"},
        {"source": "noise", "consistency_coef": 2.0},
        {"matching_coef": 0.0, "endpoint_coef": 1.0},
        {"detach_velocity": True},
    ],
    "ensemble": [{}, {"members": 2, "pessimism": 0.0}, {"consistency_coef": 0.1},
                 {"consistency_coef": 10.0}],
}  # fmt: skip
"""Sound world models by plugin: settings on top of its small ones."""
POLICIES: dict[str, list[dict[str, Any]]] = {
    "mlp": [{}, {"task_embedding": True}, {"detach": False}, {"units": [64, 64]}],
    "flow": [{}, {"gate": True, "solver": "rk4"}, {"substeps": 1}, {"detach": False}],
    "mixture": [{}, {"temperature": 0.1}, {"components": 8}],
    "entropy": [
        {},
        {"learned": False},
        {"temperature": 1.0},
        {"temperature": 100.0, "learned": False},
        {"target_entropy": 1.0},
        {"units": [64, 64]},
    ],
    "fql": [
        *({"substeps": 2, "anchor": weight} for weight in (0.0, 0.1, 1.0, 10.0, 100.0, 10_000.0)),
        {"substeps": 1},
        {"substeps": 10},
        {"units": [64, 64]},
    ],
    "Dense": [{}],
    "Soft": [{}, {"detach": False}],
    "Tempered": [{}, {"init_log_std": 0.0}, {"init_log_std": -3.0, "min_log_std": -5.0}],
}
"""Sound policies likewise; capitals: classes of ``tests/support/sound.py``."""
EXAMPLES: dict[tuple[Kind, str], str] = {
    ("world_model", "ensemble"): "wm_ensemble",
    ("policy", "mixture"): "policy_mixture",
    ("policy", "entropy"): "policy_entropy",
    ("policy", "fql"): "policy_fql",
}
sys.path[:0] = [str(ROOT / "tests" / folder) for folder in ("support", "testing")]


def main(argv: Sequence[str] | None = None) -> int:
    """Run, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="initialisations of each plugin")
    parser.add_argument("--only", default="", metavar="WORD", help="plugins whose names have it")
    options = parser.parse_args(argv)
    rows = list(every(options.seeds, options.only))
    print("| plugins | check | number | runs | refused |\n| --- | --- | --: | --: | --: |")
    for broken in (False, True):
        for check in JUDGED:
            own = [row for row in rows if (row.broken, row.check) == (broken, check)]
            if not own:
                continue
            counts = len(own), len(own) * options.seeds, sum(row.refused for row in own)
            cells = ["broken" if broken else "sound", f"`{check}`", *map(str, counts)]
            print(f"| {' | '.join(cells)} |")
    return int(any(row.refused != row.broken * options.seeds for row in rows))


@attrs.frozen
class Row:
    """A check of a plugin: how many of its runs failed or warned."""

    name: str
    broken: bool
    check: str
    refused: int


def every(seeds: int, only: str) -> Iterator[Row]:
    """A row per plugin and check, which stderr tells too."""
    for name, component, settings, check in [*sound(), *mutants()]:
        if only not in name:
            continue
        judged = [check] if check else [c for c in JUDGED if c in CHECKS[component.kind]]
        whole = subject_of(component, configured(component, settings))
        subjects = [attrs.evolve(whole, seed=seed, results={}) for seed in range(seeds)]
        for each in judged:
            outcomes = [run_check(subject, each) for subject in subjects]
            refused = sum(o.status in ("failed", "warned") for o in outcomes)
            row = Row(name, bool(check), each, refused)
            print(f"{name}: {each}: {refused} of {seeds} refused", file=sys.stderr, flush=True)
            yield row


def sound() -> Iterator[tuple[str, Component, dict[str, Any], str]]:
    """Names, plugins and settings of sound variants; all checks judge them."""
    tables: dict[Kind, dict[str, list[dict[str, Any]]]] = {"world_model": SOUND, "policy": POLICIES}
    for kind, table in tables.items():
        for plugin, variants in table.items():
            component = named(kind, plugin)
            for settings in variants:
                words = " ".join(f"{key}={value}" for key, value in settings.items())
                yield f"{kind} {plugin} {words}".strip(), component, settings, ""


def named(kind: Kind, name: str) -> Component:
    """An installed plugin, one of ``examples/plugins``, or one of ``tests/support/sound.py``."""
    if folder := EXAMPLES.get((kind, name)):
        plugin: Any = importlib.import_module("example_plugins").example(folder)
    elif name[0].isupper():
        plugin = getattr(importlib.import_module("sound"), name)()
    else:
        return load_plugin(kind, name)
    names = ("build", "predict", "rollout", "loss", "freeze", "Config", "small")
    parts = {part: getattr(plugin, part) for part in names}
    return Component(kind=kind, name=name, version="0", distribution="example", value="", **parts)


def mutants() -> Iterator[tuple[str, Component, dict[str, Any], str]]:
    """Names, plugins and settings of the mutants, and the check that is there to catch each."""
    found: Any = importlib.import_module("mutants")
    for part in ("shared", "world_model", "policy", "auxiliary"):
        importlib.import_module(f"{part}_mutants")
    for mutant in found.MUTANTS:
        if mutant.check in JUDGED:
            component = found.component(mutant.plugin())
            yield f"mutant {mutant.name}", component, mutant.settings, mutant.check


if __name__ == "__main__":
    sys.exit(main())
