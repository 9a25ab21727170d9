"""Show a state diagram as a table, so that the site needs no script of another host to draw it."""

from __future__ import annotations

import html
import re
from typing import Any

_TRANSITION = re.compile(r"^ +(\S+) --> (\S+): (.+)$", re.MULTILINE)


def as_table(source: str, *_: Any, **__: Any) -> str:
    """Return the transitions of a Mermaid state diagram as an HTML table. This is a formatter of superfences."""
    rows = "".join(
        f"<tr><td>{_state(before)}</td><td>{_state(after)}</td><td>{html.escape(by)}</td></tr>"
        for before, after, by in _TRANSITION.findall(source)
    )
    return f"<table><thead><tr><th>from</th><th>to</th><th>by</th></tr></thead><tbody>{rows}</tbody></table>"


def _state(name: str) -> str:
    return "a new thread" if name == "[*]" else f"<code>{html.escape(name)}</code>"
