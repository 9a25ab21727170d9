"""Whatever happens on the way, the page ends with the text of the stored transcript.

On SQLite with the poller, and on PostgreSQL with Redis, where TEST_DATABASE_URL and TEST_REDIS_URL name them:
`python -m pytest -n 0 -m browser tests/browser/test_transcripts.py`. CI runs what is not marked `slow`; `test_chat.py`
shows a part of the rest on SQLite.
"""

import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import UUID

import pytest

from demo_project.scripted_model import story
from tests.aisdk.stage import new_database
from tests.architecture.sources import ROOT
from tests.browser.cable import Cable
from tests.browser.chat_page import LONG_STORY, PATIENCE_MS, STORY_BEGINS, ChatPage
from tests.browser.visits import Visit
from tests.demo.running import RunningDemo, demo_environment
from tests.proof import FULL
from tests.workers import until

pytestmark = pytest.mark.browser

BOOK = "Book a table for four at Luigi's at 19:30"
CUT_MS = 5_000
MORE_THAN = """(count) =>
    document.querySelector("durable-chat").shadowRoot.querySelectorAll(".messages > li").length > count"""
HELD = "SELECT id, lease_owner FROM durable_agents_stream WHERE thread_id = {} AND state = 'streaming'"
FEW_LAYOUTS = 8
WATCH_MESSAGES = """(messages) => {
    window.changes = [];
    window.note = (records) => {
        for (const {type, target} of records) window.changes.push(`${type} ${target.nodeName}`);
        return window.changes;
    };
    window.observer = new MutationObserver(window.note);
    const all = {subtree: true, childList: true, attributes: true, characterData: true};
    for (const message of messages) window.observer.observe(message, all);
}"""
"""Notes what changes in these messages from now on."""
CHANGES = "() => window.note(window.observer.takeRecords())"
"""Returns what has changed in them."""
LOAD_OLDER = """async () => {
    const root = document.querySelector("durable-chat").shadowRoot;
    const [older, list] = [root.querySelector(".older"), root.querySelector(".messages")];
    const before = list.children.length;
    older.click();
    while (older.disabled || list.children.length === before) await new Promise(requestAnimationFrame);
    await new Promise(requestAnimationFrame);
}"""
"""Loads the messages before those that are shown."""
SHOWN = """(items) => items.map((item) => [
    item.dataset.role, [...item.querySelectorAll(".parts > .text")].map((text) => text.textContent),
])"""
RENDERED = """(chat, messages) => messages.map(({role, parts}) => [role, parts.map((text) => {
    if (role !== "assistant") return text;
    const element = document.createElement("div");
    chat.constructor.renderText(element, text);
    return element.textContent;
})])"""
"""What a page shows of stored texts."""


class Site:
    """The demo on one of the databases."""

    def __init__(self, demo: RunningDemo, env: dict[str, str]) -> None:
        self.demo = demo
        self.env = env

    def held(self, thread: str) -> tuple[str, str]:
        """Return id and holder of the attempt that is under way in this thread, or empty strings."""
        if url := self.env.get("DATABASE_URL"):
            import psycopg

            with psycopg.connect(url.replace("postgres://", "postgresql://")) as connection:
                row = connection.execute(HELD.format("%s").encode(), [UUID(thread)]).fetchone()
        else:
            with closing(sqlite3.connect(f"file:{self.demo.database}?mode=ro", uri=True)) as connection:
                row = connection.execute(HELD.format("?"), [UUID(thread).hex]).fetchone()
        return (str(row[0]), row[1]) if row else ("", "")


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def site(request: pytest.FixtureRequest, chromium: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Return the running demo, on a database of its own."""
    folder: Path = tmp_path_factory.mktemp("transcripts")
    if request.param == "sqlite":
        with RunningDemo(folder, "--port", "0") as demo:
            yield Site(demo, {})
        return
    database, redis = os.environ.get("TEST_DATABASE_URL"), os.environ.get("TEST_REDIS_URL")
    if not (database and redis):
        pytest.skip("TEST_DATABASE_URL and TEST_REDIS_URL name no servers")
    with new_database(database) as url:
        env = {"DATABASE_URL": url, "REDIS_URL": redis}
        with RunningDemo(folder, "--port", "0", **env) as demo:
            yield Site(demo, env)


@pytest.fixture
def visit(chromium: Any, site: Site) -> Iterator[Visit]:
    """Return what opens pages of this demo. The test fails where one of them throws or breaks the policy."""
    visit = Visit(chromium, site.demo.url)
    yield visit
    visit.close()
    assert visit.complaints == []


def stored(chat: ChatPage) -> list[list[Any]]:
    """Return role and texts of each stored message, as a page renders them."""
    path: str | None = f"/agents/threads/{chat.thread_id()}/messages/"
    messages = []
    while path:
        page = chat.page.request.get(path).json()
        messages += page["results"]
        path = page["next"]
    texts = [
        {"role": each["role"], "parts": [part["text"] for part in each["parts"] if part["type"] == "text"]}
        for each in messages
    ]
    rendered: list[list[Any]] = chat.page.locator("durable-chat").evaluate(RENDERED, texts)
    return rendered


def ends_as_stored(*tabs: ChatPage) -> None:
    """Check that each tab shows exactly the stored transcript."""
    for chat in tabs:
        chat.wait_for_rest()
    expected = stored(tabs[0])
    assert expected
    for chat in tabs:
        assert chat.messages.evaluate_all(SHOWN) == expected


def stop(chat: ChatPage) -> None:
    """Stop the answer."""
    chat.stop.click()
    chat.expect(chat.notice).to_contain_text("You stopped this answer.", timeout=PATIENCE_MS)


def telling(visit: Visit, words: str = "On day 2") -> ChatPage:
    """Open a page on which a long story is being told."""
    chat = ChatPage(visit.open())
    chat.ask(LONG_STORY)
    chat.wait_for_words(words)
    return chat


@pytest.mark.slow
def test_two_tabs_see_one_stream(visit: Visit) -> None:
    """The second comes in the middle, and stops it for both."""
    first = telling(visit)
    second = ChatPage(visit.add_page(first.page.context, f"/?thread={first.thread_id()}"))
    second.wait_for_words("On day 4")
    first.wait_for_words("On day 4")
    stop(second)
    ends_as_stored(first, second)


def test_a_page_is_reloaded_while_an_answer_streams(visit: Visit) -> None:
    """What was written before is there once, and the rest follows."""
    chat = telling(visit)
    chat.page.reload()
    chat.wait_for_words("On day 5")
    assert chat.words().count(STORY_BEGINS) == 1
    stop(chat)
    ends_as_stored(chat)


@pytest.mark.parametrize("breaks", [pytest.param(False, marks=pytest.mark.slow), True], ids=["silent", "broken"])
def test_the_network_is_cut_for_five_seconds(visit: Visit, breaks: bool) -> None:
    """Connections are silent, or broken and refused. The page goes on where it was."""
    with Cable(int(visit.url.rpartition(":")[2])) as cable:
        visit.url = cable.url
        chat = telling(visit)
        (cable.break_off if breaks else cable.freeze)()
        passed = cable.passed
        chat.page.wait_for_timeout(CUT_MS)
        assert cable.passed == passed
        banner = chat.page.locator("[part=banner]")
        chat.expect(banner).to_have_text("Reconnecting…" if breaks else "")
        cable.mend()
        chat.expect(banner).to_be_hidden(timeout=PATIENCE_MS)
        chat.wait_for_words("On day 12")
        stop(chat)
        ends_as_stored(chat)
        chat.page.close()
    visit.forgive("ERR_CONNECTION|ERR_EMPTY_RESPONSE|WebSocket connection")


@pytest.mark.slow
def test_a_worker_is_killed(visit: Visit, site: Site) -> None:
    """Another one goes on; the story is told once."""
    chat = telling(visit)
    stream, holder = site.held(chat.thread_id())
    os.kill(int(holder.split(":")[-2]), signal.SIGKILL)
    until(lambda: site.held(chat.thread_id())[0] not in {"", stream}, seconds=PATIENCE_MS / 1000)
    chat.wait_for_words("On day 8")
    assert chat.words().count(STORY_BEGINS) == 1
    stop(chat)
    ends_as_stored(chat)


@pytest.mark.slow
def test_the_web_server_is_restarted(visit: Visit, site: Site) -> None:
    """The page reconnects by itself; no word is missing or doubled."""
    chat = telling(visit)
    [web] = site.demo.children("daphne")
    web.kill()
    banner = chat.page.locator("[part=banner]")
    chat.expect(banner).to_have_text("Reconnecting…")
    chat.expect(banner).to_be_hidden(timeout=PATIENCE_MS)
    chat.wait_for_words("On day 8")
    stop(chat)
    assert story().startswith(chat.stored_text())
    ends_as_stored(chat)
    visit.forgive("ERR_CONNECTION_REFUSED|WebSocket connection")


def test_an_approval_in_one_tab_shows_in_the_other(visit: Visit) -> None:
    """The question goes away there, and the call and the answer follow."""
    first = ChatPage(visit.open())
    first.ask(BOOK)
    first.page.locator("[part=approval]").wait_for(timeout=PATIENCE_MS)
    second = ChatPage(visit.add_page(first.page.context, f"/?thread={first.thread_id()}"))
    second.page.locator("[part=approval]").wait_for(timeout=PATIENCE_MS)
    first.page.locator("[part=approval]").get_by_role("button", name="Approve").click()
    second.expect(second.page.locator("[part=approval]")).to_have_count(0, timeout=PATIENCE_MS)
    for chat in (first, second):
        chat.wait_for_words("Your table is booked")
        chat.expect(chat.tools).to_contain_text("Done")
    ends_as_stored(first, second)


@pytest.mark.slow
def test_an_answer_is_stopped(visit: Visit) -> None:
    """What was said stays, also after a reload."""
    chat = telling(visit)
    stop(chat)
    ends_as_stored(chat)
    chat.page.reload()
    ends_as_stored(chat)


def test_ten_threads_are_switched_quickly(visit: Visit, site: Site) -> None:
    """Ten times in an order by chance, without waiting, while one of them streams. Each shows its own text."""
    chat = telling(visit)
    threads = [chat.thread_id()]
    with site.demo.signed_in("demo") as client:
        for number in range(1, 10):
            answer = client.post("/agents/threads/", json={"agent": "assistant", "prompt": f"Add {number} and 100"})
            threads.append(answer.json()["id"])
    element, chance = chat.page.locator("durable-chat"), random.Random(16)
    for _ in range(10):
        for thread in chance.sample(threads, len(threads)):
            element.evaluate("(chat, id) => chat.openThread(id)", thread)
    for number, thread in enumerate(threads):
        element.evaluate("(chat, id) => chat.openThread(id)", thread)
        chat.wait_for_words(f"{number} and 100 make {number + 100}" if number else "On day 6")
        if not number:
            stop(chat)
        ends_as_stored(chat)


def long_thread(visit: Visit, site: Site, count: int) -> ChatPage:
    """Open a thread of this many messages, half of them answers in Markdown."""
    environment = demo_environment(site.demo.database.parent) | site.env
    command = [sys.executable, "-m", "tests.browser.long_thread", "demo", str(count)]
    made = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
    return ChatPage(visit.open(f"/?thread={made.stdout.strip()}"))


@pytest.mark.timeout(1800)
def test_a_long_thread_is_read_to_its_beginning(visit: Visit, site: Site) -> None:
    """Page by page. With PROOF=full, it has 5,000 messages."""
    count = 5_000 if FULL else 300
    chat = long_thread(visit, site, count)
    older = chat.page.locator("durable-chat .older")
    times = []
    while (shown := chat.messages.count()) < count:
        begun = monotonic()
        older.click()
        chat.page.wait_for_function(MORE_THAN, arg=shown, timeout=PATIENCE_MS)
        chat.expect(older).to_be_enabled()
        times.append(monotonic() - begun)
    chat.expect(older).to_be_hidden()
    print(f"{len(times)} pages, in seconds: {' '.join(f'{seconds:.2f}' for seconds in times)}")
    ends_as_stored(chat)
    chat.ask("Add 1 and 2")
    chat.wait_for_words("1 and 2 make 3")
    ends_as_stored(chat)
    assert chat.messages.count() == count + 2


def test_earlier_messages_are_laid_out_together(visit: Visit, site: Site) -> None:
    """One page of them costs a few layouts of the conversation, not one for each message. No other message changes."""
    chat = long_thread(visit, site, 150)
    metrics = chat.page.context.new_cdp_session(chat.page)
    metrics.send("Performance.enable")
    layouts = []
    for shown in (50, 100):
        chat.expect(chat.messages).to_have_count(shown)
        chat.page.wait_for_timeout(500)
        chat.messages.evaluate_all(WATCH_MESSAGES)
        before = layout_count(metrics)
        chat.page.evaluate(LOAD_OLDER)
        layouts.append(layout_count(metrics) - before)
        assert chat.page.evaluate(CHANGES) == []
    chat.expect(chat.messages).to_have_count(150)
    assert max(layouts) <= FEW_LAYOUTS


def test_a_run_changes_no_message_but_the_last_answer(visit: Visit, site: Site) -> None:
    """Earlier messages cannot be edited while it lasts, and can be edited afterwards."""
    chat = long_thread(visit, site, 40)
    chat.expect(chat.messages).to_have_count(40)
    question, last_answer = chat.messages.nth(0), chat.messages.nth(39)
    chat.expect(last_answer.get_by_role("button", name="Answer again")).to_have_count(1)
    chat.page.locator(".messages > li:nth-child(-n + 39)").evaluate_all(WATCH_MESSAGES)
    chat.expect(question.locator("[data-edit]")).to_be_visible()
    chat.ask(LONG_STORY)
    chat.wait_for_words("On day 2")
    chat.expect(question.locator("[data-edit]")).to_be_hidden()
    chat.expect(last_answer.get_by_role("button", name="Answer again")).to_have_count(0)
    stop(chat)
    chat.expect(question.locator("[data-edit]")).to_be_visible()
    assert chat.page.evaluate(CHANGES) == []


def layout_count(metrics: Any) -> int:
    """Return how many layouts the page has had."""
    values = {each["name"]: each["value"] for each in metrics.send("Performance.getMetrics")["metrics"]}
    return int(values["LayoutCount"])
