"""The chat in a browser with scripts switched off: the forms inside the element, on the demo's page."""

import re
from typing import Any

import pytest

from tests.browser.chat_page import LONG_STORY, PATIENCE_MS, STORY_BEGINS, ChatPage
from tests.browser.visits import PHONE, Visit

pytestmark = pytest.mark.browser

BOOK = "Book a table for four at Luigi's at 19:30"


class PlainChat:
    """The chat page without scripts, in one tab."""

    def __init__(self, visit: Visit, path: str = "/", **options: Any) -> None:
        from playwright.sync_api import expect

        self.page = visit.open(path, java_script_enabled=False, **options)
        self.expect = expect
        self.chat = self.page.locator("durable-chat")

    def ask(self, words: str) -> None:
        """Write a message and send it."""
        self.chat.get_by_label("Message").fill(words)
        self.chat.get_by_role("button", name="Send").click()

    def reload_until(self, pattern: str) -> None:
        """Follow the link that reloads the page, until the chat says something like this."""
        for _ in range(PATIENCE_MS // 500):
            if re.search(pattern, self.chat.inner_text(), re.DOTALL):
                return
            self.page.wait_for_timeout(500)
            self.chat.get_by_role("link", name="Reload to see what is new").click()
        raise AssertionError(self.chat.inner_text())


def test_a_message_is_sent_and_the_answer_read(visit: Visit) -> None:
    """The first one begins a chat, which has an address."""
    plain = PlainChat(visit)
    plain.ask("Add 1 and 2")
    plain.page.wait_for_url(re.compile(r"\?thread="))
    plain.reload_until("Add 1 and 2.*1 and 2 make 3")
    plain.ask("Add 20 and 22")
    plain.reload_until("20 and 22 make 42")
    plain.expect(plain.chat.get_by_role("article")).to_have_count(4)


def test_an_answer_is_stopped_and_continued(visit: Visit) -> None:
    """What it had said stays."""
    plain = PlainChat(visit)
    plain.ask(LONG_STORY)
    plain.reload_until(STORY_BEGINS)
    plain.chat.get_by_role("button", name="Stop").click()
    plain.expect(plain.chat.get_by_role("status")).to_have_text("You stopped this answer.")
    assert STORY_BEGINS in plain.chat.inner_text()
    plain.chat.get_by_role("button", name="Continue").click()
    plain.expect(plain.chat.get_by_role("status")).to_have_text("The assistant is answering.")
    plain.chat.get_by_role("button", name="Stop").click()


@pytest.mark.parametrize(
    ("button", "says"), [("Approve", "Your table is booked"), ("Reject", "You said: Too far away")]
)
def test_a_question_is_answered(visit: Visit, button: str, says: str) -> None:
    """With a note; the arguments can be read before."""
    plain = PlainChat(visit)
    plain.ask(BOOK)
    plain.reload_until("Waits for you")
    plain.expect(plain.chat.locator("pre")).to_contain_text('"restaurant": "Luigi\'s"')
    plain.chat.get_by_label("Note to the assistant").fill("Too far away")
    plain.chat.get_by_role("button", name=button).click()
    plain.reload_until(says)


def test_an_error_is_told_with_what_was_written(visit: Visit) -> None:
    """And the way back leads to the chat."""
    plain = PlainChat(visit)
    plain.ask("Add 1 and 2")
    plain.page.wait_for_url(re.compile(r"\?thread="))
    address = plain.page.url
    plain.page.context.clear_cookies(name="csrftoken")
    plain.ask("This is lost")
    plain.expect(plain.page.get_by_label("You wrote:")).to_have_value("This is lost")
    plain.page.get_by_role("link", name="Back to the chat").click()
    plain.expect(plain.page).to_have_url(address)
    visit.forgive(r"403 \(Forbidden\)|favicon")


def test_scripts_take_the_place_of_the_forms(visit: Visit) -> None:
    """The forms are in the page, but nobody sees or reaches them."""
    chat = ChatPage(visit.open())
    chat.ask("Add 1 and 2")
    chat.wait_for_rest()
    chat.page.reload()
    chat.wait_for_words("1 and 2 make 3")
    inside = "[...document.querySelectorAll('durable-chat > form, durable-chat > article')]"
    assert chat.page.evaluate(f"{inside}.length") >= 3
    assert chat.page.evaluate(f"{inside}.filter((one) => one.checkVisibility()).length") == 0
    chat.prompt.focus()
    for _ in range(12):
        chat.page.keyboard.press("Tab")
        assert not chat.page.evaluate("document.activeElement.matches('durable-chat > *, durable-chat > * *')")


def test_on_a_phone_the_forms_fit(visit: Visit) -> None:
    """Nothing is wider than the screen."""
    plain = PlainChat(visit, **PHONE)
    plain.ask(BOOK)
    plain.reload_until("Waits for you")
    wide = plain.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide[0] <= PHONE["viewport"]["width"]
