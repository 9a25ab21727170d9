"""The chat in a real browser, against the real demo: worker processes, database, websocket and all."""

import os
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from demo_project.scripted_model import story
from tests.attachments.samples import PNG
from tests.browser.chat_page import LONG_STORY, PATIENCE_MS, STORY_BEGINS, WEATHER_AND_TIME, ChatPage

pytestmark = pytest.mark.browser

IMAGE = ("dot.png", PNG, "image/png")
TEXT = ("notes.txt", b"Milk", "text/plain")


def test_an_answer_with_two_tools_streams_and_survives_a_reload(visit):
    """The main job: words appear, both tools finish, and it is all there again afterwards."""
    chat = ChatPage(visit.open())
    chat.ask(WEATHER_AND_TIME)
    chat.expect(chat.page.locator(".live").first).to_be_visible(timeout=PATIENCE_MS)
    chat.wait_for_words("In Paris it is .* In Asia/Tokyo it is ")
    chat.wait_for_rest()
    shown = chat.words()
    chat.page.reload()
    for tool, name in enumerate(("get_weather", "get_time")):
        chat.expect(chat.tools.nth(tool)).to_contain_text(name)
        chat.expect(chat.tools.nth(tool)).to_contain_text("Done")
    chat.expect(chat.messages).to_have_count(2)
    assert chat.words() == shown


def test_a_tool_card_shows_input_and_output_when_opened(visit):
    """The card is closed at first and says what was asked and answered."""
    chat = ChatPage(visit.open())
    chat.ask("Add 2.5 and 39.5")
    card = chat.tools.first
    chat.expect(card).to_contain_text("Done", timeout=PATIENCE_MS)
    chat.expect(card.locator("[part=tool-output]")).to_be_hidden()
    card.locator("summary").click()
    chat.expect(card.locator("[part=tool-input]")).to_contain_text("39.5")
    chat.expect(card.locator("[part=tool-output]")).to_have_text("42")


def test_a_stopped_answer_keeps_what_was_said_and_can_go_on(visit):
    """Escape stops; the words stay, here and after a reload; the thread is stopped and offers to continue."""
    chat = ChatPage(visit.open())
    chat.ask(LONG_STORY)
    chat.wait_for_words("On day")
    chat.page.keyboard.press("Escape")
    chat.expect(chat.notice).to_contain_text("You stopped this answer.")
    chat.wait_for_rest()
    said = chat.words()
    assert said.startswith(STORY_BEGINS)
    chat.page.reload()
    chat.expect(chat.notice).to_contain_text("You stopped this answer.")
    assert chat.words() == said
    assert story().startswith(chat.stored_text())
    chat.expect(chat.page.locator(".threads a[aria-current]")).to_have_attribute("data-status", "stopped")
    chat.page.get_by_role("button", name="Continue").click()
    chat.expect(chat.stop).to_be_visible(timeout=PATIENCE_MS)
    chat.stop.click()
    chat.expect(chat.notice).to_be_visible()


def test_a_killed_worker_leaves_the_answer_once_in_the_open_page(visit, folder):
    """Another worker answers anew; the reader sees one story, not the torn one and the new one."""
    chat = ChatPage(visit.open())
    chat.ask(LONG_STORY)
    chat.wait_for_words("On day")
    stream = killed_stream(folder, chat.thread_id())
    wait_for_another_stream(folder, chat.thread_id(), stream)
    chat.wait_for_words("On day 8")
    assert chat.words().count(STORY_BEGINS) == 1
    chat.expect(chat.messages).to_have_count(2)
    chat.stop.click()
    chat.wait_for_rest()
    said = chat.words()
    chat.page.reload()
    chat.wait_for_words("On day")
    assert chat.words() == said
    assert said.count(STORY_BEGINS) == 1


def test_a_killed_web_server_is_only_a_pause(visit, demo):
    """The page says that it reconnects and goes on where it was; no word is missing or doubled."""
    chat = ChatPage(visit.open())
    chat.ask(LONG_STORY)
    chat.wait_for_words("On day 5")
    [web] = demo.children("daphne")
    web.kill()
    banner = chat.page.locator("[part=banner]")
    chat.expect(banner).to_have_text("Reconnecting…")
    chat.expect(banner).to_be_hidden(timeout=PATIENCE_MS)
    chat.wait_for_words("On day 12")
    chat.stop.click()
    chat.wait_for_rest()
    assert story().startswith(chat.stored_text())
    said = chat.words()
    chat.page.reload()
    chat.wait_for_words("On day 12")
    assert chat.words() == said
    visit.forgive("ERR_CONNECTION_REFUSED|WebSocket connection")


def test_a_second_tab_shows_the_same_while_it_happens(visit):
    """The server owns the conversation: both tabs follow it, and either may stop it."""
    first = ChatPage(visit.open())
    first.ask(LONG_STORY)
    first.wait_for_words("On day")
    second = ChatPage(visit.add_page(first.page.context, f"/#{first.thread_id()}"))
    second.wait_for_words("On day")
    second.stop.click()
    first.expect(first.notice).to_contain_text("You stopped this answer.", timeout=PATIENCE_MS)
    first.wait_for_rest()
    second.wait_for_rest()
    assert first.words() == second.words()


def test_what_somebody_writes_is_shown_as_text(visit):
    """Markup in a message is nothing but words."""
    chat = ChatPage(visit.open())
    hostile = "<img src=x onerror='window.owned = 1'><script>window.owned = 1</script> **not bold**"
    chat.ask(hostile)
    chat.expect(chat.messages.first.locator(".text")).to_have_text(hostile)
    chat.wait_for_rest()
    assert chat.page.locator(".messages img, .messages script").count() == 0
    assert chat.page.evaluate("window.owned") is None


def test_somebody_elses_chat_is_refused(visit):
    """A link to a chat of another user shows nothing of it."""
    owner = ChatPage(visit.open())
    owner.ask("Think about it")
    owner.wait_for_rest()
    guest = ChatPage(visit.open(f"/?thread={owner.thread_id()}", user="guest"), can_write=False)
    guest.expect(guest.notice).to_contain_text("There is no thread", timeout=PATIENCE_MS)
    guest.expect(guest.messages).to_have_count(0)


def test_files_that_were_sent_can_be_opened_and_images_are_seen(visit, demo):
    """Whoever sent them; the page allows nothing but the site's own files."""
    with demo.signed_in("demo") as client:
        sent = [client.post("/agents/attachments/", files={"file": file}).json() for file in (IMAGE, TEXT)]
        files = [{"type": "file", **{name: each[name] for name in ("mediaType", "url", "filename")}} for each in sent]
        parts = [{"type": "text", "text": "What is this?"}, *files]
        thread = client.post("/agents/threads/", json={"agent": "assistant", "parts": parts}).json()
    chat = ChatPage(visit.open(f"/?thread={thread['id']}"))
    chat.wait_for_rest()
    image, link = chat.page.get_by_alt_text("dot.png"), chat.page.get_by_role("link", name="notes.txt")
    chat.expect(image).to_be_visible()
    assert image.evaluate("async (image) => { await image.decode(); return image.naturalWidth; }") == 1
    answer = chat.page.request.get(link.get_attribute("href"))
    assert (answer.status, answer.text()) == (200, "Milk")


def killed_stream(folder: Path, thread_id: str) -> str:
    """Kill the worker that answers in this thread, without warning. Returns the id of the attempt it held."""
    stream, holder = held_stream(folder, thread_id)
    os.kill(int(holder.split(":")[-2]), signal.SIGKILL)
    return stream


def wait_for_another_stream(folder: Path, thread_id: str, stream: str) -> None:
    """Return once another attempt is under way."""
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while time.monotonic() < deadline:
        if held_stream(folder, thread_id)[0] not in {"", stream}:
            return
        time.sleep(0.1)
    raise AssertionError("Nobody took over the answer.")


def held_stream(folder: Path, thread_id: str) -> tuple[str, str]:
    """Return id and holder of the thread's attempt that is under way, or empty strings."""
    query = "SELECT id, lease_owner FROM durable_agents_stream WHERE thread_id = ? AND state = 'streaming'"
    with closing(sqlite3.connect(f"file:{folder / 'demo.sqlite3'}?mode=ro", uri=True)) as database:
        row = database.execute(query, [thread_id.replace("-", "")]).fetchone()
    return row or ("", "")
