"""fmbpo: flow matching for model-based policy optimisation, studied as a 2x2 factorial."""

import os

__version__ = "0.1.0"

# torch's threads soon sleep while they wait: beside other work, spinning ones take the cores from
# those that they wait for (benchmarks/waiting.py). torch reads this once, when it is loaded.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
