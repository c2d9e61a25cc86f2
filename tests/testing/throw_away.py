"""Policies for distributions that last for one test: one that keeps the contract, one not."""

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
