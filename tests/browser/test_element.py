"""What `<durable-chat>` does besides following a thread, on the demo's own pages."""

import json
import re
from typing import Any

import pytest

from tests.architecture.sources import ROOT
from tests.attachments.samples import PNG
from tests.browser.chat_page import PATIENCE_MS, ChatPage
from tests.browser.visits import Visit

pytestmark = pytest.mark.browser

AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"


def in_element(chat: ChatPage, script: str) -> Any:
    """Run a function with the element as its argument."""
    return chat.page.locator("durable-chat").evaluate(script)


def test_a_draft_survives_a_reload_and_belongs_to_its_thread(visit: Visit) -> None:
    """What was written and not sent is there again, and not in another chat."""
    chat = ChatPage(visit.open())
    chat.ask("Add 1 and 2")
    chat.wait_for_rest()
    chat.prompt.fill("Not yet sent")
    chat.page.reload()
    chat.expect(chat.prompt).to_have_value("Not yet sent")
    chat.page.get_by_role("button", name="New chat").click()
    chat.expect(chat.prompt).to_have_value("")
    chat.page.go_back()
    chat.expect(chat.prompt).to_have_value("Not yet sent")


def test_a_message_is_edited_and_an_answer_made_anew(visit: Visit) -> None:
    """By the Up key and by button; what came after is replaced."""
    chat = ChatPage(visit.open())
    chat.ask("Add 1 and 2")
    chat.wait_for_rest()
    chat.prompt.press("ArrowUp")
    field = chat.page.get_by_label("Edit", exact=True).and_(chat.page.locator("textarea"))
    chat.expect(field).to_be_focused()
    field.fill("Add 20 and 22")
    chat.page.get_by_role("button", name="Save and send").click()
    chat.wait_for_words("20 and 22 make 42")
    chat.wait_for_rest()
    chat.expect(chat.messages).to_have_count(2)
    answer = chat.answer.evaluate_handle("node => node")
    chat.page.get_by_role("button", name="Answer again").click()
    chat.page.wait_for_function("node => !node.isConnected", arg=answer, timeout=PATIENCE_MS)
    chat.wait_for_words("20 and 22 make 42")
    chat.expect(chat.messages).to_have_count(2)


def test_a_file_is_attached_sent_and_seen(visit: Visit) -> None:
    """It can be taken out again before; a chosen file alone may be sent."""
    chat = ChatPage(visit.open())
    picker = chat.page.locator("durable-chat input[type=file]")
    picker.set_input_files([{"name": "dot.png", "mimeType": "image/png", "buffer": PNG}] * 2)
    chips = chat.page.locator("[part=attachment]")
    chat.expect(chips).to_have_count(2)
    chat.page.get_by_role("button", name="Remove: dot.png").first.click()
    chat.expect(chips).to_have_count(1)
    chat.expect(chat.page.locator("[part=send]")).to_be_enabled()
    chat.page.locator("[part=send]").click()
    chat.expect(chat.messages.first.get_by_alt_text("dot.png")).to_be_visible(timeout=PATIENCE_MS)
    chat.expect(chips).to_have_count(0)


def test_changed_arguments_are_what_runs(visit: Visit) -> None:
    """And what is no JSON is refused before it is sent."""
    chat = ChatPage(visit.open())
    chat.ask("Book a table for four at Luigi's at 19:30")
    form = chat.page.locator("[part=approval]")
    arguments = form.get_by_label("Arguments")
    arguments.fill("{", timeout=PATIENCE_MS)
    form.get_by_role("button", name="Approve").click()
    chat.expect(form.get_by_role("alert")).to_have_text("The arguments are not valid JSON.")
    arguments.fill(json.dumps({"restaurant": "Luigi's", "people": 6, "time": "20:00"}))
    form.get_by_role("button", name="Approve").click()
    chat.wait_for_words("Luigi's, 6 people, 20:00")


def test_the_page_is_told_what_happens_and_can_act(visit: Visit) -> None:
    """By events and methods."""
    chat = ChatPage(visit.open())
    names = ["ready", "response-start", "response-end", "thread-change", "tool-call"]
    script = (
        "(chat) => { window.told = []; for (const name of NAMES) chat.addEventListener(name, () => told.push(name)); }"
    )
    in_element(chat, script.replace("NAMES", json.dumps(names)))
    in_element(chat, "async (chat) => { await chat.sendMessage('Book a table for two at Luigi\\'s at 18:00'); }")
    chat.page.locator("[part=approval]").wait_for(timeout=PATIENCE_MS)
    in_element(chat, "(chat) => { chat.setDraft('Hello'); chat.focusComposer(); }")
    chat.expect(chat.prompt).to_have_value("Hello")
    chat.expect(chat.prompt).to_be_focused()
    told = chat.page.evaluate("told")
    assert told[0] == "thread-change"
    assert {"ready", "tool-call"} <= set(told)


@pytest.mark.parametrize("transport", ["sse", "polling"])
def test_without_websockets_an_answer_streams_and_can_be_stopped(visit: Visit, transport: str) -> None:
    """By server-sent events, and where a server cannot stream, by polling."""
    page = visit.open()
    replace = """(name) => {
        const chat = document.getElementById("chat");
        const other = chat.cloneNode();
        other.setAttribute("transport", name);
        chat.replaceWith(other);
    }"""
    page.evaluate(replace, transport)
    chat = ChatPage(page)
    chat.ask("Tell me a long story")
    chat.wait_for_words("On day 5")
    chat.stop.click()
    chat.wait_for_rest()
    chat.expect(chat.notice).to_contain_text("You stopped this answer.")


def test_chats_on_one_page_have_threads_of_their_own(visit: Visit) -> None:
    """What is asked in one is not seen in the other."""
    page = visit.open("/examples/")
    first, second = page.locator("durable-chat").all()
    first.locator("[part=field]").fill("Add 1 and 2")
    first.locator("[part=field]").press("Enter")
    first.locator("[data-role=assistant] .text").first.wait_for(timeout=PATIENCE_MS)
    assert second.locator(".messages > li").count() == 0


def test_the_react_page_answers_without_a_build_step(visit: Visit) -> None:
    """Its import map carries a nonce, and nothing of the policy is broken."""
    from playwright.sync_api import expect

    page = visit.open("/examples/react/")
    page.get_by_label("Message").fill("Add 1 and 2")
    page.get_by_label("Message").press("Enter")
    expect(page.locator("li").last).to_contain_text("1 and 2 make 3", timeout=PATIENCE_MS)
    page.reload()
    expect(page.locator("li").last).to_contain_text("1 and 2 make 3", timeout=PATIENCE_MS)


@pytest.mark.parametrize("path", ["/", "/examples/", "/examples/react/"])
def test_axe_finds_nothing(visit: Visit, path: str) -> None:
    """On the chat with a question that waits, on the examples, and on the React page."""
    if not AXE.is_file():
        pytest.skip("axe-core is not installed: npm ci")
    page = visit.open("/accounts/login/")
    if path == "/":
        chat = ChatPage(visit.add_page(page.context, "/"))
        chat.ask("Book a table for four at Luigi's at 19:30")
        chat.page.locator("[part=approval]").wait_for(timeout=PATIENCE_MS)
        path = f"/?thread={chat.thread_id()}"
    tolerant = page.context.browser.new_context(
        base_url=visit.url, bypass_csp=True, storage_state=page.context.storage_state()
    )
    page = tolerant.new_page()
    page.goto(path)
    page.wait_for_load_state("networkidle")
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run()")["violations"]
    tolerant.close()
    assert [(each["id"], [node["target"] for node in each["nodes"]]) for each in found] == []


def test_without_scripts_the_last_messages_can_be_read(visit: Visit) -> None:
    """The server renders them inside the tag."""
    chat = ChatPage(visit.open())
    chat.ask("Add 1 and 2")
    chat.wait_for_rest()
    state = chat.page.context.storage_state()
    context = chat.page.context.browser.new_context(base_url=visit.url, java_script_enabled=False, storage_state=state)
    page = context.new_page()
    page.goto(f"/?thread={chat.thread_id()}")
    said = page.locator("durable-chat").inner_text()
    context.close()
    assert re.search("Add 1 and 2.*1 and 2 make 3", said, re.DOTALL)
