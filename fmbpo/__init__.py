"""fmbpo: flow matching for model-based policy optimisation, studied as a 2x2 factorial.

As a library it offers the names below (``docs/library.md``), each imported once it is used.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fmbpo.config import load_experiment as load_experiment
    from fmbpo.config.study_file import load_study as load_study
    from fmbpo.errors import UserError as UserError
    from fmbpo.library import check as check
    from fmbpo.library import open_data as open_data
    from fmbpo.library import report as report
    from fmbpo.library import run as run
    from fmbpo.running.stop import Stop as Stop
    from fmbpo.running.trained_policies import load_policy as load_policy
    from fmbpo.runs.outcome import Interrupted as Interrupted

__version__ = "0.1.0"

# torch's threads soon sleep while they wait: beside other work, spinning ones take the cores from
# those that they wait for (benchmarks/waiting.py). torch reads this once, when it is loaded.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

_HOMES = {
    "Interrupted": "runs.outcome",
    "Stop": "running.stop",
    "UserError": "errors",
    "load_experiment": "config",
    "load_policy": "running.trained_policies",
    "load_study": "config.study_file",
    **dict.fromkeys(("check", "open_data", "report", "run"), "library"),
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"fmbpo.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
