"""Network blocks and formulas that plugins share. They import this part of the core and
``fmbpo.hookspecs``, and no other."""
