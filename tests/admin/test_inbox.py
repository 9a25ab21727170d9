"""What waits for a person is in one place and on its thread's page, and is decided there: with the permission, through
the state machine, by name, each time with an entry in the log."""

import re
from datetime import timedelta
from html.parser import HTMLParser

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.db.models.functions import Now
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from durable_agents import tool
from durable_agents.admin.decisions import DECISIONS
from durable_agents.admin.formatting import called
from durable_agents.models import Thread, ToolCall
from tests.admin.pages import (
    APPROVAL,
    DEFERRED,
    HOSTILE,
    INBOX,
    VIEW,
    decide,
    entries,
    html,
    inbox,
    listing,
    page,
    queries,
)
from tests.api.calls import waiting_call
from tests.lifecycle.stage import status_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def decider(staff):
    """Return somebody who may decide calls as well."""
    return staff(*VIEW, "change_toolcall")


# What is in it.


def test_everything_that_waits_for_a_person_is_in_the_inbox(reader, approval, deferred, browser):
    """The oldest first, each with tool, arguments and thread."""
    by_age = (deferred, approval, browser)
    for number, call in enumerate(by_age):
        ToolCall.objects.filter(pk=call.pk).update(created_at=Now() + timedelta(seconds=number))
    shown = inbox(reader)
    places = [shown.index(f"da-ask-{call.pk.hex}") for call in by_age]
    assert places == sorted(places)
    assert shown.count(page(approval.thread)) == 1
    assert "plain" in shown


def test_a_call_of_which_nobody_knows_is_in_the_inbox(reader, unknown):
    """Only while its tool asks."""
    assert f"da-ask-{unknown.pk.hex}" in inbox(reader)
    assert "nobody knows whether it ran" in inbox(reader)
    ToolCall.objects.filter(pk=unknown.pk).update(finished_at=Now())
    assert f"da-ask-{unknown.pk.hex}" not in inbox(reader)


def test_what_waits_for_a_worker_or_nobody_is_not(reader, thread, agent, owner):
    """Nor what was not announced yet."""
    waiting_call(owner, **DEFERRED)
    waiting_call(owner)
    assert "da-ask-" not in inbox(reader)
    assert "Nothing waits for anybody." in inbox(reader)


def test_the_inbox_links_only_to_pages_that_the_viewer_may_see(staff, approval):
    """The name of the thread is shown to all."""
    for permissions, is_linked in ((["view_toolcall"], False), (["view_toolcall", "view_thread"], True)):
        client = staff(*permissions)
        shown = inbox(client)
        assert str(approval.thread) in shown
        assert (f'href="{page(approval.thread)}"' in shown) is is_linked
        shown = html(client.get(listing(ToolCall)))
        assert (f'href="{page(approval.thread)}"' in shown) is is_linked
        assert called(approval.thread) in shown


def test_the_inbox_can_be_narrowed(reader, approval, browser):
    """To one kind of question; an unknown kind is all."""
    for question, wanted, other in (("approval", approval, browser), ("answer", browser, approval)):
        shown = inbox(reader, **{"for": question})
        assert f"da-ask-{wanted.pk.hex}" in shown
        assert f"da-ask-{other.pk.hex}" not in shown
    assert "da-ask-" not in inbox(reader, **{"for": "outcome"})
    assert inbox(reader, **{"for": "x"}).count('class="da-ask"') == 2


def test_the_lists_lead_to_the_inbox_and_say_how_many_wait(reader, staff, approval):
    """For those who may see it."""
    for model in (Thread, ToolCall):
        shown = html(reader.get(listing(model)))
        assert re.search(rf'href="{reverse(INBOX)}".*da-count">1<', shown)
    assert reverse(INBOX) not in html(staff("view_thread").get(listing(Thread)))
    assert reverse(INBOX) in html(staff("change_toolcall").get(listing(ToolCall)))


def test_a_full_inbox_costs_as_many_queries_as_a_short_one(reader, agent, owner):
    """No query per call."""
    waiting_call(owner, **APPROVAL)
    few = queries(reader, reverse(INBOX))
    for _ in range(4):
        waiting_call(owner, **APPROVAL)
    assert queries(reader, reverse(INBOX)) == few


def test_hostile_text_in_the_inbox_is_only_text(decider, approval):
    """Whatever the model asks for."""
    ToolCall.objects.update(arguments={HOSTILE: f"</textarea>{HOSTILE}"}, tool_name=HOSTILE, error=HOSTILE)
    Thread.objects.update(title=HOSTILE, scope=HOSTILE)
    for shown in (inbox(decider), html(decider.get(page(approval.thread)))):
        assert "<script>alert" not in shown
        assert "<img src=x" not in shown
        assert "</textarea><" not in shown


# Deciding.


@pytest.mark.parametrize("back", ["inbox", "thread"])
def test_approving_lets_the_call_run_and_is_logged(decider, approval, back):
    """With who, when and why; back to where it was done."""
    url, said = decide(decider, approval, "approve", reason="She is right.", back=back)
    assert url == (reverse(INBOX) if back == "inbox" else page(approval.thread))
    assert said == ["The call was approved."]
    approval.refresh_from_db()
    assert (approval.status, approval.approved_arguments) == ("pending", None)
    assert (approval.approval_decided_by.is_staff, approval.approval_reason) == (True, "She is right.")
    assert entries(approval) == [f"Approved: plain ({approval.tool_call_id}). Reason: She is right."]
    assert LogEntry.objects.get().user == approval.approval_decided_by


def test_approving_with_other_arguments_keeps_both(decider, approval):
    """The log says that they were changed; the same ones typed again are no change."""
    decide(decider, approval, "approve", arguments='{"word": "please"}')
    approval.refresh_from_db()
    assert (approval.arguments, approval.approved_arguments) == ({"word": "x"}, {"word": "please"})
    assert entries(approval) == [f"Approved: plain ({approval.tool_call_id}). The arguments were changed."]


def test_arguments_left_as_they_were_are_no_change(decider, approval):
    """The page offers them to be changed."""
    assert "&quot;word&quot;: &quot;x&quot;" in inbox(decider)
    decide(decider, approval, "approve", arguments='{\n  "word": "x"\n}')
    approval.refresh_from_db()
    assert (approval.status, approval.approved_arguments) == ("pending", None)


@pytest.mark.parametrize("typed", ['{"word": 5, "more": 1}', "{word: please}", "[1]", '"please"', '{"word": NaN}'])
def test_arguments_that_do_not_fit_change_nothing(decider, approval, typed):
    """It is said why, and nothing is logged."""
    _, [said] = decide(decider, approval, "approve", arguments=typed)
    assert "arguments" in said.lower()
    approval.refresh_from_db()
    assert approval.status == "approval_requested"
    assert entries(approval) == []


def test_approving_arguments_that_do_not_fit_any_more_names_them(decider, approval, agent, monkeypatch):
    """The call has failed; nothing says that it was approved."""

    @tool(name="plain")
    def changed(city: str) -> str:
        """Do the same for a city."""
        return city

    monkeypatch.setitem(agent.tools, "plain", changed)
    _, [said] = decide(decider, approval, "approve")
    assert "city: Field required" in said
    approval.refresh_from_db()
    assert approval.status == "failed"
    assert "city: Field required" in approval.error


def test_rejecting_tells_the_model_why(decider, approval):
    """It is no error of the tool's."""
    decide(decider, approval, "reject", reason="Too dear.")
    approval.refresh_from_db()
    assert (approval.status, approval.approval_reason) == ("denied", "Too dear.")
    assert "Too dear." in approval.error
    assert entries(approval) == [f"Rejected: plain ({approval.tool_call_id}). Reason: Too dear."]


def test_a_decision_that_comes_too_late_is_expired(decider, approval):
    """And said to be."""
    ToolCall.objects.update(expires_at=Now() - timedelta(seconds=1))
    _, [said] = decide(decider, approval, "approve")
    approval.refresh_from_db()
    assert approval.status == "expired"
    assert approval.tool_call_id in said
    assert entries(approval) == []


def test_the_first_decision_counts(decider, approval):
    """The second is told so."""
    decide(decider, approval, "reject")
    _, [*_, said] = decide(decider, approval, "approve")
    assert approval.tool_call_id in said
    approval.refresh_from_db()
    assert approval.status == "denied"
    assert len(entries(approval)) == 1


@pytest.mark.parametrize(
    ("typed", "stored"),
    [
        ('{"stock": 3}', {"stock": 3}),
        ("three, I think", "three, I think"),
        ("3", 3),
        ("null", None),
        ("[1, null]", [1, None]),
    ],
)
@pytest.mark.parametrize("waits", ["deferred", "browser"])
def test_a_result_is_posted_as_json_or_text(decider, request, waits, typed, stored):
    """In place of whom it was expected from."""
    call = request.getfixturevalue(waits)
    decide(decider, call, "result", result=typed)
    call.refresh_from_db()
    assert (call.status, call.result) == ("completed", stored)
    assert entries(call) == [f"Posted the result: plain ({call.tool_call_id})."]


def test_nothing_is_no_result(decider, deferred):
    """A button pressed by mistake ends no call."""
    _, [said] = decide(decider, deferred, "result", result="")
    assert "null is a result too" in said
    deferred.refresh_from_db()
    assert (deferred.status, entries(deferred)) == ("pending", [])


def test_an_error_is_posted_in_words(decider, deferred):
    """Without words it is not."""
    _, [said] = decide(decider, deferred, "error", result=" ")
    assert "Say what went wrong" in said
    decide(decider, deferred, "error", result="The warehouse is closed.")
    deferred.refresh_from_db()
    assert (deferred.status, deferred.error) == ("failed", "The warehouse is closed.")
    assert entries(deferred) == [f"Posted an error: plain ({deferred.tool_call_id})."]


@pytest.mark.parametrize(
    ("name", "given", "facts", "entry"),
    [
        ("settle", {"result": '{"sent": 5}'}, {"status": "completed", "result": {"sent": 5}}, "Settled as done"),
        ("settle-failed", {"result": "It never left."}, {"status": "failed", "error": "It never left."}, "Settled as"),
        ("run-again", {}, {"status": "pending", "attempt": 1, "error": ""}, "Let it run again"),
    ],
)
def test_a_person_says_what_became_of_a_lost_call(decider, unknown, name, given, facts, entry):
    """Done, failed, or once more; by whom and why is kept."""
    decide(decider, unknown, name, reason="I called the bank.", **given)
    unknown.refresh_from_db()
    assert {field: getattr(unknown, field) for field in facts} == facts
    assert (unknown.approval_decided_by.is_staff, unknown.approval_reason) == (True, "I called the bank.")
    [said] = entries(unknown)
    assert said.startswith(entry)


@pytest.mark.parametrize("waits", ["approval", "deferred"])
def test_the_time_of_an_open_call_can_be_changed(decider, request, waits):
    """Or taken away."""
    call = request.getfixturevalue(waits)
    decide(decider, call, "timeout", seconds="86400")
    call.refresh_from_db()
    assert timedelta(hours=23) < call.expires_at - timezone.now() < timedelta(hours=25)
    decide(decider, call, "timeout", seconds="none")
    call.refresh_from_db()
    assert call.expires_at is None
    decide(decider, call, "timeout", seconds="soon")
    assert len(entries(call)) == 2


# Who may, and how.


@pytest.mark.parametrize("name", [decision.name for decision in DECISIONS])
def test_without_permission_nothing_is_offered_or_done(reader, keeper, approval, name):
    """To look at calls, or to stop threads, is not to decide."""
    address = reverse(f"admin:durable_agents_toolcall_{name}", args=[approval.pk])
    for client in (reader, keeper):
        assert address not in inbox(client)
        assert address not in html(client.get(page(approval.thread)))
        assert client.post(address, {"seconds": "900"}).status_code == 403
    approval.refresh_from_db()
    assert (approval.status, entries(approval)) == ("approval_requested", [])


def test_the_inbox_is_for_those_who_may_view_calls(staff):
    """Others are told so, and strangers sent to sign in."""
    assert staff("view_thread").get(reverse(INBOX)).status_code == 403
    assert Client().get(reverse(INBOX)).status_code == 302


def test_a_decision_needs_a_post_with_a_token(decider, approval):
    """A link in a mail approves nothing."""
    address = reverse("admin:durable_agents_toolcall_approve", args=[approval.pk])
    forged = Client(enforce_csrf_checks=True)
    forged.cookies = decider.cookies
    assert decider.get(address).status_code == 405
    assert forged.post(address).status_code == 403
    assert decider.post(address.replace(str(approval.pk), "x")).status_code == 404
    assert status_of(approval.thread) == "awaiting_tool_results"


def test_the_way_back_stays_on_the_site(decider, approval):
    """Whatever the form says."""
    url, _ = decide(decider, approval, "approve", back="https://evil.example/")
    assert url == reverse(INBOX)


class Forms(HTMLParser):
    """The forms of a page: their ids, whether any lies in another, and which form each control belongs to."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.owners, self.depth, self.nested = set(), [], 0, False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        facts = dict(attrs)
        if tag == "form":
            self.depth += 1
            self.nested |= self.depth > 1
            self.ids.add(facts.get("id"))
        elif facts.get("form"):
            self.owners.append(facts["form"])

    def handle_endtag(self, tag):
        self.depth -= tag == "form"


@pytest.mark.parametrize("place", ["inbox", "thread"])
def test_each_call_has_a_form_of_its_own(decider, approval, place):
    """Outside that of the page: what is typed for one call is not sent for another, and Enter does not stop the run."""
    forms = Forms(inbox(decider) if place == "inbox" else html(decider.get(page(approval.thread))))
    assert set(forms.owners) == {f"da-form-{approval.pk.hex}"}
    assert set(forms.owners) <= forms.ids
    assert not forms.nested


def test_the_page_of_a_thread_says_what_it_waits_for(decider, approval):
    """At the top, with the way there, and with the buttons that fit."""
    shown = html(decider.get(page(approval.thread)))
    assert "1 call waits for a person" in shown
    assert f'href="#da-ask-{approval.pk.hex}"' in shown
    assert reverse("admin:durable_agents_toolcall_approve", args=[approval.pk]) in shown
    assert reverse("admin:durable_agents_toolcall_settle", args=[approval.pk]) not in shown


def test_a_lost_call_is_settled_on_the_page_of_its_thread(decider, unknown):
    """By the buttons that fit."""
    lost = html(decider.get(page(unknown.thread)))
    assert reverse("admin:durable_agents_toolcall_run-again", args=[unknown.pk]) in lost
    assert reverse("admin:durable_agents_toolcall_approve", args=[unknown.pk]) not in lost


def test_a_decision_is_shown_with_the_call(decider, approval):
    """Who, when and why."""
    decide(decider, approval, "reject", reason="Too dear.")
    shown = html(decider.get(page(approval.thread)))
    approval.refresh_from_db()
    assert "Too dear." in shown
    assert str(get_user_model().objects.get(pk=approval.approval_decided_by_id)) in shown


@pytest.mark.parametrize("decision", DECISIONS, ids=lambda decision: decision.name)
def test_a_person_reads_words_and_no_names_from_the_code(decision):
    assert "_" not in f"{decision.label} {decision.done} {decision.entry}"
