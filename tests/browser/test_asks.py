"""Calls that wait for the reader: they are asked on the page, readable and by keyboard, and the run goes on."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.browser.chat_page import PATIENCE_MS, ChatPage
from tests.browser.visits import FINGER_PX, PHONE

pytestmark = pytest.mark.browser

BOOK = "Book a table for four at Luigi's at 19:30"
ASK = "Ask a colleague: do we ship on Friday?"
PICK = "Let me pick a date for the launch"


def bookings(folder: Path) -> list[tuple[Any, ...]]:
    """Return what is booked, as the demo's database has it."""
    with closing(sqlite3.connect(folder / "demo.sqlite3")) as database:
        return database.execute("SELECT restaurant, people, time FROM demo_project_booking ORDER BY id").fetchall()


def asked(chat: ChatPage, words: str) -> Any:
    """Say something that leads to a question, and return its form."""
    chat.ask(words)
    form = chat.page.locator("[part=approval], [part=client-tool]")
    chat.expect(form).to_be_visible(timeout=PATIENCE_MS)
    return form


def test_an_approved_booking_is_made_and_seen(visit, folder):
    """Nothing is booked before; the form shows the arguments, and survives a reload."""
    before = bookings(folder)
    chat = ChatPage(visit.open())
    asked(chat, BOOK)
    chat.page.reload()
    form = chat.page.get_by_role("group", name="Approve: book table")
    arguments = form.get_by_label("Arguments")
    assert json.loads(arguments.input_value()) == {"restaurant": "Luigi's", "people": 4, "time": "19:30"}
    chat.expect(chat.tools).to_contain_text("Waits for you")
    assert bookings(folder) == before
    form.get_by_role("button", name="Approve").click()
    chat.wait_for_words("Your table is booked: Luigi's, 4 people, 19:30")
    chat.expect(chat.tools).to_contain_text("Done")
    chat.expect(form).to_have_count(0)
    assert bookings(folder) == [*before, ("Luigi's", 4, "19:30")]
    assert "Luigi&#x27;s" in chat.page.request.get("/admin/demo_project/booking/").text()


def test_a_rejected_booking_is_not_made_and_the_assistant_is_told_why(visit, folder):
    """By keyboard alone; Enter in the note is no approval."""
    before = bookings(folder)
    chat = ChatPage(visit.open())
    form = asked(chat, BOOK)
    form.get_by_label("Note to the assistant").focus()
    chat.page.keyboard.type("Too far <b>away</b>.")
    chat.page.keyboard.press("Enter")
    chat.page.keyboard.press("Tab")
    chat.page.keyboard.press("Tab")
    chat.expect(form.get_by_role("button", name="Reject")).to_be_focused()
    chat.page.keyboard.press("Enter")
    chat.wait_for_words("You said: Too far <b>away</b>")
    chat.expect(chat.tools).to_contain_text("Rejected")
    assert bookings(folder) == before


def test_arguments_are_shown_as_text(visit):
    """Whatever the model was talked into writing there."""
    chat = ChatPage(visit.open())
    form = asked(chat, "Book a table at <img src=x onerror=alert(1)>")
    arguments = json.loads(form.get_by_label("Arguments").input_value())
    assert arguments["restaurant"] == "<img src=x onerror=alert(1)>"
    assert chat.page.locator(".messages img").count() == 0


def test_a_decision_in_one_tab_takes_the_question_from_the_other(visit):
    """Whoever comes second finds nothing to decide."""
    chat = ChatPage(visit.open())
    form = asked(chat, BOOK)
    other = ChatPage(visit.add_page(chat.page.context, f"/?thread={chat.thread_id()}"))
    other.expect(other.page.locator("[part=approval], [part=client-tool]")).to_be_visible()
    form.get_by_role("button", name="Reject").click()
    other.expect(other.page.locator("[part=approval], [part=client-tool]")).to_have_count(0, timeout=PATIENCE_MS)
    other.expect(other.tools).to_contain_text("Rejected")


def test_a_colleague_answers_and_what_he_writes_is_text(visit):
    """However hostile; an empty answer is not sent."""
    chat = ChatPage(visit.open())
    form = asked(chat, ASK)
    chat.expect(form).to_contain_text("Do we ship on Friday?")
    form.get_by_role("button", name="Send answer").click()
    chat.expect(form).to_be_visible()
    form.get_by_label("Answer").fill("Yes <img src=x onerror=alert(1)>")
    form.get_by_role("button", name="Send answer").click()
    chat.wait_for_words("Your colleague says: Yes <img src=x onerror=alert")
    chat.tools.locator("summary").click()
    chat.expect(chat.tools.locator("[part=tool-output]")).to_have_text("Yes <img src=x onerror=alert(1)>")
    assert chat.page.locator(".messages img").count() == 0


def test_a_date_is_picked_or_not(visit):
    """The browser's own picker; skipping it is told to the assistant."""
    chat = ChatPage(visit.open())
    form = asked(chat, PICK)
    chat.expect(form).to_contain_text("Date for the launch")
    form.get_by_label("Date", exact=True).fill("2026-12-24")
    form.get_by_role("button", name="Use this date").click()
    chat.wait_for_words("You picked Thursday, 24 December 2026")
    asked(chat, PICK).get_by_role("button", name="Skip").click()
    chat.wait_for_words("The user picked no date")


def test_leaving_a_field_with_escape_does_not_end_the_run(visit):
    """And a new message goes on without the answer."""
    chat = ChatPage(visit.open())
    form = asked(chat, BOOK)
    chat.expect(chat.page.locator("durable-chat p.unseen[role=status]")).to_have_text("Waits for you: book table")
    form.get_by_label("Note to the assistant").press("Escape")
    chat.expect(form).to_be_visible()
    chat.ask("Add 1 and 2")
    chat.wait_for_words("1 and 2 make 3")
    chat.expect(form).to_have_count(0)


def test_a_question_takes_the_focus_only_from_who_writes_nothing(visit):
    """So that a screen reader says it, and nobody is torn from a sentence."""
    chat = ChatPage(visit.open())
    chat.prompt.focus()
    chat.expect(asked(chat, BOOK)).to_be_focused()
    chat.page.get_by_role("button", name="New chat").click()
    chat.ask(PICK)
    chat.prompt.press_sequentially("By the way")
    chat.expect(chat.page.locator("[part=approval], [part=client-tool]")).to_be_visible(timeout=PATIENCE_MS)
    chat.expect(chat.prompt).to_be_focused()


def test_how_far_a_call_is_can_be_seen(visit):
    """On the closed card, and no more when it is done."""
    chat = ChatPage(visit.open())
    chat.ask("Count to ten")
    chat.expect(chat.tools.locator(".progress span")).to_contain_text("/ 10", timeout=PATIENCE_MS)
    share = chat.tools.locator("progress").evaluate("bar => bar.value / bar.max")
    assert 0 <= share < 1
    chat.wait_for_words("I counted to 10")
    chat.expect(chat.tools.locator(".progress")).to_be_hidden()


def test_on_a_phone_a_question_fits(visit):
    """Fingers hit its buttons, and the page does not scroll sideways."""
    chat = ChatPage(visit.open(**PHONE))
    form = asked(chat, BOOK)
    boxes = form.locator("button, textarea, input").evaluate_all("nodes => nodes.map(node => node.offsetHeight)")
    assert min(boxes) >= FINGER_PX
    assert chat.page.evaluate("document.documentElement.scrollWidth") <= PHONE["viewport"]["width"]
