"""The examples of the reference run as they are written."""

import re
import sys
from datetime import date
from types import ModuleType, SimpleNamespace

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.template import Context, Template
from django.urls import resolve

from docs._site.public_names import DOCS
from durable_agents import Fail, RetryIn, create_thread, list_messages, llm, send_message
from durable_agents.agents import registry
from durable_agents.exceptions import TooManyRunningError
from durable_agents.models import Thread
from durable_agents.testing import ScriptedModel, calls, run_until_idle
from tests.architecture.sources import ROOT
from tests.testing.shop import opened


def example(page, language="python"):
    """Return the only block in this language of a page of the reference."""
    [block] = blocks(page, language)
    return block


def blocks(page, language="python"):
    """Return the blocks in this language of a page of the reference."""
    text = (DOCS / "reference" / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def run(code, **names):
    """Run an example, and return the names that it defines."""
    exec(compile(code, "reference", "exec"), names)
    return names


@pytest.fixture
def ada():
    """Return a user."""
    return get_user_model().objects.create(username="ada")


@pytest.mark.django_db
def test_the_example_of_the_first_page_answers_about_an_order(ada, monkeypatch):
    """It is the one of the README."""
    page, readme = ((ROOT / path).read_text(encoding="utf-8") for path in ("docs/index.md", "README.md"))
    [code] = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert code in readme
    order = SimpleNamespace(status="sent", expected_on=date(2026, 12, 1))
    found = {(ada, 1017): [order]}
    orders = SimpleNamespace(filter=lambda *, customer, number: Rows(found.get((customer, number), [])))
    monkeypatch.setitem(sys.modules, "shop", ModuleType("shop"))
    monkeypatch.setitem(sys.modules, "shop.models", SimpleNamespace(Order=SimpleNamespace(objects=orders)))
    try:
        run(code, __name__="shop.agents", __package__="shop")
        asked = [calls("order_status", number=1017), calls("order_status", number=1018)]
        with ScriptedModel(asked, "One is on its way.") as model:
            create_thread("support", owner=ada, prompt="Where are my orders?")
            run_until_idle()
    finally:
        registry.remove("support")
    results = [message["content"] for message in model.requests[-1].messages if message["role"] == "tool"]
    assert [result for result in results if "2026-12-01" in result and "sent" in result] == [results[0]]
    assert "There is no order 1018." in results[1]


class Rows(list):
    """What the example takes for a queryset."""

    def first(self):
        """Return the first row, or None."""
        return self[0] if self else None


def test_the_tool_of_the_context_example_shows_its_progress():
    """The example itself asserts it."""
    assert run(blocks("classes.md")[0])["shown"] == [{"percent": 50}]


@pytest.mark.parametrize(
    ("error", "decision"), [("overloaded", RetryIn(20)), ("retired", Fail("model_retired")), ("other", None)]
)
def test_the_classify_example_decides(error, decision):
    retry = run(blocks("classes.md")[1])["retry"]
    assert (retry.max_attempts, retry.classify(Exception(f"The model is {error}."))) == (6, decision)


@pytest.mark.django_db
def test_the_error_example_says_what_happened():
    send = run(example("errors.md"))["send"]
    with opened(name="support", when_busy="reject"):
        thread = create_thread("support")
        assert send(thread, "Hello") == "Sent."
        assert send(thread, "Hello?") == "Wait until the answer is complete."


@pytest.mark.django_db
def test_the_error_example_says_when_to_try_again(settings):
    settings.DURABLE_AGENTS = {**settings.DURABLE_AGENTS, "MAX_RUNNING_PER_OWNER": 1}
    send = run(example("errors.md"))["send"]
    with opened(name="support"):
        create_thread("support", scope="acme", prompt="Hello")
        with pytest.raises(TooManyRunningError):
            send_message(create_thread("support", scope="acme"), "Hello")
        assert send(create_thread("support", scope="acme"), "Hello") == "Try again in 5 seconds."


@pytest.mark.django_db
def test_the_queries_of_the_database_example_find_rows(ada):
    with opened(name="support"), ScriptedModel("Hi."):
        create_thread("support", owner=ada, prompt="Hello")
        run_until_idle()
        create_thread("support", owner=ada, prompt="Hello?")
        names = run(example("database.md"))
        assert [list(names[name]) for name in ("failed", "waiting")] == [[], []]
        assert [row["cost"] for row in names["cost_by_model"]] == [None] * 2
        assert list(names["busy_owners"]) == [{"owner": ada.pk, "threads": 1}]


@pytest.mark.django_db
def test_the_policy_example_lets_staff_read_everything(ada, rf):
    policy = run(example("policies.md"))["StaffReadEverything"]()
    staff = get_user_model().objects.create(username="bob", is_staff=True)
    with opened(name="support"):
        thread = create_thread("support", owner=ada)
        by_staff, by_ada, by_nobody = (request_of(rf, user) for user in (staff, ada, AnonymousUser()))
        assert [list(policy.filter(Thread.objects.all(), one)) for one in (by_staff, by_ada)] == [[thread], [thread]]
        assert list(policy.filter(Thread.objects.all(), by_nobody)) == []
        assert policy.allows(by_staff, "view", thread=thread)
        assert policy.allows(by_staff, "export", thread=thread)
        assert not policy.allows(by_staff, "send", thread=thread)
        assert policy.allows(by_ada, "send", thread=thread)
        assert not policy.allows(by_nobody, "view", thread=thread)


def request_of(rf, user):
    """Return a request of this user."""
    request = rf.get("/")
    request.user = user
    return request


@pytest.mark.django_db
def test_the_model_interface_example_answers():
    """In place of the configured one, as an agent calls it."""
    door = run(example("llm.md"))["EchoDoor"]()
    with opened(name="support"), llm.door_replaced(door):
        thread = create_thread("support", prompt="Hello")
        run_until_idle(real_models=True)
        assert [message.text for message in list_messages(thread)] == ["Hello", "Hello"]
        assert thread.streams.get().usage_estimated


def test_the_urls_example_has_the_routes():
    """At the place that the other pages assume."""
    patterns = tuple(run(example("templates.md"))["urlpatterns"])
    assert resolve("/agents/threads/", patterns_module(patterns)).view_name == "durable_agents:threads"


def patterns_module(patterns):
    """Return an object that has these URL patterns, as a URL configuration has them."""
    return type("URLs", (), {"urlpatterns": patterns})


@pytest.mark.django_db
def test_the_template_example_renders_both_elements(rf, ada):
    with opened(name="support", public=True):
        rendered = Template(example("templates.md", "html")).render(Context({"request": request_of(rf, ada)}))
    assert re.search(r"<durable-thread-list [^>]*for=\"chat\"", rendered)
    assert re.search(r"<durable-chat [^>]*agent=\"support\"[^>]*readonly", rendered)
