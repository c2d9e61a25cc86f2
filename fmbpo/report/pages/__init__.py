"""The report on a comparison: one page that needs no network, Markdown, figures, CSV files.

``write_report`` is the entry. What is said is built once, as data (``content``), by ``results``,
``effects``, ``training`` and ``origins``; ``render`` turns it into HTML and Markdown, so the two
cannot disagree. ``csv_files`` writes the numbers unrounded.
"""

from fmbpo.report.pages.write import write_report

__all__ = ["write_report"]
