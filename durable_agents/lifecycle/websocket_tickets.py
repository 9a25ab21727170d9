"""Websocket tickets. A ticket authenticates one websocket of a user who signed in over HTTP. It can be used once, and
only within a short time.

A ticket is bound to the credential that was used to fetch it. The database keeps the SHA-256 hash of the ticket, and
the credential encrypted with the ticket. Somebody who reads the row can therefore neither use the ticket nor learn a
token or a session.
"""

from __future__ import annotations

import hashlib
import secrets

from django.db.models.functions import Now

from durable_agents.actors import User
from durable_agents.caller_credentials import Credential
from durable_agents.lifecycle.transaction import database, transact, transition
from durable_agents.models import Ticket, seconds_from_now

TICKET_SECONDS = 60


@transition
def issue_ticket(user: User, credential: Credential | None = None) -> str:
    """Return a new ticket for this user, who must be a saved instance of the user model. The ticket is valid for
    ``TICKET_SECONDS``, but no longer than the credential. The default credential is valid while the user is active and
    has the same password.
    """
    ticket = secrets.token_urlsafe(32)
    sealed = (credential or Credential.of_user(user)).sealed(ticket)
    Ticket.objects.using(database()).create(
        digest=_digest(ticket), user_id=user.pk, expires_at=seconds_from_now(TICKET_SECONDS), credential=sealed
    )
    return ticket


@transition
def redeem_ticket(ticket: str) -> Credential | None:
    """Consume a ticket and return the credential that it is bound to. Return None if the ticket is unknown, used or
    expired. The caller gets the user from ``Credential.user_now``, which returns None if the credential is no longer
    valid.

    If several callers redeem a ticket at the same time, one of them gets the credential.
    """
    good = Ticket.objects.using(database()).filter(digest=_digest(ticket), expires_at__gt=Now())
    with transact():
        # Several callers may have read the row; only one of them deletes it.
        row = good.first()
        if row is None or not good.delete()[0]:
            return None
    # Tickets of the previous release have no credential. They are refused, and their clients fetch other tickets.
    credential = Credential.unsealed(row.credential or "", ticket)
    return credential if credential is not None and credential.user_id == str(row.user_id) else None


def _digest(ticket: str) -> str:
    return hashlib.sha256(ticket.encode("utf-8", "replace")).hexdigest()
