"""Websocket tickets: authenticate on a websocket, once and within a short time, a caller who signed in over HTTP.

A ticket is bound to the credential that it was fetched with. The database keeps the ticket's SHA-256, and the
credential encrypted with the ticket: a reader of the row can neither use a ticket nor learn a token or a session.
"""

from __future__ import annotations

import hashlib
import secrets

from django.db.models.functions import Now

from durable_agents.actors import User
from durable_agents.credentials import Credential
from durable_agents.lifecycle.transaction import database, transact, transition
from durable_agents.models import Ticket, seconds_from_now

TICKET_SECONDS = 60


@transition
def issue_ticket(user: User, credential: Credential | None = None) -> str:
    """Return a new ticket for this user, who must be a row of the user model. It is valid for ``TICKET_SECONDS``, and
    as long as the credential is: by default, as long as the user is active and has the same password.
    """
    ticket = secrets.token_urlsafe(32)
    sealed = (credential or Credential.of_user(user)).sealed(ticket)
    Ticket.objects.using(database()).create(
        digest=_digest(ticket), user_id=user.pk, expires_at=seconds_from_now(TICKET_SECONDS), credential=sealed
    )
    return ticket


@transition
def redeem_ticket(ticket: str) -> Credential | None:
    """Consume a ticket and return the credential that it is bound to, or None if the ticket is unknown, used or
    expired. The caller gets the user from ``Credential.user_now``, which may refuse.

    If a ticket is redeemed several times at once, one caller gets the credential.
    """
    good = Ticket.objects.using(database()).filter(digest=_digest(ticket), expires_at__gt=Now())
    with transact():
        # Several callers may have read the row; only one of them deletes it.
        row = good.first()
        if row is None or not good.delete()[0]:
            return None
    # The previous release wrote tickets without a credential: they are refused, and their clients fetch another one.
    credential = Credential.unsealed(row.credential or "", ticket)
    return credential if credential is not None and credential.user_id == str(row.user_id) else None


def _digest(ticket: str) -> str:
    return hashlib.sha256(ticket.encode("utf-8", "replace")).hexdigest()
