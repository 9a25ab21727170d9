"""Hides how somebody who signed in over HTTP is known again on a websocket: by a ticket that is good once, and soon.

The database keeps a ticket's SHA-256 only, so that nobody who reads it can use one.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Any

from django.db.models.functions import Now

from durable_agents.lifecycle.locking import arrow, database, transact
from durable_agents.models import Ticket, seconds_from_now

TICKET_SECONDS = 60


@arrow
def issue_ticket(user: Any) -> str:
    """A new ticket of this user, who must be a row of the user model; it is good for ``TICKET_SECONDS``."""
    ticket = secrets.token_urlsafe(32)
    expires_at = seconds_from_now(TICKET_SECONDS)
    Ticket.objects.using(database()).create(digest=_digest(ticket), user_id=user.pk, expires_at=expires_at)
    return ticket


@arrow
def redeem_ticket(ticket: str) -> Any | None:
    """Use a ticket up: its user, or None where it is unknown, used, expired, or of a user who is locked out.

    Of several that use the same one at once, one gets the user.
    """
    good = Ticket.objects.using(database()).filter(digest=_digest(ticket), expires_at__gt=Now())
    with transact():
        found = good.select_related("user").first()
        if found is None or not good.delete()[0]:
            return None
    return found.user if getattr(found.user, "is_active", True) else None


def _digest(ticket: str) -> str:
    return hashlib.sha256(ticket.encode("utf-8", "replace")).hexdigest()
