"""fmbpo: flow matching for model-based policy optimisation, studied as a 2x2 factorial."""

__version__ = "0.1.0"
