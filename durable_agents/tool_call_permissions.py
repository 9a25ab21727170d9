"""Decide whether a user may decide on a tool call or answer it: by permission, a project's function, or who asked."""

from __future__ import annotations

from django.contrib.auth.models import AnonymousUser

from durable_agents.actors import User
from durable_agents.agents import LEFT_TO_FUNCTION, registry
from durable_agents.logs import log_error
from durable_agents.models import ToolCall


def is_left_to(user: User | None, who: str, call: ToolCall, *, option: str) -> bool:
    """Return whether ``who``, the value of the tool's ``option`` (``approved_by`` or ``answered_by``), includes this
    user; None is a visitor. The values ``owner``, ``staff`` and ``server`` are not handled here.

    Staff have no privilege here: with ``other`` they may not decide on what they asked for themselves, and with a
    permission they need to have it.
    """
    if who == LEFT_TO_FUNCTION:
        return _function_allows(user, call, option=option)
    if user is None:
        return False
    if who == "other":
        return not call.is_asked_by(user)
    return "." in who and bool(user.has_perm(who))


def whom(who: str) -> str:
    """Describe who may decide on a call or answer it, for error messages and the admin."""
    if who == LEFT_TO_FUNCTION:
        return "somebody whom the tool's own function names"
    if "." in who:
        return f"somebody with the permission {who!r}"
    return _WHOM.get(who, who)


_WHOM = {
    "owner": "the thread's owner or a member of staff",
    "staff": "a member of staff",
    "other": "somebody other than the person who asked for it",
    "server": "the project itself or a member of staff in the admin",
}


def _function_allows(user: User | None, call: ToolCall, *, option: str) -> bool:
    """Return what the current function of the call's tool returns; False if it fails or no longer exists."""
    agent = registry.find(call.thread.agent)
    tool = agent.find_tool(call.tool_name) if agent else None
    function = getattr(tool, option, None)
    if not callable(function):
        return False
    try:
        return bool(function(AnonymousUser() if user is None else user, call))
    except Exception:
        log_error(f"{option} failed: nobody may", action=option, thread=call.thread_id, tool_call=call.tool_call_id)
        return False
