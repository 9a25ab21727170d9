"""The admin offers a decision to those to whom the call's tool leaves it, and refuses it to others."""

import re
from datetime import timedelta

import pytest
from django.contrib.auth.models import Permission
from django.db.models.functions import Now
from django.test import Client
from django.urls import reverse

from durable_agents import lifecycle, tool
from durable_agents.agents import LEFT_TO_FUNCTION
from durable_agents.models import ToolCall
from tests.admin.pages import INBOX, VIEW, decide, entries, html, inbox, page, queries
from tests.api.calls import person, waiting_call

pytestmark = pytest.mark.django_db

PERMISSION = "durable_agents.add_thread"
KINDS = {
    "approval": ("approved_by", {"needs_approval": True}, ("approve", "reject")),
    "client": ("answered_by", {"kind": "client"}, ("result", "error")),
    "deferred": ("answered_by", {"kind": "deferred"}, ("result", "error")),
}
"""For each kind of call the option that says who may, what makes such a call, and its decisions."""


def signed_in(user, *permissions):
    """Return a client of this member of staff, who may change calls."""
    codenames = [*VIEW, "change_toolcall", *permissions]
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def asker():
    """Return a member of staff who owns the thread, and so has asked."""
    return person("asker", is_staff=True)


@pytest.fixture
def waiting(agent, asker, worker):
    """Return a function that makes a call of a kind, left to ``who``."""

    def made(kind, who):
        option, facts, _ = KINDS[kind]
        call = waiting_call(asker, **facts, **{option: who})
        if kind == "deferred":
            lifecycle.announce_tool_call(worker.claim_call())
        return ToolCall.objects.select_related("thread").get(pk=call.pk)

    return made


def offered(client, call):
    """Return the names of the decisions that both pages offer. Both offer to change the time exactly to those who may
    decide.
    """
    shown = [inbox(client), html(client.get(page(call.thread)))]
    found = [set(re.findall(rf'formaction="[^"]*/toolcall/{call.pk}/([a-z-]+)/"', text)) for text in shown]
    assert found[0] == found[1]
    assert ("timeout" in found[0]) == bool(found[0])
    return found[0] - {"timeout"}


@pytest.mark.parametrize("kind", KINDS)
def test_who_asked_is_offered_nothing_that_another_has_to_decide(waiting, asker, kind):
    """Neither a button nor a field for arguments, result or reason; the page says who may."""
    call, client = waiting(kind, "other"), signed_in(asker)
    assert offered(client, call) == set()
    for shown in (inbox(client), html(client.get(page(call.thread)))):
        assert "You may not decide this." in shown
        assert "by somebody other than the person who asked for it" in shown
        assert re.findall(r'name="(arguments|result|reason)"', shown) == []


@pytest.mark.parametrize("kind", KINDS)
def test_who_did_not_ask_is_offered_every_decision(waiting, kind):
    """As before."""
    call, client = waiting(kind, "other"), signed_in(person("bob", is_staff=True))
    assert offered(client, call) == set(KINDS[kind][2])
    assert "You may not decide this." not in inbox(client)


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, facts in KINDS.items() for name in facts[2]])
def test_who_asked_is_refused_and_another_is_not(waiting, asker, kind, name):
    """Superusers, too, and with changed arguments; the message says who may."""
    call = waiting(kind, "other")
    given = {"result": "5", "arguments": '{"word": "y"}', "reason": "Mine."}
    asker.is_superuser = True
    asker.save()
    _, [said] = decide(signed_in(asker), call, name, **given)
    assert said.endswith("somebody other than the person who asked for it.")
    before = call.status
    call.refresh_from_db()
    assert (call.status, call.approved_arguments, entries(call)) == (before, None, [])
    decide(signed_in(person("bob", is_staff=True)), call, name, **given)
    call.refresh_from_db()
    assert call.status != before


@pytest.mark.parametrize("kind", KINDS)
def test_who_may_not_decide_may_not_change_the_time(waiting, asker, kind):
    """A short time would refuse the call."""
    call, client = waiting(kind, "other"), signed_in(asker)
    assert 'name="seconds"' not in inbox(client) + html(client.get(page(call.thread)))
    _, [said] = decide(client, call, "timeout", seconds="900")
    assert said == f"You may not change the time of tool call '{call.tool_call_id}'."
    before = call.timeout
    call.refresh_from_db()
    assert (call.timeout, entries(call)) == (before, [])
    decide(signed_in(person("bob", is_staff=True)), call, "timeout", seconds="900")
    call.refresh_from_db()
    assert call.timeout == timedelta(seconds=900)


@pytest.mark.parametrize("option", ["approved_by", "answered_by"])
def test_the_time_of_a_call_that_has_not_started_is_for_those_who_may_decide_later(waiting, asker, option):
    """A worker may find only then that the call needs an approval."""
    call = waiting("client", "owner")
    ToolCall.objects.filter(pk=call.pk).update(needs_worker=True, **{option: "other"})
    decide(signed_in(asker), call, "timeout", seconds="900")
    call.refresh_from_db()
    assert call.timeout != timedelta(seconds=900)


@pytest.mark.parametrize("kind", KINDS)
def test_a_decision_that_needs_a_permission_is_for_those_who_have_it(waiting, asker, kind):
    """Who asked may be one of them."""
    call, name = waiting(kind, PERMISSION), KINDS[kind][2][0]
    eve = signed_in(person("eve", is_staff=True))
    assert offered(eve, call) == set()
    _, [said] = decide(eve, call, name, result="5")
    assert f"somebody with the permission '{PERMISSION}'" in said
    assert entries(call) == []
    ada = signed_in(asker, "add_thread")
    assert offered(ada, call) == set(KINDS[kind][2])
    decide(ada, call, name, result="5")
    assert len(entries(call)) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_decision_that_a_function_leaves_to_somebody_is_for_them(waiting, asker, agent, monkeypatch, kind):
    """The function is asked when the page is shown, and again when they decide."""

    @tool(name="plain", needs_approval=True, approved_by=lambda user, call: user.is_superuser)
    def changed(word: str = "") -> str:
        """Say a word."""
        return word

    changed_by = "approved_by" if kind == "approval" else "answered_by"
    monkeypatch.setitem(agent.tools, "plain", changed)
    if changed_by == "answered_by":
        object.__setattr__(changed, "answered_by", lambda user, call: user.is_superuser)
    call, name = waiting(kind, LEFT_TO_FUNCTION), KINDS[kind][2][0]
    eve = signed_in(person("eve", is_staff=True))
    assert offered(eve, call) == set()
    _, [said] = decide(eve, call, name, result="5")
    assert "somebody whom the tool's own function names" in said
    root = signed_in(person("root", is_staff=True, is_superuser=True))
    assert offered(root, call) == set(KINDS[kind][2])
    decide(root, call, name, result="5")
    assert len(entries(call)) == 1


def test_the_permission_to_change_calls_is_enough_for_the_inbox(waiting):
    """No permission to view anything; the project's policy is not asked."""
    call, bob = waiting("approval", "other"), person("bob", is_staff=True)
    client = signed_in(bob)
    bob.user_permissions.set(Permission.objects.filter(codename="change_toolcall"))
    assert f"/toolcall/{call.pk}/approve/" in inbox(client)
    decide(client, call, "approve")
    call.refresh_from_db()
    assert call.approval_decided_by == bob


@pytest.mark.parametrize("who", ["owner", "staff", "server"])
def test_staff_answer_in_the_place_of_others_where_the_tool_names_nobody_else(waiting, asker, who):
    """Who asked, too."""
    call = waiting("client", who)
    assert offered(signed_in(asker), call) == {"result", "error"}


def test_an_inbox_of_calls_for_others_costs_as_many_queries_as_one_call(waiting, asker):
    """No query for each, to learn who asked."""
    client = signed_in(asker)
    waiting("approval", "other")
    few = queries(client, reverse(INBOX))
    for _ in range(4):
        waiting("approval", "other")
    ToolCall.objects.update(created_at=Now() - timedelta(seconds=1))
    assert queries(client, reverse(INBOX)) == few
