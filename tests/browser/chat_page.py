"""What a reader does and sees on the chat page."""

import re
from typing import Any

WEATHER_AND_TIME = "What is the weather in Paris and the time in Tokyo?"
LONG_STORY = "Tell me a long story"
STORY_BEGINS = "A long story, told slowly."
PATIENCE_MS = 30_000


class ChatPage:
    """The chat page in one tab."""

    def __init__(self, page: Any, *, can_write: bool = True) -> None:
        from playwright.sync_api import expect

        self.page = page
        self.expect = expect
        self.prompt = page.locator("durable-chat [part=field]")
        self.messages = page.locator(".messages > li")
        self.answer = page.locator('.messages > li[data-role="assistant"]').last
        self.tools = page.locator(".tool")
        self.stop = page.locator("durable-chat [part=stop]")
        self.notice = page.locator(".notice")
        self.jump = page.locator(".jump")
        self.log = page.locator(".log")
        self.expect(self.prompt).to_be_visible(visible=can_write, timeout=PATIENCE_MS)
        self.expect(self.log).to_have_attribute("aria-busy", "false", timeout=PATIENCE_MS)

    def ask(self, words: str) -> None:
        """Write a message and send it."""
        self.prompt.fill(words)
        self.prompt.press("Enter")

    def wait_for_words(self, pattern: str) -> None:
        """Wait until the last answer says something like this."""
        self.expect(self.answer).to_contain_text(re.compile(pattern), timeout=PATIENCE_MS)

    def wait_for_rest(self) -> None:
        """Wait until the answer is over, and all of it is shown: words that came at once appear one after the other."""
        self.expect(self.answer).to_have_attribute("aria-busy", "false", timeout=PATIENCE_MS)
        self.expect(self.answer.locator(".live")).to_have_count(0, timeout=PATIENCE_MS)
        self.expect(self.stop).to_be_hidden(timeout=PATIENCE_MS)

    def words(self) -> str:
        """Return what the last answer says."""
        return "\n".join(self.answer.locator(".text").all_inner_texts())

    def stored_text(self) -> str:
        """Return the text of the last answer as the API gives it."""
        messages = self.page.request.get(f"/agents/threads/{self.thread_id()}/messages/").json()["results"]
        return "".join(part["text"] for part in messages[-1]["parts"] if part["type"] == "text")

    def thread_id(self) -> str:
        """Return the id of the thread that is shown."""
        self.page.wait_for_url(re.compile("thread="))
        return str(self.page.evaluate("new URLSearchParams(location.search).get('thread')"))

    def scrolled_to(self) -> float:
        """Return how far below the visible part the end of the conversation is, in pixels."""
        return float(self.log.evaluate("log => log.scrollHeight - log.scrollTop - log.clientHeight"))
