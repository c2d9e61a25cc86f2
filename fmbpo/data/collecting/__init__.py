"""Episodes collected in the simulator by a planner, a trained policy or noise.

Other packages import only the names below.
"""

import fmbpo.tasks  # noqa: F401 (import before MuJoCo, which needs no display here)
from fmbpo.data.collecting.collector import Request, collect
from fmbpo.data.collecting.episode import Policy, TrainedPolicies
from fmbpo.data.collecting.recipes import Recipe, behaviours, recipe_named, with_noise

__all__ = [
    "Policy",
    "Recipe",
    "Request",
    "TrainedPolicies",
    "behaviours",
    "collect",
    "recipe_named",
    "with_noise",
]
