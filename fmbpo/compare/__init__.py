"""Compares the results of several runs: which runs may be compared, and the statistics."""
