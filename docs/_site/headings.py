"""Give headings the anchors that they have on GitHub, so that links between pages work in both places."""

from __future__ import annotations

import re


def slug(text: str, separator: str) -> str:
    """Return the anchor of a heading: lower case, without punctuation, each space a hyphen."""
    return re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", separator)
