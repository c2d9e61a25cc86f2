"""Measurements: held-out validation, returns in the simulator, health gates, cost and size."""
