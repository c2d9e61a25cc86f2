"""The report on a comparison: one page that needs no network, Markdown, figures, CSV files.

``write_report`` is the entry; ``check_place`` says beforehand whether it may write there. What is
said is built once, as data (``content``), by ``results``, ``effects``, ``training`` and
``origins``; ``render`` turns it into HTML and Markdown, so the two cannot disagree. ``csv_files``
writes the numbers unrounded.
"""

from fmbpo.report.pages.write import check_place, write_report

__all__ = ["check_place", "write_report"]
