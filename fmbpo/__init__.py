"""fmbpo: flow matching for model-based policy optimisation, studied as a 2x2 factorial."""

import os

__version__ = "0.1.0"

# torch's threads sleep while they wait. Beside other work, spinning ones take the cores from those
# that they wait for (benchmarks/waiting.py). It is read once, when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
