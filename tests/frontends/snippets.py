"""The snippets of the documentation, and how long they are."""

import re

from tests.architecture.sources import ROOT

HOWTO = "docs/howto/frontend.md"
SECTION = r"^## {title}\n(.*?)(?=^## |\Z)"
BLOCK = r"^```{language}\n(.*?)^```$"
ONLY_CLOSES = re.compile(r"^[\s{}()/;]*$|^</?(script|template)[^>]*>$")
"""A blank line, and one that only opens or closes what the lines around it are in."""


def blocks(page: str, title: str, language: str) -> list[str]:
    """Return the blocks in this language of one section of a page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    [section] = re.findall(SECTION.format(title=re.escape(title)), text, re.DOTALL | re.MULTILINE)
    return re.findall(BLOCK.format(language=language), section, re.DOTALL | re.MULTILINE)


def lines_of(block: str) -> int:
    """Return how many lines of a block say something."""
    return sum(1 for line in block.splitlines() if not ONLY_CLOSES.match(line))


TAG, ELEMENT = (blocks(HOWTO, title, "html")[0] for title in ("A template tag", "An element"))
HOOK, HOOK_MAIN = blocks(HOWTO, "React hooks", "jsx")
USE_CHAT, CHAT_MAIN = blocks(HOWTO, "useChat", "jsx")
COMPLETE = "A complete page with useChat"
COMPLETE_PAGE, COMPLETE_MAIN = blocks(HOWTO, COMPLETE, "jsx")
DESK = {
    "frontend/vite.config.mjs": blocks(HOWTO, COMPLETE, "js")[0],
    "frontend/main.jsx": COMPLETE_MAIN,
    "frontend/chat.jsx": COMPLETE_PAGE,
    "desk/templates/desk/chat.html": blocks(HOWTO, COMPLETE, "html")[0],
    "desk/views.py": blocks(HOWTO, COMPLETE, "python")[0],
    "mysite/urls.py": f"\nfrom desk.views import chat\n\n{blocks(HOWTO, COMPLETE, 'python')[1]}",
}
"""The files of an app whose page is the complete one; the lines for the last are added to it."""
INSTALL, DESK_BUILD = blocks(HOWTO, COMPLETE, "sh")
[HOOK_INSTALL] = blocks(HOWTO, "React hooks", "sh")
PACK = INSTALL.splitlines()[0]
"""The command that packs the npm package."""
[ASSISTANT_UI] = blocks(HOWTO, "assistant-ui", "jsx")
[VUE], [SVELTE] = (blocks(HOWTO, "Without React", language) for language in ("vue", "svelte"))

CHATS = {
    "tag": TAG,
    "element": ELEMENT,
    "hook": HOOK,
    "use-chat": USE_CHAT,
    "assistant-ui": ASSISTANT_UI,
    "vue": VUE,
    "svelte": SVELTE,
}
