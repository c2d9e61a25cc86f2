"""Compares this code with a folder of recorded numbers: ``python -m fmbpo.testing.parity FOLDER``.

It prints, for every recorded array, the largest distance to this engine's result in float32 and in
float64, relative to the array's largest entry. The bound in float32 is ``2e-5``. In float64 it is
twice the distance between the (float32) recording and a float64 recomputation by PWM's own code,
plus 1e-7, and at most 2e-5.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
import numpy as np
import torch

from fmbpo.base.files import path_of
from fmbpo.errors import UserError
from fmbpo.testing.pwm_replay import replay

TOLERANCE = 2e-5
INPUTS = ("inputs", "wm_weights", "ac_init")
"""Files of inputs, from which the results in the other files are computed."""
GIVEN = {"math/x", "math/xs", "math/logits"}
"""Inputs that are recorded among the results."""


@attrs.frozen
class Comparison:
    """One array: the largest distance divided by the largest entry, and its bound."""

    name: str
    dtype: str
    error: float
    bound: float

    @property
    def passed(self) -> bool:
        """Whether the distance is within its bound; NaN is not."""
        return self.error <= self.bound


def compare(folder: Path) -> Iterator[Comparison]:
    """Every array of the folder, in both types; a missing one has error ``inf``. Raises
    ``UserError`` if the folder has another layout."""
    try:
        config, deviations = (
            json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
            for name in ("config", "float64_deviation")
        )
        golden: dict[str, np.ndarray] = {}
        for file in sorted(folder.glob("*.npz")):
            if file.stem not in INPUTS:
                with np.load(file) as arrays:
                    golden |= {f"{file.stem}/{k}": arrays[k] for k in arrays.files}
        for dtype in (torch.float32, torch.float64):
            ours = {name: x.detach().numpy() for name, x in replay(folder, config, dtype)}
            label = str(dtype).removeprefix("torch.")
            for name in [name for name in golden if name not in GIVEN]:
                bound = TOLERANCE
                if dtype is torch.float64 and name in deviations:
                    # Twice, since the recorded distance is that of one order of operations.
                    bound = min(TOLERANCE, 2 * deviations[name][1] + 1e-7)
                yield Comparison(name, label, _error(ours.get(name), golden[name]), bound)
            for name in sorted(ours.keys() - golden.keys()):
                yield Comparison(f"{name} (not recorded)", label, math.inf, TOLERANCE)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        what = f"not a folder of golden numbers, or an incomplete one ({error})"
        remedy = "name a folder with config.json, float64_deviation.json and all the .npz files"
        raise UserError(what, where=str(folder), remedy=remedy) from error


def _error(ours: np.ndarray | None, wanted: np.ndarray) -> float:
    if ours is None or ours.shape != wanted.shape:
        return math.inf
    scale = float(np.abs(wanted).max()) or 1.0
    return float(np.abs(ours.astype(np.float64) - wanted.astype(np.float64)).max()) / scale


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line per array. Returns 0 if all are within their bounds, 1 if not, 2 on an error."""
    parser = argparse.ArgumentParser(prog="python -m fmbpo.testing.parity", description=__doc__)
    parser.add_argument("folder", type=path_of)
    try:
        results = list(compare(parser.parse_args(arguments).folder))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for result in results:
        verdict = f"{result.bound:.1e}  {'ok' if result.passed else 'FAILED'}"
        print(f"{result.dtype}  {result.error:9.2e}  of {verdict}  {result.name}")
    failed = sum(not result.passed for result in results)
    median = sorted(result.error for result in results)[len(results) // 2]
    print(f"{len(results)} comparisons, {failed} failed; median error {median:.1e}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
