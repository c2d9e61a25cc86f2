"""Policies for distributions that last for one test: one keeps the contract, one breaks it,
one is doubtful."""

GOOD = """
from fmbpo.hookspecs import hookimpl
from fmbpo_policy_mlp import GaussianPlugin

class Plugin(GaussianPlugin):
    pass

plugin = Plugin()
"""
BROKEN = GOOD.replace(
    "    pass",
    """
    @hookimpl
    def predict(self, module, z, task, noise):
        return super().predict(module, z, task, noise) + 1

    @hookimpl
    def loss(self, module, imagined, context):
        raise KeyError("my mistake")
""",
)
"""Actions beyond 1, and a loss that raises."""
DOUBTFUL = GOOD.replace(
    "    pass",
    """
    @hookimpl
    def loss(self, module, imagined, context):
        loss, metrics = super().loss(module, imagined, context)
        return loss + imagined.rollout.z_HBD.square().mean(), metrics
""",
)
"""A loss that draws latents to 0, on purpose or not."""
