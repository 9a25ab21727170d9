"""Find out who has opened a websocket, and whether this caller may connect.

Each function of this module does all its database work in one call in an OS thread. When many clients connect at once,
a second call would have to wait for the calls of all other clients.
"""

from __future__ import annotations

from dataclasses import dataclass

from durable_agents.caller_credentials import Credential
from durable_agents.live.asgi_scope import Scope, SocketAsker
from durable_agents.live.caller_limits import caller_of
from durable_agents.policies import SignIn, may_connect


@dataclass(frozen=True, kw_only=True)
class Admission:
    """What is known about a caller who may connect."""

    caller: str
    """The name of the caller, as in ``caller_limits``."""
    sign_in: SignIn


def arrival_of(scope: Scope) -> tuple[SocketAsker, Admission | None]:
    """Return the caller who has opened a websocket, and the caller's admission. The admission is None if the policy
    does not let the caller connect.
    """
    asker = SocketAsker(scope)
    return asker, admission_of(asker, None)


def admission_of(asker: SocketAsker, credential: Credential | None) -> Admission | None:
    """Return the admission of a caller, or None if the policy does not let the caller connect.

    ``credential`` is what the caller's ticket was issued for. It is None for a caller without a ticket.
    """
    if not may_connect(asker):
        return None
    return Admission(caller=caller_of(asker), sign_in=SignIn(asker, credential))
