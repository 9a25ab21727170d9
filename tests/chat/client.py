"""A client as the AI SDK's transport is one: it posts messages, and reads chunks while they come."""

import json
import threading
import time
from collections.abc import Callable
from typing import Any, Self

import httpx

Chunk = dict[str, Any]
SECONDS = 20


class Body:
    """One response, read in a thread of its own while it comes."""

    def __init__(self, client: httpx.Client, method: str, path: str, **options: Any) -> None:
        self.chunks: list[Chunk] = []
        self.comments: list[str] = []
        self.is_done = False
        """Whether it ended with `[DONE]`."""
        self.response: httpx.Response | None = None
        self.text = ""
        self._error: BaseException | None = None
        self._news = threading.Condition()
        self._is_closed = False
        self._hang_up = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(client, method, path, options), daemon=True)
        self._thread.start()

    def _read(self, client: httpx.Client, method: str, path: str, options: dict[str, Any]) -> None:
        try:
            with client.stream(method, path, **options) as response:
                self._note(lambda: setattr(self, "response", response))
                if response.status_code != 200:
                    self.text = response.read().decode()
                    return
                for line in response.iter_lines():
                    self._note(lambda line=line: self._take(line))
                    if self._hang_up.is_set():
                        return
        except BaseException as error:
            self._error = error
        finally:
            self._note(lambda: setattr(self, "_is_closed", True))

    def _note(self, what: Callable[[], Any]) -> None:
        with self._news:
            what()
            self._news.notify_all()

    def _take(self, line: str) -> None:
        if line == "data: [DONE]":
            self.is_done = True
        elif line.startswith("data: "):
            assert not self.is_done, "nothing follows the end"
            self.chunks.append(json.loads(line[len("data: ") :]))
        elif line.startswith(":"):
            self.comments.append(line)
        else:
            assert line == "" or line.startswith("id: "), line

    def until(self, kind: str, *, seconds: float = SECONDS) -> Self:
        """Wait until a chunk of this type has come."""
        with self._news:
            came = self._news.wait_for(lambda: kind in self.kinds or self._is_closed, seconds)
        assert kind in self.kinds, (
            f"{kind} did not come ({came}): {self.status} {self.text} {self.chunks} {self._error}"
        )
        return self

    def answered(self) -> Self:
        """Wait until the response has begun."""
        with self._news:
            self._news.wait_for(lambda: self.response is not None or self._is_closed, SECONDS)
        assert self.response is not None, self._error
        return self

    def ended(self, *, seconds: float = SECONDS) -> Self:
        """Wait until the body has ended."""
        self._thread.join(seconds)
        assert not self._thread.is_alive(), f"the response is still open: {self.chunks}"
        if self._error is not None:
            raise self._error
        return self

    def hang_up(self) -> None:
        """Close the connection at the next line."""
        self._hang_up.set()

    @property
    def is_open(self) -> bool:
        """Whether more may come."""
        return self._thread.is_alive()

    @property
    def status(self) -> int:
        """The HTTP status, once the response has begun; 0 before."""
        return 0 if self.response is None else self.response.status_code

    @property
    def problem(self) -> tuple[int, str]:
        """Status and code of an error."""
        body = json.loads(self.ended().text)
        assert set(body) == {"code", "detail"}
        return self.status, body["code"]

    @property
    def kinds(self) -> list[str]:
        """The types of the chunks."""
        return [chunk["type"] for chunk in self.chunks]

    @property
    def said(self) -> str:
        """All text."""
        return "".join(chunk["delta"] for chunk in self.chunks if chunk["type"] == "text-delta")

    def only(self, kind: str) -> Chunk:
        """The one chunk of this type."""
        [found] = [chunk for chunk in self.chunks if chunk["type"] == kind]
        return found


class Chatter:
    """Somebody who chats."""

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        self.client = httpx.Client(base_url=f"{url}/agents/", headers=headers, timeout=SECONDS, trust_env=False)

    def post(self, body: Any, *, path: str = "chat/chatty", **headers: str) -> Body:
        """POST this; text and bytes as they are."""
        raw = body if isinstance(body, str | bytes) else json.dumps(body)
        given = {"Content-Type": "application/json", **{name.replace("_", "-"): v for name, v in headers.items()}}
        return Body(self.client, "POST", path, content=raw, headers=given)

    def say(
        self, text: str, *, chat: str = "c1", message: str | None = "m1", path: str = "chat/chatty", **more: Any
    ) -> Body:
        """Send a message as the transport does."""
        return self.post(sending(text, chat=chat, message=message, **more), path=path)

    def resume(self, chat: str = "c1", *, path: str = "chat/{}/stream", **headers: str) -> Body:
        """GET the stream of a chat."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return Body(self.client, "GET", path.format(chat), headers=given)

    def stop(self, chat: str = "c1", body: Any = None, *, path: str = "chat/{}/stop") -> httpx.Response:
        """Stop a chat."""
        return (
            self.client.post(path.format(chat), json=body) if body is not None else self.client.post(path.format(chat))
        )


def user_message(text: str, message: str | None = "m1") -> dict[str, Any]:
    """Return a user's message as the AI SDK makes it."""
    named = {} if message is None else {"id": message}
    return {**named, "role": "user", "parts": [{"type": "text", "text": text}]}


def sending(text: str, *, chat: str = "c1", message: str | None = "m1", **more: Any) -> dict[str, Any]:
    """Return the body of a send."""
    return {"id": chat, "messages": [user_message(text, message)], "trigger": "submit-message"} | more


def wait_for(condition: Callable[[], Any], seconds: float = SECONDS) -> Any:
    """Wait until it holds."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.02)
    return value


HUGE = "x" * 262_145
"""More than a request may have that brings no history."""
