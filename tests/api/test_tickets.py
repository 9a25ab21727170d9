"""Tickets for websockets: for users, never stored as they are, and pruned."""

import hashlib
from datetime import timedelta

import pytest
from django.contrib.auth.models import AnonymousUser
from django.db.models.functions import Now
from rest_framework.authtoken.models import Token

from durable_agents.caller_credentials import Credential
from durable_agents.lifecycle import issue_ticket, prune, redeem_ticket
from durable_agents.models import Ticket
from tests.api.calls import Api, person, problem

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("path", ["ws-ticket/", "ws-ticket"])
def test_a_user_gets_a_ticket(api, agent, me, path):
    """For a minute, and not for caches."""
    response = api.post(path)
    body = response.json()
    assert (response.status_code, set(body), body["expires_in"]) == (200, {"ticket", "expires_in"}, 60)
    assert response["Cache-Control"] == "no-store"
    assert redeem_ticket(body["ticket"]).user_now() == me
    assert redeem_ticket(body["ticket"]) is None


def test_each_ticket_is_another(api, agent):
    """And hard to guess."""
    tickets = {api.post("ws-ticket/").json()["ticket"] for _ in range(5)}
    assert len(tickets) == 5
    assert min(map(len, tickets)) >= 40


def test_only_a_digest_is_stored(api, agent, me):
    """Who reads the database cannot come in."""
    ticket = api.post("ws-ticket/").json()["ticket"]
    [row] = Ticket.objects.values()
    assert row["digest"] == hashlib.sha256(ticket.encode()).hexdigest()
    assert ticket not in str(row)
    assert row["user_id"] == me.pk


def test_the_row_says_nothing_of_what_the_ticket_was_fetched_with(agent, me):
    """Neither a token nor the key of a session, in whatever form; and it is another text each time."""
    token = Token.objects.create(user=me)
    caller = Api(me, headers={"Authorization": f"Token {token.key}"})
    session = caller.client.cookies["sessionid"].value
    tickets = [caller.post("ws-ticket/").json()["ticket"] for _ in range(2)]
    rows = [str(row) for row in Ticket.objects.values()]
    for text in (token.key, session, token.key.encode().hex(), session.encode().hex(), "HTTP_"):
        assert text not in "".join(rows)
    assert len({row.credential[:8] for row in Ticket.objects.all()}) == 2
    for row in Ticket.objects.all():
        assert Credential.unsealed(row.credential, "another ticket") is None
    assert redeem_ticket(tickets[0]).user_now() == me


def test_a_ticket_without_a_credential_is_refused(me):
    """Who can write rows, and no more, gets in as nobody; the release before wrote such tickets, good for a minute."""
    ticket = issue_ticket(me)
    Ticket.objects.update(credential=None)
    assert redeem_ticket(ticket) is None


def test_a_credential_of_one_user_is_no_good_in_the_ticket_of_another(me):
    """Nor is one that was changed."""
    other = person("other")
    for change in (lambda row: {"user_id": other.pk}, lambda row: {"credential": row.credential[:-2] + "00"}):
        ticket = issue_ticket(me)
        row = Ticket.objects.get()
        Ticket.objects.update(**change(row))
        assert redeem_ticket(ticket) is None


def test_a_body_says_nothing(api, agent, me):
    """Nobody gets a ticket of somebody else's, or for longer."""
    api.post("ws-ticket/", {"user": 1, "user_id": 1, "expires_in": 10**6, "digest": "x"})
    row = Ticket.objects.get()
    assert (row.user, len(row.digest)) == (me, 64)


def test_a_ticket_is_made_with_whatever_signs_in(agent, me):
    """A token above all: that is what a browser's websocket cannot send."""
    token = Token.objects.create(user=me)
    caller = Api(headers={"Authorization": f"Token {token.key}"})
    assert redeem_ticket(caller.post("ws-ticket/").json()["ticket"]).user_now() == me


class Everybody:
    """Lets everybody in."""

    def filter(self, queryset, request):
        """Return every thread."""
        return queryset

    def allows(self, request, action, **_):
        """Allow everything."""
        return True


class Nobody(Everybody):
    """Lets nobody in."""

    def allows(self, request, action, **_):
        """Allow nothing."""
        return False


def test_guests_get_no_ticket(agent, settings):
    """There is no user whom it could name, though the policy lets them in."""
    settings.DURABLE_AGENTS = {"POLICY": f"{__name__}.Everybody"}
    refused = Api().post("ws-ticket/")
    assert problem(refused) in {(401, "not_authenticated"), (403, "not_authenticated")}
    assert not Ticket.objects.exists()


def test_who_may_see_nothing_gets_no_ticket(api, agent, settings):
    """It would open nothing."""
    settings.DURABLE_AGENTS = {"POLICY": f"{__name__}.Nobody"}
    assert problem(api.post("ws-ticket/")) == (403, "permission_denied")


def test_a_user_who_is_no_row_gets_no_ticket(agent, monkeypatch):
    """Some ways to sign in know only what a token says."""

    class Bearer(AnonymousUser):
        """Somebody without a row."""

        pk = 7
        is_authenticated = True

    monkeypatch.setattr("durable_agents.api.views.TicketView.authentication_classes", [lambda: Signs(Bearer())])
    assert problem(Api().post("ws-ticket/")) == (403, "permission_denied")


class Signs:
    """Signs somebody in whatever they send."""

    def __init__(self, user):
        self.user = user

    def authenticate(self, request):
        """Return the user."""
        return self.user, None

    def authenticate_header(self, request):
        """Return how to sign in."""
        return "Bearer"


def test_a_deleted_users_tickets_are_gone(api, agent, me):
    """With everything else of theirs."""
    ticket = api.post("ws-ticket/").json()["ticket"]
    me.delete()
    assert redeem_ticket(ticket) is None


def test_expired_tickets_are_pruned(me):
    """And no others."""
    old, good = issue_ticket(me), issue_ticket(me)
    digest = hashlib.sha256(old.encode()).hexdigest()
    Ticket.objects.filter(digest=digest).update(expires_at=Now() - timedelta(seconds=1))
    prune()
    assert Ticket.objects.count() == 1
    assert redeem_ticket(old) is None
    assert redeem_ticket(good).user_now() == me
