"""Text from outside, made harmless for the place where it will stand."""

from __future__ import annotations

import re

_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_MARKDOWN = re.compile(r"([\\`*\[\]|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def clean(text: object) -> str:
    """Without characters that neither XML nor HTML admits."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", str(text))


def markdown(text: object) -> str:
    """As plain words inside a line or a table of Markdown: no markup, no HTML, one line."""
    words = " ".join(clean(text).split())
    words = words.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKDOWN.sub(r"\\\1", words)


def csv_text(text: object) -> str:
    """As words in a CSV file: what a spreadsheet would take for a formula begins with ``'``."""
    words = clean(text)
    return f"'{words}" if words.startswith(_FORMULA) else words
