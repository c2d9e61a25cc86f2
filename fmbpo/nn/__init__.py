"""Network blocks and formulas that plugins share; they import these and ``fmbpo.hookspecs``."""
