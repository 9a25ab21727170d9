"""Visits to the site in a real browser: pages on screens of several sizes, and what they complain about."""

import re
from typing import Any

DESKTOP = {"viewport": {"width": 1280, "height": 800}}
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}


class Visit:
    """The visits of one test: pages that are closed after it, and what they complained about."""

    def __init__(self, chromium: Any, url: str) -> None:
        self.complaints: list[str] = []
        self.url = url.rstrip("/")
        self._chromium = chromium
        self._contexts: list[Any] = []

    def open(self, path: str = "/", *, user: str | None = "demo", **options: Any) -> Any:
        """Open a page, signed in as the user whose password is his name."""
        context = self._chromium.new_context(base_url=self.url, **(DESKTOP | options))
        self._contexts.append(context)
        if user is not None:
            sign_in(context, user)
        return self.add_page(context, path)

    def add_page(self, context: Any, path: str) -> Any:
        """Open one more page beside the others of a context."""
        page = context.new_page()
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda line: line.type == "error" and self.complaints.append(complaint(line)))
        page.goto(path)
        return page

    def forgive(self, pattern: str) -> None:
        """Leave out complaints that this test brought about."""
        self.complaints = [line for line in self.complaints if not re.search(pattern, line)]

    def close(self) -> None:
        """Close everything that was opened."""
        for context in self._contexts:
            context.close()


def complaint(line: Any) -> str:
    """Return what a line of the console says, and about which address."""
    return f"{line.text} ({line.location['url']})"


def sign_in(context: Any, user: str, *, at: str = "/accounts/login/") -> None:
    """Give the context the session of this user, with the form at this path."""
    context.request.get(at)
    token = next(cookie["value"] for cookie in context.cookies() if cookie["name"] == "csrftoken")
    form = {"username": user, "password": user, "csrfmiddlewaretoken": token, "next": "/"}
    answer = context.request.post(at, form=form, max_redirects=0)
    assert answer.status == 302, answer.text()


FINGER_PX = 44
