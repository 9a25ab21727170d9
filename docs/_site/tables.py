"""Prepare the tables of a page for narrow screens."""

from __future__ import annotations

import itertools
import re

_TABLE = re.compile(r"<table>.*?</table>", re.DOTALL)


def with_column_names(html: str) -> str:
    """Return the page with the column's name in each cell of a table of three columns or more.

    A narrow screen shows the cells of a row one below the other, with these names. The first column needs none.
    """
    return _TABLE.sub(_named, html)


def _named(table: re.Match[str]) -> str:
    heads = re.findall(r"<th>(.*?)</th>", table[0], re.DOTALL)
    if len(heads) < 3:
        return table[0]
    names = [re.sub(r"<[^>]*>", "", head).replace('"', "&quot;") for head in heads]
    columns = itertools.cycle(["", *names[1:]])
    cells = re.sub("<td>", lambda _: f'<td data-label="{next(columns)}">', table[0])
    return cells.replace("<table", "<table data-wide", 1)
