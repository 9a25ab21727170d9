"""Sign tool calls with a keyed digest. A worker runs a call only if the call is unchanged since its approval. If no
approval is needed, the call must be unchanged since the model made it.

Anyone who can write rows but does not know ``APPROVAL_KEYS`` can neither alter an approved call nor approve a call.
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
    """Sign the call: set ``approval_digest`` to a keyed digest of the call's thread, id, tool and arguments, and of
    whether approval was requested. The caller has to save the row.
    """
    call.approval_digest = _digest(call, approval_keys()[0])


def is_signed(call: ToolCall) -> bool:
    """Return whether the call is unchanged since a person approved it or, if it needed no approval, since the model
    made it.
    """
    return any(constant_time_compare(_digest(call, key), call.approval_digest) for key in approval_keys())


def _digest(call: ToolCall, key: str | bytes) -> str:
    arguments = call.arguments if call.approved_arguments is None else call.approved_arguments
    # The digest covers whether approval was requested, so that a call that needs approval cannot be changed into a call
    # that needs none.
    was_requested = call.approval_requested_at is not None
    signed_values = ["durable_agents.approval", was_requested, str(call.thread_id), call.tool_call_id, call.tool_name]
    if call.is_resolved:
        signed_values.append("resolved")
    text = json.dumps([*signed_values, _canonical(arguments)], sort_keys=True, separators=(",", ":"))
    return hmac.new(force_bytes(key), text.encode(), hashlib.sha256).hexdigest()


def _canonical(value: object) -> object:
    """Return the JSON value with whole floats, such as 2.0, converted to integers. PostgreSQL stores the float 1e22 but
    returns an integer. Without the conversion, the digest would change when the row is read again.
    """
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _canonical(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    return value
