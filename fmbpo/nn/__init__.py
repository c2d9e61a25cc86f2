"""Network blocks and formulas shared by the plugins; the only part of the core they import
beside ``fmbpo.hookspecs``."""
