"""A chat in a browser that runs no scripts: what the tag shows inside the element, and what its forms do."""

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser
from django.contrib.sessions.backends.db import SessionStore
from django.template import RequestContext, Template
from django.test import RequestFactory
from django.utils.translation import override

from durable_agents import add_message, create_thread, stop_thread
from durable_agents.models import AuditEntry, Message, Stream, Thread, ThreadStatus
from durable_agents.policies import OwnerPolicy
from tests.api.calls import KINDS, Api, act, person, waiting_call
from tests.lifecycle.stage import Worker

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("agent")]

PAGE = "/chats/?tab=2"
TAG = "{% load durable_agents %}{% durable_chat thread agent=agent readonly=readonly %}"


class Forms(HTMLParser):
    """The forms of a page: for each, the address and the fields, and the addresses of its buttons."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[dict[str, Any]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a form, a field of it, or a button."""
        given = dict(attrs)
        if tag == "form":
            self.found.append({"action": given["action"], "fields": {}, "buttons": []})
        elif tag == "button" and self.found:
            self.found[-1]["buttons"].append(given.get("formaction") or self.found[-1]["action"])
        elif tag in {"input", "textarea"} and self.found and given.get("name"):
            self.found[-1]["fields"][given["name"]] = given.get("value") or ""


class EverybodysPolicy(OwnerPolicy):
    """Shows every thread to whoever is signed in, and the people in it only to staff."""

    def filter(self, queryset: Any, request: Any) -> Any:
        """Return all of them."""
        return queryset if request.user.is_authenticated else queryset.none()

    def person(self, request: Any, user: Any, *, thread: Thread) -> Any:
        """Show people to staff."""
        return super().person(request, user, thread=thread) if request.user.is_staff else None


def page_of(user: Any, thread: Any = None, *, url: str = PAGE, readonly: bool = False, agent: str | None = None) -> str:
    """Return the tag's HTML as this user gets it."""
    request = RequestFactory().get(url)
    request.user, request.session = user, SessionStore()
    context = {"thread": thread, "readonly": readonly, "agent": agent}
    return Template(TAG).render(RequestContext(request, context))


def forms_of(user: Any, thread: Any = None, **options: Any) -> dict[str, dict[str, Any]]:
    """Return the forms of the page by the last part of their address."""
    return {
        form["action"].rstrip("/").rpartition("/")[2]: form for form in Forms(page_of(user, thread, **options)).found
    }


def submitted(user: Any, form: dict[str, Any], button: int = 0, **fields: str) -> Any:
    """Send a form as a browser does, with what the user has filled in."""
    return Api(user).client.post(
        form["buttons"][button],
        "&".join(f"{name}={quoted(value)}" for name, value in (form["fields"] | fields).items()),
        content_type="application/x-www-form-urlencoded",
    )


def quoted(value: str) -> str:
    """Return a value as it stands in the body of a form."""
    return "".join(f"%{byte:02X}" for byte in value.encode())


@pytest.fixture
def thread(me: Any) -> Thread:
    """Return a thread at rest."""
    thread = create_thread("tested", owner=me)
    add_message(thread, "user", [{"type": "text", "text": "Where is <b>order 1017</b>?"}])
    add_message(thread, "assistant", [{"type": "text", "text": "<script>alert(1)</script>\nOn its way."}])
    return thread


@pytest.fixture
def running(me: Any) -> Thread:
    """Return a thread with an answer that has begun."""
    thread = create_thread("tested", owner=me, prompt="Tell me a story.")
    worker = Worker()
    [claim] = [claim for claim in worker.claim(tools=0) if claim.thread_id == thread.pk]
    worker.say(claim, "Once upon a time")
    return thread


# What is shown.


def test_the_messages_are_shown_as_text(me: Any, thread: Thread) -> None:
    """With who wrote them."""
    html = page_of(me, thread)
    assert "Where is &lt;b&gt;order 1017&lt;/b&gt;?" in html
    assert "<p>&lt;script&gt;alert(1)&lt;/script&gt;<br>On its way.</p>" in html
    with override("en"):
        assert [found in page_of(me, thread) for found in ("You</b>", "Assistant</b>")] == [True, True]


def test_an_answer_in_progress_is_shown_with_a_button_that_stops_it(me: Any, running: Thread) -> None:
    """And a link that reloads the page."""
    html = page_of(me, running)
    assert "Once upon a time" in html
    assert set(forms_of(me, running)) == {"stop", "messages"}
    assert f'<a href="{PAGE}">' in html


def test_a_link_leads_to_earlier_messages(me: Any) -> None:
    """They are not on every page, because readers with scripts would load them, too."""
    thread = create_thread("tested", owner=me)
    for number in range(25):
        add_message(thread, "user", [{"type": "text", "text": f"Note {number}."}])
    html = page_of(me, thread)
    assert "Note 4." not in html
    assert "Note 5." in html
    [url] = re.findall(r'href="([^"]*earlier=1)"', html)
    assert url == "?tab=2&amp;earlier=1"
    assert "Note 0." in page_of(me, thread, url=PAGE + "&earlier=1")


def test_long_outputs_are_cut(me: Any) -> None:
    """Every page contains them."""
    call = waiting_call(me, **KINDS["result"])
    assert act(Api(me), call, "result", {"result": "x" * 5000}).status_code == 200
    html = page_of(me, call.thread)
    assert "x" * 2000 + "…" in html
    assert "x" * 2001 not in html


@pytest.mark.parametrize(("url", "is_link"), [("https://example.org/a", True), ("JavaScript:alert(1)", False)])
def test_only_addresses_of_pages_become_links(me: Any, url: str, is_link: bool) -> None:
    """Nothing that runs a script does."""
    thread = create_thread("tested", owner=me)
    message = add_message(thread, "assistant", "Here.")
    part = {"type": "source-url", "sourceId": "s", "url": url, "title": "A page"}
    Stream.objects.filter(message=message).update(parts=[{"type": "step-start"}, part])
    html = page_of(me, thread)
    assert "A page" in html
    assert (f'href="{url}"' in html) is is_link


def test_a_read_only_chat_has_no_form(me: Any, running: Thread) -> None:
    """It can be reloaded."""
    html = page_of(me, running, readonly=True)
    assert "<form" not in html
    assert "Once upon a time" in html


def test_somebody_elses_thread_is_not_shown(running: Thread) -> None:
    """Whatever the page gives to the tag, and to nobody who is not signed in."""
    for user in (person("eve"), person("root", is_staff=True, is_superuser=True), AnonymousUser()):
        html = page_of(user, running)
        assert "Once upon" not in html
        assert "<form" not in html
        assert "Once upon" not in page_of(user, url=f"/?thread={running.pk}")


def test_the_policy_decides_which_people_and_which_questions_are_shown(settings: Any, me: Any) -> None:
    """As over REST."""
    settings.DURABLE_AGENTS = {"POLICY": f"{__name__}.EverybodysPolicy"}
    ada, staff = person("ada"), person("staff", is_staff=True)
    call = waiting_call(ada, **KINDS["approve"], arguments={"card": "4711"})
    Message.objects.filter(thread=call.thread_id, role="user").update(sender=ada)
    reader, decider = page_of(me, call.thread), page_of(staff, call.thread)
    assert ["4711" in html for html in (reader, decider)] == [True, True]
    assert [ada.get_username() in html for html in (reader, decider)] == [False, True]
    assert ["/approve/" in html for html in (reader, decider)] == [False, True]


def test_the_address_of_the_page_names_the_thread_where_the_tag_does_not(me: Any, thread: Thread) -> None:
    """The element shows the same."""
    html = page_of(me, url=f"/?thread={thread.pk}")
    assert f'thread-id="{thread.pk}"' in html
    assert "order 1017" in html
    for other in ("", "nothing", str(AuditEntry().pk or "00000000-0000-0000-0000-000000000000")):
        assert "thread-id" not in page_of(me, url=f"/?thread={other}")


def test_the_texts_are_in_the_readers_language(me: Any, running: Thread) -> None:
    """Like those of the element."""
    with override("de"):
        html = page_of(me, running)
    assert "<button>Stoppen</button>" in html
    with override("en"):
        assert "<button>Stop</button>" in page_of(me, running)


class ApprovingPolicy(OwnerPolicy):
    """Lets others view every thread and approve calls, but nothing else."""

    def filter(self, queryset: Any, request: Any) -> Any:
        """Return all of them."""
        return queryset

    def allows(
        self, request: Any, action: str, *, agent: Any = None, thread: Any = None, tool_call: Any = None
    ) -> bool:
        """Return whether the thread is the caller's own, or the action is harmless."""
        return (thread is not None and thread.owner_id == request.user.pk) or action in {"view", "approve"}


def test_controls_that_the_policy_denies_are_not_offered(settings: Any, me: Any, running: Thread) -> None:
    """Neither as forms nor by the element, which the tag tells so."""
    settings.DURABLE_AGENTS = {"POLICY": f"{__name__}.ApprovingPolicy"}
    call = waiting_call(me, **KINDS["approve"])
    staff = person("staff", is_staff=True)
    assert set(forms_of(staff, call.thread)) == {"approve"}
    assert 'denied="send stop resume edit"' in page_of(staff, call.thread)
    assert set(forms_of(me, call.thread)) == {"approve", "stop", "messages"}
    assert "denied=" not in page_of(me, call.thread)
    stop_thread(running)
    assert set(forms_of(staff, running)) == set()
    assert set(forms_of(me, running)) == {"resume", "messages"}
    assert set(forms_of(staff)) == set()


def test_while_a_run_waits_its_button_says_that_the_request_is_cancelled(me: Any) -> None:
    """There is no answer to stop."""
    html = page_of(me, waiting_call(me, **KINDS["approve"]).thread)
    assert "<button>Cancel the request</button>" in html
    assert "<button>Stop</button>" not in html


# What the forms do.


def test_a_second_decision_does_not_blame_somebody_else(me: Any) -> None:
    """It may be the same user's."""
    call = waiting_call(me, **KINDS["approve"])
    form = forms_of(me, call.thread)["approve"]
    assert submitted(me, form).status_code == 303
    response = submitted(me, form)
    assert response.status_code == 409
    assert "This call no longer waits for an answer." in response.text


def test_a_form_in_another_encoding_is_told_which_one_to_use(me: Any, thread: Thread) -> None:
    """It has no file that could be of a wrong type."""
    form = forms_of(me, thread)["messages"]
    response = Api(me).client.post(form["action"], {"prompt": "Hi"})
    assert response.status_code == 415
    assert "The form must be sent as application/x-www-form-urlencoded." in response.text


def test_a_message_is_sent_and_the_browser_led_back(me: Any, thread: Thread) -> None:
    """The audit log knows the sender."""
    response = submitted(me, forms_of(me, thread)["messages"], prompt="And 1018?")
    assert (response.status_code, response["Location"]) == (303, PAGE)
    message = Message.objects.get(thread=thread, text="And 1018?")
    assert (message.role, message.sender) == ("user", me)
    assert AuditEntry.objects.filter(thread_id=thread.pk, action="send_message", user=me).exists()


def test_a_double_click_sends_once_and_another_text_is_another_message(me: Any, thread: Thread) -> None:
    """Also from a page that the browser's Back button shows again."""
    form = forms_of(me, thread)["messages"]
    for text in ("One.", "One.", "Two."):
        assert submitted(me, form, prompt=text).status_code == 303
    assert list(Message.objects.filter(thread=thread, text__in=["One.", "Two."]).values_list("text", flat=True)) == [
        "One.",
        "Two.",
    ]


def test_the_first_message_creates_a_chat_that_the_page_then_shows(me: Any) -> None:
    """With a title; a second click creates no second one."""
    form = forms_of(me, agent="tested")["threads"]
    assert form["fields"]["agent"] == "tested"
    for _ in range(2):
        response = submitted(me, form, prompt="Hello there. " * 10)
    thread = Thread.objects.get()
    assert (response.status_code, response["Location"]) == (303, f"{PAGE}&thread={thread.pk}")
    assert thread.title == ("Hello there. " * 10)[:60]
    assert "Hello there." in page_of(me, url=response["Location"])


def test_an_answer_is_stopped_and_resumed(me: Any, running: Thread) -> None:
    """By a button each."""
    assert submitted(me, forms_of(me, running)["stop"]).status_code == 303
    running.refresh_from_db()
    assert running.status == ThreadStatus.STOPPED
    assert submitted(me, forms_of(me, running)["resume"]).status_code == 303
    running.refresh_from_db()
    assert running.status == ThreadStatus.STREAMING


def test_a_page_says_that_the_assistant_answers_only_while_it_does(me: Any, running: Thread) -> None:
    """Not while a tool call waits for a person; the run can be stopped in both cases."""
    waiting = waiting_call(me, **KINDS["approve"]).thread
    pages = [page_of(me, thread) for thread in (running, waiting)]
    assert ['<p role="status">The assistant is answering.' in page for page in pages] == [True, False]
    assert ["/stop" in page for page in pages] == [True, True]


@pytest.mark.parametrize(("button", "status"), [(0, "pending"), (1, "denied")])
def test_a_tool_call_is_approved_or_rejected_with_a_reason(me: Any, button: int, status: str) -> None:
    """Whatever its id is made of."""
    call = waiting_call(me, **KINDS["approve"], tool_call_id="call/1?#")
    form = forms_of(me, call.thread)["approve"]
    response = submitted(me, form, button, reason="Because.")
    assert (response.status_code, response["Location"]) == (303, PAGE)
    call.refresh_from_db()
    assert (call.status, call.decision_reason, call.approval_decided_by) == (status, "Because.", me)


# What they refuse.


def test_what_was_written_is_on_the_page_with_the_error(me: Any, declare: Any, settings: Any) -> None:
    """With a link back; markup in it is text."""
    running = create_thread(declare("strict", public=True, when_busy="reject"), owner=me, prompt="Hi")
    written = "Wait! </textarea><script>alert(1)</script>"
    response = submitted(me, forms_of(me, running)["messages"], prompt=written)
    html = response.content.decode()
    assert (response.status_code, response["Content-Type"]) == (409, "text/html; charset=utf-8")
    assert "&lt;/textarea&gt;&lt;script&gt;" in html
    assert "<script>" not in html
    assert f'href="{PAGE}"' in html
    settings.LANGUAGE_CODE = "en"
    html = submitted(me, forms_of(me, running)["messages"], prompt="Wait!").content.decode()
    assert "That did not work." in html


def test_a_text_that_is_too_large_is_refused_as_such(settings: Any, me: Any, thread: Thread) -> None:
    """Not as a missing token, which is in the same body."""
    form = forms_of(me, thread)["messages"]
    settings.DURABLE_AGENTS = {"MAX_BODY_BYTES": 1000}
    response = submitted(me, form, prompt="x" * 2000)
    assert response.status_code == 413
    assert not Message.objects.filter(thread=thread, text__startswith="xxx").exists()


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example/",
        "//evil.example/",
        "///evil.example",
        "/\\evil.example",
        "javascript:alert(1)",
        "http://[",
        "http://testserver@evil.example/",
        "",
        "\r\nX-Evil: 1",
    ],
)
def test_the_way_back_leads_to_this_site(me: Any, thread: Thread, target: str) -> None:
    """Or to its first page."""
    response = submitted(me, forms_of(me, thread)["stop" if thread.is_running else "messages"], prompt="x", next=target)
    assert (response.status_code, response["Location"]) == (303, "/")
    assert not response.has_header("X-Evil")
    response = submitted(me, forms_of(me)["threads"], prompt="x", next=target)
    assert re.fullmatch(r"/\?thread=[0-9a-f-]{36}", response["Location"])


def test_a_page_of_the_same_site_may_be_named_in_full(me: Any, thread: Thread) -> None:
    """With any characters."""
    form = forms_of(me, thread)["messages"]
    response = submitted(me, form, prompt="x", next="http://testserver/ä/?q=ü&n=1")
    assert response["Location"] == "http://testserver/%C3%A4/?q=%C3%BC&n=1"


def test_without_the_token_nothing_is_done(me: Any, thread: Thread) -> None:
    """The token is a field of the form; a wrong one is no token."""
    api = Api(me, enforce_csrf_checks=True)
    url = forms_of(me, thread)["messages"]["action"]
    kind = "application/x-www-form-urlencoded"
    for token in ("", "&csrfmiddlewaretoken=" + "x" * 64):
        response = api.client.post(url, f"prompt=Hi{token}", content_type=kind)
        assert response.status_code == 403
    assert not Message.objects.filter(thread=thread, text="Hi").exists()
    api.client.cookies["csrftoken"] = token = "a" * 32
    response = api.client.post(url, f"prompt=Hi&csrfmiddlewaretoken={token}", content_type=kind)
    assert response.status_code == 303


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "multipart/form-data; boundary=x"])
def test_only_plain_forms_are_read(me: Any, thread: Thread, content_type: str) -> None:
    """Like the JSON of REST, what is read is bounded."""
    url = forms_of(me, thread)["messages"]["action"]
    response = Api(me).client.generic("POST", url, '{"prompt": "Hi"}', content_type=content_type)
    assert response.status_code == 415


def test_pages_are_not_fetched_from_where_forms_are_sent_to(me: Any, thread: Thread) -> None:
    """A GET does what it would do to any address of the API that only takes a POST."""
    url = forms_of(me, thread)["messages"]["action"]
    assert Api(me).client.get(url).status_code == 405
    stop_thread(thread)
