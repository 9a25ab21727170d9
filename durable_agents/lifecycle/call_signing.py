"""Sign tool calls with a keyed digest: exactly the call that was approved, or that needed no approval, is run.

Whoever can write rows but does not know ``APPROVAL_KEYS`` can neither alter an approved call nor approve one.
"""

from __future__ import annotations

import hashlib
import hmac
import json

from django.utils.crypto import constant_time_compare
from django.utils.encoding import force_bytes

from durable_agents.conf import approval_keys
from durable_agents.models import ToolCall


def sign_call(call: ToolCall) -> None:
    """Return the digest of a call's thread, id, tool and arguments, and of whether a person approved it."""
    call.approval_digest = _digest(call, approval_keys()[0])


def is_signed(call: ToolCall) -> bool:
    """Whether the call is unchanged since it was approved or, without approval, made."""
    return any(constant_time_compare(_digest(call, key), call.approval_digest) for key in approval_keys())


def _digest(call: ToolCall, key: str | bytes) -> str:
    arguments = call.arguments if call.approved_arguments is None else call.approved_arguments
    # Whether a person approved is part of it: a call that needs approval cannot be made into one that does not.
    was_requested = call.approval_requested_at is not None
    signed_values = ["durable_agents.approval", was_requested, str(call.thread_id), call.tool_call_id, call.tool_name]
    text = json.dumps([*signed_values, _canonical(arguments)], sort_keys=True, separators=(",", ":"))
    return hmac.new(force_bytes(key), text.encode(), hashlib.sha256).hexdigest()


def _canonical(value: object) -> object:
    """Return a JSON value whose numbers every database returns unchanged: PostgreSQL returns 1e22 as an integer."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _canonical(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    return value
