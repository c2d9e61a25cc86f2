"""Results of several runs: what may be compared, and what the comparison finds."""
