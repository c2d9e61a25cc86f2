"""Recorded data: the store, its sampling, and the collector with its planner."""
