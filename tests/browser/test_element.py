"""What `<durable-chat>` does besides following a thread, on the demo's own pages."""

import json
import sqlite3
from contextlib import closing
from typing import Any

import pytest

from tests.attachments.samples import PNG
from tests.browser.chat_page import LONG_STORY, PATIENCE_MS, STORY_BEGINS, ChatPage
from tests.browser.visits import Visit
from tests.demo.running import RunningDemo

pytestmark = pytest.mark.browser

REMOVE_AGENT = """
const {getSnapshot} = node.store, readOnly = {message: "Gone."};
node.store.getSnapshot = () => ({...getSnapshot(), readOnly});
"""
"""What the store says after the agent of its thread has been removed."""


def in_element(chat: ChatPage, script: str) -> Any:
    """Run a function with the element as its argument."""
    return chat.page.locator("durable-chat").evaluate(script)


def deny(chat: ChatPage, actions: str) -> None:
    """Put an element with the attribute `denied` in place of the element."""
    chat.thread_id()
    script = "(node, denied) => { const e = node.cloneNode(); e.setAttribute('denied', denied); node.replaceWith(e) }"
    chat.page.locator("durable-chat").evaluate(script, actions)


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


@pytest.mark.parametrize(
    ("locale", "reason"), [("en", "This assistant no longer exists."), ("de", "Diesen Assistenten")]
)
def test_a_thread_of_a_removed_agent_is_read_and_says_why_it_cannot_go_on(
    visit: Visit, demo: RunningDemo, locale: str, reason: str
) -> None:
    """There is no field to write in, and no button that would fail."""
    chat = ChatPage(visit.open(locale=locale))
    chat.ask("Add 1 and 2")
    chat.wait_for_rest()
    with closing(sqlite3.connect(demo.database)) as database, database:
        row = (chat.thread_id().replace("-", ""),)
        database.execute("UPDATE durable_agents_thread SET agent = 'gone', agent_is_public = 1 WHERE id = ?", row)
    chat.page.reload()
    chat.expect(chat.notice).to_contain_text(reason, timeout=PATIENCE_MS)
    chat.expect(chat.messages).to_have_count(2)
    chat.expect(chat.answer).to_contain_text("make 3" if locale == "en" else "ergeben 3")
    chat.expect(chat.prompt).to_be_hidden()
    chat.expect(chat.notice.get_by_role("button")).to_be_hidden()
    chat.expect(chat.page.locator("durable-chat [data-edit]")).to_have_count(0)
    chat.page.get_by_role("button", name="New chat" if locale == "en" else "Neue Unterhaltung").click()
    chat.expect(chat.prompt).to_be_visible()


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


def test_what_the_reader_may_not_do_is_not_offered_until_another_thread_is_shown(visit: Visit) -> None:
    """As the tag says in `denied`."""
    chat = ChatPage(visit.open())
    chat.ask("Add 1 and 2")
    chat.wait_for_rest()
    again = chat.page.get_by_role("button", name="Answer again")
    chat.expect(again).to_be_visible()
    deny(chat, "send edit")
    chat.wait_for_words("1 and 2 make 3")
    chat.expect(chat.prompt).to_be_hidden()
    chat.expect(again).to_have_count(0)
    in_element(chat, "node => node.openThread(null)")
    chat.expect(chat.prompt).to_be_visible()


def test_a_run_that_the_reader_may_not_stop_is_not_stopped(visit: Visit) -> None:
    """Neither by a button nor by the Escape key."""
    chat = ChatPage(visit.open())
    chat.ask(LONG_STORY)
    chat.expect(chat.stop).to_be_visible(timeout=PATIENCE_MS)
    deny(chat, "send stop")
    chat.wait_for_words(STORY_BEGINS)
    chat.expect(chat.stop).to_be_hidden()
    chat.log.press("Escape")
    assert in_element(chat, "({store}) => store.getSnapshot().isRunning && !store.getSnapshot().isStopping")
    in_element(chat, "node => node.removeAttribute('denied')")
    chat.expect(chat.stop).to_be_visible(timeout=PATIENCE_MS)
    chat.log.press("Escape")
    chat.wait_for_rest()


def test_a_reader_who_may_not_send_can_stop_and_sees_what_failed(visit: Visit) -> None:
    """The field is hidden; Stop and the texts of errors are not."""
    chat = ChatPage(visit.open())
    chat.ask(LONG_STORY)
    chat.wait_for_words(STORY_BEGINS)
    deny(chat, "send edit resume")
    chat.expect(chat.stop).to_be_visible(timeout=PATIENCE_MS)
    chat.expect(chat.prompt).to_be_hidden()
    chat.expect(chat.page.locator("durable-chat [part=send]")).to_be_hidden()
    failing = (
        "({store}) => { const {stop} = store; store.stop = async () => { store.stop = stop; throw Error('No.') } }"
    )
    in_element(chat, failing)
    chat.stop.click()
    chat.expect(chat.page.get_by_role("alert").filter(has_text="No.")).to_be_visible()
    chat.stop.click()
    chat.wait_for_rest()
    chat.expect(chat.page.locator("durable-chat .composer")).to_be_hidden()


def test_a_run_can_be_stopped_after_its_agent_was_removed(visit: Visit) -> None:
    """Nothing else can be done with the thread; what the messages offered before is gone."""
    chat = ChatPage(visit.open())
    chat.ask("Add 1 and 2")
    chat.wait_for_rest()
    in_element(chat, f"node => {{ {REMOVE_AGENT} }}")
    edit = chat.page.locator("durable-chat [data-edit]")
    chat.expect(edit).to_have_count(1)
    in_element(chat, "node => node.store.stop()")  # it renders what has changed
    chat.expect(chat.notice).to_contain_text("Gone.")
    chat.expect(edit).to_have_count(0)
    chat.page.get_by_role("button", name="New chat").click()
    chat.ask(LONG_STORY)
    chat.wait_for_words(STORY_BEGINS)
    in_element(chat, f"node => {{ {REMOVE_AGENT} }}")
    chat.expect(chat.prompt).to_be_hidden()
    chat.stop.click()
    chat.expect(chat.stop).to_be_hidden(timeout=PATIENCE_MS)


def test_who_may_not_send_gets_no_prompts_and_no_second_try(visit: Visit) -> None:
    """A button would only show that it fails."""
    chat = ChatPage(visit.open())
    chat.ask("Add 1 and 2")
    chat.wait_for_rest()
    in_element(chat, "({store}) => void store.send('Hello', {clientId: 'x'.repeat(300)}).catch(() => {})")
    again = chat.messages.last.get_by_role("button", name="Try again")
    chat.expect(again).to_be_visible(timeout=PATIENCE_MS)
    deny(chat, "send")
    chat.expect(chat.messages).to_have_count(3, timeout=PATIENCE_MS)
    chat.expect(again).to_have_count(0)
    in_element(chat, "node => { node.setAttribute('prompts', '[\"Add 1 and 2\"]'); node.parentElement.append(node) }")
    in_element(chat, "node => { node.openThread(null) }")
    prompt = chat.page.locator("durable-chat [part=prompt]")
    chat.expect(prompt).to_be_visible()
    in_element(chat, "node => { node.setAttribute('denied', 'send'); node.parentElement.append(node) }")
    chat.expect(prompt).to_be_hidden()


def test_the_conversation_has_the_focus_where_there_is_no_field(visit: Visit) -> None:
    """After an edit, and when the page sets the focus."""
    chat = ChatPage(visit.open())
    chat.ask("Add 1 and 2")
    chat.wait_for_rest()
    deny(chat, "send")
    for name in ("Cancel", "Save and send"):
        chat.page.get_by_role("button", name="Edit").click()
        chat.page.get_by_role("button", name=name).click()
        chat.expect(chat.log).to_be_focused()
    in_element(chat, "node => { document.activeElement.blur(); node.focusComposer() }")
    chat.expect(chat.log).to_be_focused()
    chat.wait_for_rest()


def test_denied_actions_belong_to_a_thread(visit: Visit) -> None:
    """They are forgotten with it, wherever the element is, and not if the same thread is set again."""
    chat = ChatPage(visit.open())
    chat.ask("Add 1 and 2")
    chat.wait_for_rest()
    deny(chat, "send")
    script = """(node) => {
        const seen = [];
        const set = (id) => { node.setAttribute("thread-id", id); seen.push(node.getAttribute("denied")); };
        const {threadId, parentElement} = node;
        set(threadId);
        node.remove();
        set(threadId);
        set(crypto.randomUUID());
        node.setAttribute("thread-id", threadId);
        node.setAttribute("denied", "send");
        parentElement.append(node);
        seen.push(node.getAttribute("denied"));
        return seen;
    }"""
    assert in_element(chat, script) == ["send", "send", None, "send"]
    chat.expect(chat.prompt).to_be_hidden()


def test_a_file_dropped_on_an_element_that_was_moved_is_attached_once(visit: Visit) -> None:
    """It can be moved as often as a page likes."""
    chat = ChatPage(visit.open())
    script = """(node) => {
        for (let count = 0; count < 3; count++) node.parentElement.append(node);
        const dataTransfer = new DataTransfer();
        dataTransfer.items.add(new File(["Hello"], "note.txt", {type: "text/plain"}));
        node.dispatchEvent(new DragEvent("drop", {dataTransfer, bubbles: true, cancelable: true}));
    }"""
    in_element(chat, script)
    chips = chat.page.locator("[part=attachment]")
    chat.expect(chips).to_have_count(1)
    chips.get_by_role("button").click()
    chat.expect(chips).to_have_count(0)
    chat.expect(chat.prompt).to_be_focused()


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


def test_what_a_script_sets_before_the_elements_own_script_is_kept(visit: Visit) -> None:
    """The functions of client tools, for one."""
    early = """document.addEventListener("readystatechange", () => {
        const chat = document.querySelector("durable-chat");
        chat.wasDefined = Boolean(customElements.get("durable-chat"));
        chat.clientTools = {pick_date: () => "2026-12-24"};
    }, {once: true})"""
    page = visit.open("/accounts/login/")
    page.context.add_init_script(early)
    page.goto("/examples/")
    chat = page.locator("durable-chat").first
    assert chat.evaluate("chat => chat.wasDefined") is False
    chat.locator("[part=field]").fill("Let me pick a date for the launch")
    chat.locator("[part=field]").press("Enter")
    chat.get_by_text("You picked Thursday, 24 December 2026").first.wait_for(timeout=PATIENCE_MS)


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
