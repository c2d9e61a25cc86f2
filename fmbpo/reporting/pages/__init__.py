"""The report on a comparison: one HTML page that needs no network, figures and CSV files.

``write_report`` writes it; ``check_place`` tells beforehand whether it may write there.
``first_screen`` answers, with the sentences of ``answers`` and ``caveats`` and the figures of
``dots``; ``results`` and ``training`` make tables, and pictures with the lines of ``figures``. All
of it is data (``content``) until ``render`` puts it into the templates. ``csv_files`` writes the
numbers unrounded.
"""

from fmbpo.reporting.pages.write import check_place, write_report

__all__ = ["check_place", "write_report"]
