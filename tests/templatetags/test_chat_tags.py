"""The tags `durable_chat`, `durable_thread_list` and `durable_agents_importmap`, as pages of a project use them."""

import json
import re
from html import unescape
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.staticfiles.storage import staticfiles_storage
from django.template import Context, RequestContext, Template
from django.test import RequestFactory
from django.utils.translation import override

from durable_agents import add_message, create_thread
from durable_agents.templatetags.chat_texts import TEXTS
from tests.architecture.sources import ROOT

STATIC = ROOT / "durable_agents" / "static" / "durable_agents"


def rendered(markup: str, **context: Any) -> str:
    """Render the markup in a page of its own, with the tags loaded."""
    request = RequestFactory().get("/")
    return Template("{% load durable_agents %}" + markup).render(RequestContext(request, context))


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


def test_without_scripts_the_last_messages_can_be_read_and_are_text(thread):
    html = rendered("{% durable_chat thread %}", thread=thread)
    assert "Where is order 1017?" in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;<br>On its way." in html


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


@pytest.mark.parametrize(("debug", "suffix"), [(True, ".js"), (False, ".min.js")])
def test_the_import_map_leads_to_the_sources_or_to_what_is_built_of_them(settings, debug, suffix):
    settings.DEBUG = debug
    html = rendered('{% durable_agents_importmap react="mine/re<act.js" %}')
    [written] = re.findall(r'<script type="importmap">(.*?)</script>', html)
    assert "<" not in written
    imports = json.loads(written)["imports"]
    assert imports.pop("react") == staticfiles_storage.url("mine/re<act.js")
    assert len(imports) == 4
    for url in imports.values():
        assert url.endswith(suffix)
        assert (STATIC / url.removeprefix("/static/durable_agents/")).is_file()
