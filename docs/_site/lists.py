"""Indent what belongs to a list item as the site's Markdown parser expects it. GitHub's needs less."""

from __future__ import annotations

import re
from collections.abc import Iterator

_ITEM = re.compile(r"(?:[-*]|\d+\.) ")
_FENCE = re.compile(r"( *)(`{3,})")
BROKEN_ITEM = re.compile(r"^[-*] ", re.MULTILINE)
"""Matches an item in the HTML of a page, outside of code: the parser has taken it for text."""


def with_wide_indents(markdown: str) -> str:
    """Return the text with four spaces for each level of a list, and a blank line after an item of several blocks.

    Code keeps its own indentation.
    """
    return "\n".join(_lines(markdown))


def _lines(markdown: str) -> Iterator[str]:
    is_list = is_after_blank = has_blocks = False
    fence, shift = "", 0
    for line in markdown.split("\n"):
        indent = len(line) - len(line.lstrip(" "))
        begun = _FENCE.match(line)
        if fence:
            yield " " * shift + line if line else line
            fence = "" if line.strip() == fence else fence
            continue
        if line and not indent:
            is_item = bool(_ITEM.match(line))
            if is_item and has_blocks and not is_after_blank:
                yield ""
            is_list, has_blocks = is_item or (is_list and not is_after_blank), False
        has_blocks = has_blocks or (is_list and indent > 0 and is_after_blank)
        # GitHub recognizes a level by two spaces or, below a number, by three.
        shift = indent // 2 * 4 - indent if is_list else 0
        fence = begun[2] if begun else ""
        is_after_blank = not line
        yield " " * shift + line
