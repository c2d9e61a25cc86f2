"""Numbers as readers see them, and text from outside that can do no harm in a page."""

from __future__ import annotations

import math
import re

from fmbpo.base.text import NONE
from fmbpo.compare.comparison import Estimate

LEVEL = "95\N{NO-BREAK SPACE}%"
"""The confidence of all intervals; never split at the end of a line."""
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def clean(text: object) -> str:
    """The text with a replacement character for each character that HTML or XML forbids."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", str(text))


def decimal(value: float | None, digits: int) -> str:
    """A number with ``digits`` decimals and a true minus sign; ``NONE`` for None."""
    if value is None:
        return NONE
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", "−")


def significant(value: float | None) -> str:
    """A number with three significant digits, without an exponent if that is readable."""
    if value is None or value == 0 or not math.isfinite(value):
        return decimal(value, 0)
    size = math.floor(math.log10(abs(value)))
    if size < -4 or size > 6:
        return f"{value:.2e}".replace("-", "−")
    return decimal(value, max(0, 2 - size))


def interval(estimate: Estimate, digits: int) -> str:
    """``[low, high]``; empty if the estimate has no interval."""
    if estimate.low is None or estimate.high is None:
        return ""
    return f"[{decimal(estimate.low, digits)}, {decimal(estimate.high, digits)}]"
