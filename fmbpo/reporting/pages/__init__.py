"""The report on a comparison: one HTML page that needs no network, figures and CSV files.

``write_report`` writes it; ``check_place`` tells beforehand whether it may write there.
``results`` and ``training`` turn a comparison into tables, pictures and sentences (``content``),
with figures from ``figures``; ``render`` puts them into the template. ``csv_files`` writes the
numbers unrounded.
"""

from fmbpo.reporting.pages.write import check_place, write_report

__all__ = ["check_place", "write_report"]
