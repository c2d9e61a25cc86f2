"""How torch's threads wait for each other: set before torch is loaded, unless the user has."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

LIBRARY = next(Path(torch.__file__).parent.glob("lib/libgomp*"), None)
PROGRAM = f"import fmbpo, ctypes; ctypes.CDLL({str(LIBRARY)!r})"


@pytest.mark.skipif(LIBRARY is None, reason="torch brings no libgomp")
@pytest.mark.parametrize(
    ("given", "policy", "spins"),
    [
        ({}, "PASSIVE", "1000"),
        ({"OMP_WAIT_POLICY": "passive"}, "PASSIVE", "0"),
        ({"OMP_WAIT_POLICY": "active"}, "ACTIVE", "30000000000"),
        ({"GOMP_SPINCOUNT": "77"}, "PASSIVE", "77"),
    ],
)
def test_threads_soon_sleep_while_they_wait_unless_the_user_says_otherwise(given, policy, spins):
    kept = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**kept, "OMP_DISPLAY_ENV": "verbose", **given},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = dict(re.findall(r"(\w+) = '(.*)'", done.stderr))
    assert found["OMP_WAIT_POLICY"] == policy
    assert found["GOMP_SPINCOUNT"] == spins
