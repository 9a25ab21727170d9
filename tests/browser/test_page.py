"""The page around the conversation: sign-in, keys, scrolling, a phone, a screen reader."""

import pytest

from tests.browser.chat_page import LONG_STORY, PATIENCE_MS, ChatPage
from tests.browser.visits import FINGER_PX, PHONE

pytestmark = pytest.mark.browser


def test_the_sign_in_tells_of_a_wrong_password_and_lets_in_with_the_right_one(visit):
    """The form names the demo's accounts, and leads to the chat."""
    page = visit.open("/", user=None)
    assert "/accounts/login/" in page.url
    assert "guest / guest" in page.locator(".accounts").inner_text()
    for password in ("wrong", "guest"):
        page.get_by_label("Username").fill("guest")
        page.get_by_label("Password").fill(password)
        page.get_by_role("button", name="Sign in").click()
        if password == "wrong":
            page.get_by_role("alert").wait_for()
    page.wait_for_url("**/")
    assert page.locator(".account-name").inner_text() == "guest"
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/accounts/login/")


def test_a_suggestion_starts_a_chat_which_appears_in_the_list(visit):
    """An empty page offers something to try; the new chat has an address and a place in the list."""
    chat = ChatPage(visit.open())
    chat.page.get_by_role("button", name="What is 2.5 + 39.5?").click()
    chat.wait_for_words("42")
    current = chat.page.locator(".threads a[aria-current]")
    chat.expect(current).to_contain_text("What is 2.5 + 39.5?")
    chat.expect(current).to_have_attribute("href", f"?thread={chat.thread_id()}")
    chat.page.get_by_role("button", name="New chat").click()
    chat.expect(chat.messages).to_have_count(0)
    chat.page.go_back()
    chat.wait_for_words("42")


def test_shift_enter_starts_a_line_and_enter_sends_but_not_while_a_word_is_composed(visit):
    """Enter belongs to the input method while a word is unfinished."""
    chat = ChatPage(visit.open())
    chat.prompt.fill("one")
    chat.prompt.press("Shift+Enter")
    chat.prompt.press_sequentially("two")
    composing = "new KeyboardEvent('keydown', {key: 'Enter', isComposing: true, bubbles: true, cancelable: true})"
    chat.prompt.evaluate(f"field => field.dispatchEvent({composing})")
    chat.expect(chat.messages).to_have_count(0)
    chat.prompt.press("Enter")
    chat.expect(chat.messages.first.locator(".text")).to_have_text("one\ntwo")
    chat.expect(chat.prompt).to_have_value("")
    chat.expect(chat.prompt).to_be_focused()


def test_the_end_is_followed_until_the_reader_scrolls_up(visit):
    """A reader who scrolled up is left alone, and comes back with the button."""
    chat = ChatPage(visit.open(viewport={"width": 900, "height": 420}))
    chat.ask(LONG_STORY)
    chat.wait_for_words("On day 12")
    assert chat.scrolled_to() < 5
    chat.expect(chat.jump).to_be_hidden()
    chat.log.evaluate("log => log.scrollTo(0, 0)")
    chat.expect(chat.jump).to_be_visible()
    chat.wait_for_words("On day 15")
    assert chat.log.evaluate("log => log.scrollTop") == 0
    chat.jump.click()
    chat.expect(chat.jump).to_be_hidden()
    chat.stop.click()
    chat.wait_for_rest()


def test_a_screen_reader_hears_the_answer_once_and_not_word_by_word(visit):
    """The log is silent; states and the whole answer are told by nodes of their own."""
    chat = ChatPage(visit.open())
    chat.ask("Think about it")
    chat.expect(chat.page.locator("durable-chat p.unseen[role=status]")).to_have_text(
        "The assistant is answering.", timeout=PATIENCE_MS
    )
    assert chat.page.locator("durable-chat [aria-live=polite]").inner_text() == ""
    chat.expect(chat.page.locator("durable-chat p.unseen[role=status]")).to_have_text(
        "The answer is complete.", timeout=PATIENCE_MS
    )
    chat.expect(chat.page.locator("durable-chat [aria-live=polite]")).to_contain_text("I thought about it")
    assert chat.page.get_by_role("log").get_attribute("aria-live") == "off"


def test_on_a_phone_the_list_is_a_drawer(visit):
    """It opens over the page, takes the focus, and gives it back."""
    chat = ChatPage(visit.open(**PHONE))
    sidebar = chat.page.locator("#sidebar")
    chat.expect(sidebar).not_to_be_in_viewport()
    chat.page.get_by_role("button", name="Show the list of chats").click()
    chat.expect(sidebar).to_be_in_viewport()
    chat.expect(chat.page.get_by_role("button", name="Close the list of chats")).to_be_focused()
    chat.page.keyboard.press("Escape")
    chat.expect(sidebar).not_to_be_in_viewport()
    chat.expect(chat.page.get_by_role("button", name="Show the list of chats")).to_be_focused()


def test_on_a_phone_nothing_is_too_small_or_too_wide(visit):
    """Everything to be touched is 44 pixels, and the page does not scroll sideways."""
    chat = ChatPage(visit.open(**PHONE))
    chat.ask("Add 1 and 2")
    chat.wait_for_words("3")
    chat.wait_for_rest()
    chat.page.locator("#open-drawer").click()
    boxes = chat.page.locator("button:visible, summary:visible, .threads a:visible").evaluate_all(
        "nodes => nodes.map(node => [node.outerHTML.slice(0, 80), node.offsetWidth, node.offsetHeight])"
    )
    assert [box for box in boxes if min(box[1:]) < FINGER_PX] == []
    assert chat.page.evaluate("document.documentElement.scrollWidth") <= PHONE["viewport"]["width"]
