"""A running demo and a real Chromium whose pages allow nothing but the site's own files."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.demo.running import RunningDemo

STRICT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; require-trusted-types-for 'script'"
)
DESKTOP = {"viewport": {"width": 1280, "height": 800}}
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where the demo of the browser tests keeps its database, `demo.sqlite3`."""
    return tmp_path_factory.mktemp("browser")


@pytest.fixture(scope="session")
def demo(chromium: Any, folder: Path) -> Iterator[RunningDemo]:
    """Return a running demo on a database of its own; the browser tests share it."""
    with RunningDemo(folder, "--port", "0") as running:
        yield running


class Visit:
    """The visits of one test: pages that are closed after it, and what they complained about."""

    def __init__(self, chromium: Any, url: str) -> None:
        self.complaints: list[str] = []
        self.url = url.rstrip("/")
        self._chromium = chromium
        self._contexts: list[Any] = []

    def open(self, path: str = "/", *, user: str | None = "demo", **options: Any) -> Any:
        """Open a page, signed in as the user whose password is his name, under the strict policy."""
        context = self._chromium.new_context(base_url=self.url, **(DESKTOP | options))
        self._contexts.append(context)
        if user is not None:
            sign_in(context, user)
        return self.add_page(context, path)

    def add_page(self, context: Any, path: str) -> Any:
        """Open one more page beside the others of a context."""
        page = context.new_page()
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda line: line.type == "error" and self.complaints.append(line.text))
        if context.cookies():  # the sign-in redirects, which an intercepted request cannot
            page.route(lambda url: True, under_strict_policy)
        page.goto(path)
        return page

    def forgive(self, pattern: str) -> None:
        """Leave out complaints that this test brought about."""
        self.complaints = [line for line in self.complaints if not re.search(pattern, line)]

    def close(self) -> None:
        """Close everything that was opened."""
        for context in self._contexts:
            context.close()


@pytest.fixture
def visit(chromium: Any, demo: RunningDemo) -> Iterator[Visit]:
    """Return what opens pages. The test fails where one of them throws or breaks the policy."""
    visit = Visit(chromium, demo.url)
    yield visit
    visit.close()
    assert visit.complaints == []


def sign_in(context: Any, user: str) -> None:
    """Give the context the session of this user."""
    context.request.get("/accounts/login/")
    token = next(cookie["value"] for cookie in context.cookies() if cookie["name"] == "csrftoken")
    form = {"username": user, "password": user, "csrfmiddlewaretoken": token, "next": "/"}
    answer = context.request.post("/accounts/login/", form=form, max_redirects=0)
    assert answer.status == 302, answer.text()


def under_strict_policy(route: Any) -> None:
    """Serve pages with the strict Content-Security-Policy; anything else goes on as it is."""
    if route.request.resource_type != "document":
        route.continue_()
        return
    response = route.fetch()
    route.fulfill(response=response, headers={**response.headers, "content-security-policy": STRICT_POLICY})
