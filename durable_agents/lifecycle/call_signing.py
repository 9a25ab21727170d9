"""Sign tool calls with a keyed digest (HMAC), so that a worker runs only calls that nobody has changed.

A call must be unchanged since it was approved. If it needs no approval, it must be unchanged since the model made it.
Somebody who can write rows but does not know ``APPROVAL_KEYS`` can neither change nor approve a call.
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
    """Set ``approval_digest`` to the call's signature, and do not save the row.

    The signature covers the thread, the call id, the tool, the arguments, and whether approval was requested.
    """
    call.approval_digest = _digest(call, approval_keys()[0])


def is_signed(call: ToolCall) -> bool:
    """Return whether the call still matches its signature.

    A call is signed when a person approves it. A call that needs no approval is signed when the model makes it.
    """
    return any(constant_time_compare(_digest(call, key), call.approval_digest) for key in approval_keys())


def _digest(call: ToolCall, key: str | bytes) -> str:
    arguments = call.arguments if call.approved_arguments is None else call.approved_arguments
    # Also sign whether approval was requested. Otherwise, somebody could change a call that needs approval into a call
    # that needs none.
    was_requested = call.approval_requested_at is not None
    signed_values = ["durable_agents.approval", was_requested, str(call.thread_id), call.tool_call_id, call.tool_name]
    if call.is_resolved:
        signed_values.append("resolved")
    text = json.dumps([*signed_values, _canonical(arguments)], sort_keys=True, separators=(",", ":"))
    return hmac.new(force_bytes(key), text.encode(), hashlib.sha256).hexdigest()


def _canonical(value: object) -> object:
    """Convert whole floats in a JSON value, such as 2.0, to integers.

    PostgreSQL returns a stored 1e22 as an integer. Without the conversion, the signature would not match after the row
    is read again.
    """
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _canonical(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    return value
