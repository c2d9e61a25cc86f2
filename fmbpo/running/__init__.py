"""Runs and studies from a checked experiment to the summary: preflight, order, resume, stop."""
