"""Example requests and responses for the OpenAPI schema. They show one conversation with the support agent of a shop.

The name of a response's schema selects its example. An operation can have an example of its own instead.
"""

from __future__ import annotations

from collections.abc import Mapping

_THREAD_ID = "5f3c1b0e-8a4d-4f6b-9c27-1d2e3f405162"
_ANSWER_ID = "c7d0a1f4-52b6-4a7e-8f13-90ab12cd34ef"
_STREAM_ID = "e21b7c55-0d3f-4c1a-b8a9-6f7788990011"
_ATTACHMENT_ID = "8c6e2d7a-91f0-4b3c-a5d4-2e6f80917b3a"
_CALL_ID = "call_7Qe2"
_ASKED_AT, _CALLED_AT, _ANSWERED_AT = (f"2026-03-02T09:15:{second}+00:00" for second in ("04", "06", "11"))

_USAGE = {
    "input_tokens": 1284,
    "output_tokens": 96,
    "cached_input_tokens": 1024,
    "total_tokens": 1380,
    "cost": "0.00176400",
}
_THREAD: dict[str, object] = {
    "id": _THREAD_ID,
    "client_id": "chat-1",
    "agent": "support",
    "title": "Where is my order?",
    "status": "completed",
    "rev": 7,
    "created_at": _ASKED_AT,
    "updated_at": _ANSWERED_AT,
    "archived": False,
    "metadata": {"page": "/orders/1042"},
    "retry": None,
    "error": None,
    "read_only": None,
    "usage": _USAGE,
    "active_stream": None,
    "is_running": False,
}
_RUNNING = _THREAD | {
    "status": "streaming",
    "rev": 3,
    "updated_at": _ASKED_AT,
    "usage": dict.fromkeys(_USAGE, 0) | {"cost": None},
    "active_stream": {"id": _STREAM_ID, "number": 1},
    "is_running": True,
}
_QUESTION: dict[str, object] = {
    "id": "msg-1",
    "client_id": "msg-1",
    "role": "user",
    "parts": [{"type": "text", "text": "Where is my order 1042?"}],
    "metadata": {"sender": {"id": "7", "name": "Ann Archer"}},
    "sender": {"id": "7", "name": "Ann Archer"},
    "position": 1,
    "created_at": _ASKED_AT,
}
_TOOL_PART = {
    "type": "tool-find_order",
    "toolCallId": _CALL_ID,
    "state": "output-available",
    "input": {"order_id": 1042},
    "output": {"status": "shipped"},
}
_ANSWER: dict[str, object] = {
    "id": _ANSWER_ID,
    "client_id": None,
    "role": "assistant",
    "parts": [
        {"type": "step-start"},
        _TOOL_PART,
        {"type": "step-start"},
        {"type": "text", "text": "It was shipped this morning.", "state": "done"},
    ],
    "metadata": {},
    "sender": None,
    "position": 2,
    "created_at": _ASKED_AT,
}
_CALL: dict[str, object] = {
    "tool_call_id": _CALL_ID,
    "tool_name": "find_order",
    "kind": "client",
    "arguments": {"order_id": 1042},
    "approved_arguments": None,
    "status": "completed",
    "result": {"status": "shipped"},
    "error": None,
    "progress": None,
    "attempt": 1,
    "max_attempts": 1,
    "expires_at": None,
    "created_at": _CALLED_AT,
    "approval": None,
    "answered_by_user": {"id": "7", "name": "Ann Archer"},
}
_REFUND = _CALL | {
    "tool_name": "refund",
    "kind": "sync",
    "arguments": {"order_id": 1042, "amount": "25.00"},
    "status": "pending",
    "result": None,
    "approval": {
        "requested_at": _CALLED_AT,
        "decided_at": _ANSWERED_AT,
        "decided_by": "ann",
        "reason": "Agreed by mail.",
        "can_decide": False,
    },
    "answered_by_user": None,
}
_ATTEMPT = {
    "id": _STREAM_ID,
    "number": 1,
    "message": _ANSWER_ID,
    "attempt": 1,
    "state": "finished",
    "model": "anthropic/claude-haiku-4-5",
    "finish_reason": "stop",
    "error_code": "",
    "usage": _USAGE,
    "usage_estimated": False,
    "created_at": _ASKED_AT,
    "started_at": _ASKED_AT,
    "finished_at": _ANSWERED_AT,
}

BODIES: Mapping[str, object] = {
    "NewThread": {"agent": "support", "prompt": "Where is my order 1042?", "client_id": "chat-1"},
    "NewMessage": {
        "parts": [
            {"type": "text", "text": "And what is this?"},
            {"type": "file", "mediaType": "image/png", "url": f"/agents/attachments/{_ATTACHMENT_ID}/"},
        ],
        "client_id": "msg-2",
        "metadata": {"page": "/orders/1042"},
    },
    "NewWords": {"prompt": "Where is my order 1043?"},
    "Regeneration": {"message_id": _ANSWER_ID},
    "Fork": {"at": _ANSWER_ID},
    "NewAttachment": {"file": "parcel.png"},
    "ThreadChanges": {"title": "Order 1042", "archived": True},
    "Continuation": {"prompt": "Go on, but briefly."},
    "GivenResult": {"result": {"status": "shipped"}},
    "GivenError": {"error": "The shop's system does not answer."},
    "Approval": {"arguments": {"order_id": 1042, "amount": "20.00"}, "reason": "Agreed by mail."},
    "Refusal": {"reason": "The order was never paid."},
    "GivenTime": {"seconds": 3600},
    "ChatRequest": {
        "id": "chat-1",
        "trigger": "submit-message",
        "messages": [
            {"id": "msg-1", "role": "user", "parts": [{"type": "text", "text": "Where is my order 1042?"}]},
        ],
    },
    "StopQuery": {"messageId": _ANSWER_ID},
}
"""Example request bodies, by the name of the serializer class."""

ANSWERS: Mapping[str, object] = {
    "Agent": {
        "name": "support",
        "description": "Answers questions about orders.",
        "tools": [
            {
                "name": "refund",
                "description": "Pay an order back.",
                "kind": "sync",
                "needs_approval": True,
            }
        ],
    },
    "Thread": _THREAD,
    "Message": _QUESTION,
    "ToolCall": _CALL,
    "OpenStream": {"id": _STREAM_ID, "number": 1, "seq": 12, "message": _ANSWER_ID},
    "ThreadUsage": _USAGE
    | {
        "models": [_USAGE | {"model": "anthropic/claude-haiku-4-5", "attempts": 1, "usage_estimated": False}],
        "attempts": [_ATTEMPT],
        "next": None,
        "previous": None,
    },
    "Export": {
        "format": "durable_agents.thread",
        "version": 1,
        "thread": {"id": _THREAD_ID, "agent": "support", "title": "Where is my order?", "usage": _USAGE},
        "messages": [_QUESTION | {"parent": None, "queued_at": None, "superseded_at": None}],
        "streams": [_ATTEMPT],
        "tool_calls": [_CALL | {"message": _ANSWER_ID, "stream": _STREAM_ID}],
        "attachments": [],
    },
    "Stopped": {"status": "stopped"},
    "Ticket": {"ticket": "q3X0b1vN6yGkT8sWcZr2LQ", "expires_in": 60},
    "Attachment": {
        "id": _ATTACHMENT_ID,
        "url": f"/agents/attachments/{_ATTACHMENT_ID}/",
        "mediaType": "image/png",
        "filename": "parcel.png",
        "size": 48213,
    },
}
"""Example responses, by the name of the schema. For a list, the example is one row."""

TOLD_BY: Mapping[str, object] = {
    "createThread": _RUNNING,
    "resumeThread": _RUNNING,
    "stopThread": _RUNNING | {"status": "stopped", "rev": 5, "active_stream": None, "is_running": False},
    "updateThread": _THREAD | {"title": "Order 1042", "archived": True, "rev": 8},
    "forkThread": _THREAD | {"id": "0d9e4f1c-3b2a-4c5d-8e6f-a1b2c3d4e5f6", "client_id": None, "rev": 1},
    "regenerate": _ANSWER | {"parts": []},
    "addToolError": _CALL | {"status": "failed", "result": None, "error": "The shop's system does not answer."},
    "approveToolCall": _REFUND | {"approved_arguments": {"order_id": 1042, "amount": "20.00"}},
    "rejectToolCall": _REFUND | {"status": "denied"},
    "setToolCallTimeout": _CALL | {"status": "pending", "result": None, "expires_at": "2026-03-02T10:15:06+00:00"},
}
"""Example responses, by operation id, for operations that need another example than the one in ``ANSWERS``."""
