"""The chats of the documentation are short, and the README has those of the how-to."""

import pytest

from tests.architecture.sources import ROOT
from tests.frontends.snippets import CHAT_MAIN, CHATS, HOOK_INSTALL, PACK, lines_of

README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("chat", CHATS)
def test_a_chat_takes_less_than_ten_lines(chat: str):
    """Imports are counted; lines that only open or close are not."""
    assert 0 < lines_of(CHATS[chat]) < 10


def test_the_hooks_and_the_complete_page_pack_the_package_alike():
    assert HOOK_INSTALL.splitlines()[0] == PACK


@pytest.mark.parametrize("code", [*(CHATS[chat] for chat in ("tag", "element", "hook", "use-chat")), CHAT_MAIN])
def test_the_readme_has_the_same_code(code: str):
    """What a reader sees first is what is tested."""
    assert code in README
