"""Websocket tickets. A user who signed in over HTTP gets a ticket, and opens one websocket with it within a short time.

A ticket belongs to the credential (session or token) that the user signed in with. The database stores only a SHA-256
hash of the ticket, and the credential encrypted with the ticket. Somebody who reads the row can use neither the ticket
nor the credential.
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
    """Return a new ticket for this saved user. It is valid for ``TICKET_SECONDS``, but not longer than the credential.

    The default credential is valid while the user is active and keeps the same password.
    """
    ticket = secrets.token_urlsafe(32)
    sealed = (credential or Credential.of_user(user)).sealed(ticket)
    Ticket.objects.using(database()).create(
        digest=_digest(ticket), user_id=user.pk, expires_at=seconds_from_now(TICKET_SECONDS), credential=sealed
    )
    return ticket


@transition
def redeem_ticket(ticket: str) -> Credential | None:
    """Use up a ticket, and return the credential it was issued for. Return None if the ticket is unknown, used or
    expired.

    If several callers use the same ticket at once, only one gets the credential. To get the user, call
    ``Credential.user_now``; it returns None if the credential is no longer valid.
    """
    good = Ticket.objects.using(database()).filter(digest=_digest(ticket), expires_at__gt=Now())
    with transact():
        # Several callers may have read the row, but only one of them deletes it.
        row = good.first()
        if row is None or not good.delete()[0]:
            return None
    # Tickets of the previous release have no credential. They are refused, and the clients request new ones.
    credential = Credential.unsealed(row.credential or "", ticket)
    return credential if credential is not None and credential.user_id == str(row.user_id) else None


def _digest(ticket: str) -> str:
    return hashlib.sha256(ticket.encode("utf-8", "replace")).hexdigest()
