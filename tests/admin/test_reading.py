"""What staff see: lists, and a thread as a conversation; nothing that can be typed in, nothing that can do harm."""

import re
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from durable_agents import create_thread, lifecycle
from durable_agents.admin import conversation
from durable_agents.lifecycle import CallResult
from durable_agents.models import Delta, Message, Pool, Stream, Thread, ToolCall
from tests.admin.pages import HOSTILE, VIEW, html, listing, page, queries
from tests.lifecycle.stage import calling

pytestmark = pytest.mark.django_db

MODELS = (Thread, Message, Stream, ToolCall, Delta, Pool)


@pytest.mark.parametrize("model", MODELS)
def test_every_model_has_a_list_and_pages_to_be_read(reader, thread, model):
    """With no button to save or add."""
    listed = html(reader.get(listing(model)))
    row = model.objects.first()
    shown = html(reader.get(page(row)))
    assert page(row) in listed
    assert "_save" not in shown
    assert reader.get(listing(model) + "add/").status_code == 403
    assert reader.post(page(row), {"title": "changed"}).status_code == 403


@pytest.mark.parametrize("model", MODELS)
def test_without_permission_nothing_is_shown(staff, thread, model):
    """Each model has its own."""
    client = staff(*(name for name in VIEW if name != f"view_{model._meta.model_name}"))
    assert client.get(listing(model)).status_code == 403
    assert client.get(page(model.objects.first())).status_code == 403


def test_the_list_tells_status_agent_owner_scope_tokens_and_cost(reader, thread, owner):
    """Each in a column."""
    Thread.objects.update(cost="0.0123")
    listed = html(reader.get(listing(Thread)))
    for text in ("Weather", "Streaming", "tested", str(owner), "acme", "15", "$0.0123"):
        assert text in listed


def test_the_list_of_messages_tells_what_was_asked_and_answered(reader, thread):
    """An answer by the first words of its steps."""
    listed = html(reader.get(listing(Message)))
    assert "Sunny?" in listed
    assert "Let me look." in listed


@pytest.mark.parametrize("term", ["weath", "acme", "owner@", "{id}", "{hex}"])
def test_threads_are_found_by_title_scope_owner_and_id(reader, thread, agent, term):
    """And others are not."""
    create_thread(agent, title="Other")
    listed = html(reader.get(listing(Thread), {"q": term.format(id=thread.pk, hex=thread.pk.hex)}))
    assert "Weather" in listed
    assert "Other" not in listed


@pytest.mark.parametrize("model", [Message, Stream, ToolCall, Delta])
def test_rows_are_found_by_the_id_of_their_thread(reader, thread, agent, model):
    """And by their own, where it is one."""
    assert page(model.objects.first()) in html(reader.get(listing(model), {"q": str(thread.pk)}))
    assert page(model.objects.first()) not in html(reader.get(listing(model), {"q": str(uuid4())}))


@pytest.mark.parametrize(
    "query", ["status__exact=streaming", "agent=tested", "archived__exact=0", "q=%00", "q=%27", "status__exact=x"]
)
def test_filters_and_odd_searches_break_nothing(reader, thread, query):
    """Whatever is asked."""
    assert reader.get(f"{listing(Thread)}?{query}").status_code in {200, 302}


@pytest.mark.parametrize("model", [Thread, Message, Stream, ToolCall, Delta])
def test_a_long_list_costs_what_a_short_one_does(reader, agent, owner, worker, model):
    """No query per row."""

    def add():
        create_thread(agent, owner=owner, prompt="Hi")
        worker.answer("Well.", calling())
        worker.settle()
        worker.say(worker.claim_step(), "Hel", "lo")

    add()
    few = queries(reader, listing(model))
    for _ in range(4):
        add()
    assert queries(reader, listing(model)) == few


def test_a_list_does_not_fetch_long_values(reader, thread):
    """Results of megabytes would be carried for a column that shows none of them."""
    with CaptureQueriesContext(connection) as captured:
        html(reader.get(listing(ToolCall)))
    assert not any(re.search(r'toolcall"."(result|arguments|error_detail)"', query["sql"]) for query in captured)


def test_the_page_of_a_thread_is_the_whole_conversation(reader, thread):
    """Questions, attempts with what became of them, calls with arguments and outcome, and what is being written."""
    shown = html(reader.get(page(thread)))
    expected = ["Sunny?", "provider_5xx", "503 from upstream", "Let me look.", "Paris", "blue", "Rome", "No such city."]
    places = [shown.index(text) for text in [*expected, "Traceback: KeyError", "The sky is bl"]]
    assert places == sorted(places)
    assert "held by boot:1:100:5" in shown
    assert "10 / 5" in shown


def test_a_long_thread_costs_as_many_queries_as_a_short_one(reader, agent, owner, worker):
    """And no attempt costs one of its own."""
    counts = []
    for rounds in (1, 5):
        long = create_thread(agent, owner=owner)
        for _ in range(rounds):
            lifecycle.send_message(long, "Question")
            worker.answer("Well.", calling())
            worker.settle()
            worker.answer("Done.")
        counts.append(queries(reader, page(long)))
    assert counts[0] == counts[1] <= 12


def test_of_a_very_long_thread_the_newest_messages_are_shown(reader, agent, owner, worker, monkeypatch):
    """With a note that there are more."""
    monkeypatch.setattr(conversation, "MAX_MESSAGES", 3)
    long = create_thread(agent, owner=owner)
    for number in range(3):
        lifecycle.send_message(long, f"Question {number}")
        worker.answer("Done.")
    shown = html(reader.get(page(long)))
    assert "Question 0" not in shown
    assert "Question 2" in shown
    assert "Only the newest messages" in shown


def test_hostile_text_is_only_text(reader, agent, owner, worker):
    """Wherever it comes from: people, models, tools, providers."""
    hostile = create_thread(agent, owner=owner, title=HOSTILE, prompt=HOSTILE, metadata={"a": HOSTILE}, client_id="x")
    worker.answer(HOSTILE, calling("plain", word=HOSTILE))
    worker.settle({HOSTILE: HOSTILE})
    Stream.objects.update(error_code="x", error_detail=HOSTILE, model=HOSTILE[:100], lease_owner=HOSTILE[:100])
    Message.objects.filter(role="user").update(client_id=HOSTILE)
    ToolCall.objects.update(error=HOSTILE, error_detail=HOSTILE, tool_name=HOSTILE)
    rows = [model.objects.first() for model in (Thread, Message, Stream, ToolCall)]
    for url in [*(listing(type(row)) for row in rows), *(page(row) for row in rows), page(hostile)]:
        shown = html(reader.get(url))
        assert "<script>alert" not in shown
        assert "<img src=x" not in shown


def test_the_page_needs_no_inline_script_or_style(reader, thread):
    """It works under a strict content security policy."""
    shown = html(reader.get(page(thread)))
    ours = shown[shown.index('<section class="da-thread"') : shown.index("submit-row")]
    assert not re.search(r"<script|<style|\sstyle=|\son\w+=|javascript:", ours)
    assert "durable_agents/admin.css" in shown


def test_values_of_megabytes_are_cut(reader, agent, owner, worker):
    """On every page that shows them."""
    create_thread(agent, owner=owner, prompt="Hi")
    worker.answer("", calling())
    big = {"rows": ["x" * 1000] * 2000, "text": "y" * 1_000_000}
    lifecycle.finish_tool_call(worker.claim_call(), CallResult(result=big))
    worker.answer("z" * 1_000_000)
    for model in (Thread, Message, Stream, ToolCall):
        for row in model.objects.all():
            assert len(html(reader.get(page(row)))) < 150_000


def test_who_may_see_threads_but_not_what_they_consist_of_sees_no_conversation(staff, thread):
    """The permission to view is each model's own."""
    shown = html(staff("view_thread", "view_message").get(page(thread)))
    assert "Sunny?" not in shown
    assert "You may not view" in shown


def test_the_page_of_a_thread_that_waits_for_a_worker_says_until_when(reader, agent, owner, worker):
    """One that is due at once has no time to show."""
    waiting = create_thread(agent, owner=owner, prompt="Hi")
    assert "due now in the pool agents" in html(reader.get(page(waiting)))
    worker.retry(worker.claim_step(), delay_seconds=60)
    assert re.search(r"due at \d{4}-\d\d-\d\d .* in the pool agents", html(reader.get(page(waiting))))


@pytest.mark.parametrize("model", [Thread, ToolCall, Message, Stream])
def test_lists_can_be_filtered_by_scope(reader, thread, model):
    """The filter offers the scopes that there are."""
    Thread.objects.create(agent=thread.agent, scope="globex")
    shown = html(reader.get(listing(model)))
    assert "?scope=acme" in shown
    assert "?scope=globex" in shown
    rows = {
        scope: reader.get(listing(model), {"scope": scope}).context["cl"].result_count
        for scope in ("acme", "globex", "x")
    }
    assert rows["acme"] > 0
    assert (rows["globex"], rows["x"]) == (int(model is Thread), 0)
