"""The site's own policy in a real browser: the pages live with it, and what is injected into one does nothing."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.browser.chat_page import PATIENCE_MS, WEATHER_AND_TIME, ChatPage
from tests.browser.visits import Visit

pytestmark = pytest.mark.browser

NOTE_VIOLATIONS = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => window.violations.push(event.effectiveDirective));
"""
INJECTED = """
<script>window.owned = "script";</script>
<script src="data:text/javascript,window.owned='data'"></script>
<script src="{elsewhere}/script.js"></script>
<img src="nothing" onerror="window.owned = 'handler'">
<img src="{elsewhere}/image.png">
<link rel="stylesheet" href="{elsewhere}/style.css">
<style>durable-chat {{ display: none; }}</style>
<iframe src="{elsewhere}/frame"></iframe>
<object data="{elsewhere}/object"></object>
<base href="{elsewhere}/">
<a id="bait" href="javascript:window.owned = 'link'" style="position: fixed; inset: 0">Click here</a>
<form action="{elsewhere}/form" method="post"><button id="trap">Send</button></form>
"""
BLOCKED = {
    "base-uri",
    "form-action",
    "frame-src",
    "img-src",
    "object-src",
    "script-src-attr",
    "script-src-elem",
    "style-src-attr",
    "style-src-elem",
}


class Elsewhere(ThreadingHTTPServer):
    """A server on another origin that records the paths of the requests it gets."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Noting)
        self.asked: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Noting(BaseHTTPRequestHandler):
    """Answers every request with an empty response."""

    def do_GET(self) -> None:
        """Record the path, and allow any origin to read the response."""
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Access-Control-Allow-Origin", "*")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        """Record the path, as for GET."""
        self.do_GET()

    def log_message(self, *args: object) -> None:
        """Log nothing."""


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    """Return another site on this host."""
    with Elsewhere() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def watched(visit: Visit, path: str = "/", **options: Any) -> Any:
    """Open a page that notes violations of its policy."""
    page = visit.open("/accounts/login/", **options)
    page.add_init_script(NOTE_VIOLATIONS)
    response = page.goto(path)
    assert "script-src 'self';" in response.headers["content-security-policy"]
    return page


def inject(page: Any, markup: str) -> None:
    """Put `markup` into the next pages, as a hole in a template would; their headers stay as the site sends them."""

    def with_markup(route: Any) -> None:
        if route.request.resource_type != "document":
            return route.continue_()
        response = route.fetch()
        return route.fulfill(response=response, body=response.text().replace("</main>", f"</main>{markup}"))

    page.route(lambda url: True, with_markup)


def test_the_chat_works_without_a_violation(visit):
    """With tools, a form, code, and a reload."""
    chat = ChatPage(watched(visit))
    chat.ask(WEATHER_AND_TIME)
    chat.wait_for_words("In Paris it is .* In Asia/Tokyo it is ")
    chat.wait_for_rest()
    chat.tools.first.locator("summary").click()
    chat.ask("Book a table for four at Luigi's at 19:30")
    chat.page.get_by_role("button", name="Approve").click(timeout=PATIENCE_MS)
    chat.wait_for_rest()
    assert chat.page.evaluate("window.violations") == []
    chat.page.reload()
    chat.expect(chat.messages).to_have_count(4)
    assert chat.page.evaluate("window.violations") == []


@pytest.mark.parametrize(
    "path",
    [
        "/accounts/login/",
        "/accounts/password_change/",
        "/agents/schema/",
        "/admin/",
        "/admin/durable_agents/thread/",
        "/admin/durable_agents/toolcall/inbox/",
        "/admin/auth/user/1/change/",
    ],
)
def test_the_other_pages_open_without_a_violation(visit, path):
    """Sign-in, the API's page, and the admin with its scripts."""
    page = watched(visit, path)
    page.wait_for_load_state("networkidle")
    assert page.evaluate("window.violations") == []
    visit.forgive("404")  # the icon of pages that name none


def test_a_thread_in_the_admin_opens_and_acts_without_a_violation(visit, demo):
    """Its buttons are forms to the site itself."""
    chat = ChatPage(visit.open())
    chat.ask("Think about it")
    chat.wait_for_rest()
    page = watched(visit, f"/admin/durable_agents/thread/{chat.thread_id()}/change/")
    page.get_by_role("button", name="Fork").click()
    page.locator(".messagelist .success").wait_for()
    assert page.evaluate("window.violations") == []


def test_what_is_injected_into_the_chat_page_does_nothing(visit, elsewhere):
    """No script of it runs, no style of it counts, and nobody elsewhere hears of it."""
    page = watched(visit)
    inject(page, INJECTED.format(elsewhere=elsewhere.url))
    page.goto("/")
    chat = ChatPage(page)
    chat.expect(chat.prompt).to_be_visible()
    page.locator("#bait").click()
    page.locator("#trap").dispatch_event("click")
    page.wait_for_timeout(500)
    assert page.evaluate("window.owned") is None
    assert elsewhere.asked == []
    assert set(page.evaluate("window.violations")) == BLOCKED
    visit.forgive("Content Security Policy|404")


def test_scripts_of_the_chat_page_cannot_reach_another_site_or_make_html(visit, elsewhere):
    """Should one of them be tricked."""
    page = watched(visit)
    script = "async (url) => { try { await fetch(url); return 'sent'; } catch { return 'blocked'; } }"
    assert page.evaluate(script, elsewhere.url) == "blocked"
    script = "(url) => { try { return String(new WebSocket(url).readyState); } catch { return 'blocked'; } }"
    page.evaluate(script, elsewhere.url.replace("http", "ws"))
    script = "(html) => { try { document.body.innerHTML = html; return 'made'; } catch { return 'blocked'; } }"
    assert page.evaluate(script, "<b>owned</b>") == "blocked"
    page.wait_for_timeout(500)
    assert elsewhere.asked == []
    visit.forgive("Content Security Policy|TrustedHTML|WebSocket")
