"""For mypy alone: the modules of the plugins satisfy the protocols of ``fmbpo.hookspecs``."""

import fmbpo_example_policy_mixture as mixture
import fmbpo_example_wm_ensemble as ensemble

from fmbpo import hookspecs as spec
from fmbpo import protocols
from fmbpo.nn.world_model import LatentWorldModel
from fmbpo_policy_flow import FlowPolicy
from fmbpo_policy_mlp import GaussianPolicy
from fmbpo_wm_flow.model import FlowWorldModel

WORLD_MODELS: list[type[spec.WorldModel]] = [LatentWorldModel, FlowWorldModel, ensemble.Ensemble]
POLICIES: list[type[spec.Policy]] = [GaussianPolicy, FlowPolicy, mixture.Mixture]
PROJECTS: list[type[protocols.Projects]] = [
    LatentWorldModel, FlowWorldModel, ensemble.Ensemble, GaussianPolicy, FlowPolicy, mixture.Mixture
]  # fmt: skip
ON_SIMPLEX: list[type[protocols.OnSimplex]] = [LatentWorldModel, FlowWorldModel]
ADOPTS: list[type[protocols.Adopts]] = [LatentWorldModel, FlowWorldModel]
CURVED: list[type[protocols.Curved]] = [FlowWorldModel]
GROWS: list[type[protocols.Grows]] = [FlowPolicy]
