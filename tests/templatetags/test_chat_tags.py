"""The tags `durable_chat`, `durable_thread_list` and `durable_agents_importmap`, as pages of a project use them."""

import json
import re
from html import unescape
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.contrib.staticfiles.storage import staticfiles_storage
from django.template import Context, RequestContext, Template
from django.test import RequestFactory
from django.utils.translation import override

from durable_agents import add_message, create_thread
from durable_agents.chat_texts import TEXTS
from tests.architecture.sources import ROOT
from tests.frontends.snippets import blocks
from tests.testing.shop import opened

STATIC = ROOT / "durable_agents" / "static" / "durable_agents"


def rendered(markup: str, **context: Any) -> str:
    """Render the markup in a page of its own, with the tags loaded."""
    request = RequestFactory().get("/")
    request.user = context.get("user") or AnonymousUser()
    return Template("{% load durable_agents %}" + markup).render(RequestContext(request, context))


def visit(user: Any) -> Any:
    """Return a request of this user."""
    request = RequestFactory().get("/")
    request.user = user
    return request


def attributes(html: str) -> dict[str, str]:
    """Return the attributes of the element."""
    [tag] = re.findall(r"<durable-[a-z-]+ ([^>]*)>", html)
    return {name: unescape(value) for name, value in re.findall(r'([a-z-]+)="([^"]*)"', tag)}


@pytest.fixture
def thread(db: None) -> Any:
    """Return a thread with two messages, one of them hostile."""
    owner = get_user_model().objects.create_user("ada")
    thread = create_thread("assistant", owner=owner)
    add_message(thread, "user", [{"type": "text", "text": "Where is order 1017?"}])
    add_message(thread, "assistant", [{"type": "text", "text": "<script>alert(1)</script>\nOn its way."}])
    return thread


def test_a_chat_names_its_thread_its_api_and_its_script(thread):
    html = rendered("{% durable_chat thread %}", thread=thread)
    found = attributes(html)
    assert found["thread-id"] == str(thread.pk)
    assert found["api-url"] == "/agents/"
    assert len(found["csrf-token"]) == 64
    assert '<script type="module" src="/static/durable_agents/durable-chat.min.js"></script>' in html


@pytest.mark.django_db
def test_the_view_of_the_page_shows_each_user_the_same_thread_at_every_visit(monkeypatch):
    [view] = blocks("docs/howto/frontend.md", "A template tag", "python")
    names: dict[str, Any] = {}
    exec(compile(view, "frontend.md", "exec"), names)
    monkeypatch.setitem(names, "render", lambda request, template, context: context["thread"])
    users = [get_user_model().objects.create_user(name) for name in ("ada", "bob")]
    with opened(name="support", public=True):
        first, again, other = (names["support"](visit(user)) for user in (users[0], users[0], users[1]))
        assert (first.pk, first.owner) == (again.pk, users[0])
        assert (other.owner, other.pk == first.pk) == (users[1], False)
        assert attributes(rendered("{% durable_chat thread %}", thread=first))["thread-id"] == str(first.pk)
    assert names["support"](visit(AnonymousUser())).status_code == 302


@pytest.mark.parametrize(("markup", "value"), [("durable_chat thread", "''"), ("durable_chat 7", "7")])
def test_what_is_no_thread_is_an_error_that_says_so(markup, value):
    """A variable that the context does not have is the empty text."""
    with pytest.raises(ValueError, match="needs a thread or the id of one") as error:
        rendered(f"{{% {markup} %}}")
    assert f"not {value}. Is the variable in the template's context?" in str(error.value)


def test_further_arguments_become_attributes():
    html = rendered(
        '{% durable_chat agent="support" prompts=prompts readonly=True feedback=False ws_url="/live/" %}',
        prompts=['Say "hi"'],
    )
    found = attributes(html)
    assert found["agent"] == "support"
    assert json.loads(found["prompts"]) == ['Say "hi"']
    assert found["readonly"] == ""
    assert found["ws-url"] == "/live/"
    assert "feedback" not in found
    assert "thread-id" not in found


def test_texts_are_in_the_reader_s_language():
    with override("de"):
        texts = json.loads(attributes(rendered("{% durable_chat %}"))["texts"])
    assert texts["send"] == "Senden"
    with override("en"):
        texts = json.loads(attributes(rendered("{% durable_chat %}"))["texts"])
    assert texts["send"] == "Send"


def test_german_has_a_word_for_every_text_of_the_element():
    source = (STATIC / "element.js").read_text(encoding="utf-8")
    block = re.search(r"const TEXTS = \{(.*?)^\};", source, re.DOTALL | re.MULTILINE)
    assert block is not None
    english = dict(re.findall(r'^  (\w+): "(.*)",$', block[1], re.MULTILINE))
    with override("en"):
        assert {key: str(text) for key, text in TEXTS.items()} == english
    with override("de"):
        same = {key for key, text in TEXTS.items() if str(text) == english[key]}
    assert same == set()


def test_a_list_of_threads_names_the_chat_that_it_is_for():
    found = attributes(rendered('{% durable_thread_list for="chat" %}'))
    assert found["for"] == "chat"
    assert found["api-url"] == "/agents/"


@pytest.mark.parametrize("where", ["context", "request"])
def test_scripts_carry_the_nonce_of_django_or_of_django_csp(where):
    request = RequestFactory().get("/")
    context: dict[str, Any] = {"csp_nonce": "n0nce"} if where == "context" else {}
    if where == "request":
        request.csp_nonce = "n0nce"  # type: ignore[attr-defined]
    template = Template("{% load durable_agents %}{% durable_agents_importmap %}{% durable_chat %}")
    html = template.render(RequestContext(request, context))
    assert html.count('nonce="n0nce"') == html.count("<script") == 2


def test_without_a_request_a_chat_still_renders():
    html = Template("{% load durable_agents %}{% durable_chat %}").render(Context())
    assert "csrf-token" not in attributes(html)


def test_without_users_a_chat_still_renders(thread):
    context = RequestContext(RequestFactory().get("/"), {"thread": thread})
    html = Template("{% load durable_agents %}{% durable_chat thread %}").render(context)
    assert attributes(html)["thread-id"] == str(thread.pk)
    assert "order 1017" not in html


@pytest.mark.parametrize(("debug", "suffix"), [(True, ".js"), (False, ".min.js")])
def test_the_import_map_leads_to_the_sources_or_to_what_is_built_of_them(settings, debug, suffix):
    settings.DEBUG = debug
    html = rendered('{% durable_agents_importmap react="mine/re<act.js" %}')
    [written] = re.findall(r'<script type="importmap">(.*?)</script>', html)
    assert "<" not in written
    imports = json.loads(written)["imports"]
    assert imports.pop("react") == staticfiles_storage.url("mine/re<act.js")
    assert len(imports) == 5
    for url in imports.values():
        assert url.endswith(suffix)
        assert (STATIC / url.removeprefix("/static/durable_agents/")).is_file()
