"""Determine whether a user may approve a tool call or post its result.

The answer depends on a permission, on one of the project's functions, or on who asked for the call.
"""

from __future__ import annotations

from django.contrib.auth.models import AnonymousUser

from durable_agents.actors import User
from durable_agents.agents import LEFT_TO_FUNCTION, registry
from durable_agents.logs import log_error
from durable_agents.models import ToolCall


def is_left_to(user: User | None, who: str, call: ToolCall, *, option: str) -> bool:
    """Return whether ``who`` lets this user act on the call.

    ``who`` is the value of the tool's option ``approved_by`` or ``answered_by``: ``other`` (any user but the one who
    asked for the call), the name of a permission, or ``function``. The caller of this function handles the values
    ``owner``, ``staff`` and ``server``. The user is None for a visitor. Staff have no privileges here.
    """
    if who == LEFT_TO_FUNCTION:
        return _function_allows(user, call, option=option)
    if user is None:
        return False
    if who == "other":
        return not call.is_asked_by(user)
    return "." in who and bool(user.has_perm(who))


def whom(who: str) -> str:
    """Describe who may approve a call or post its result, for error messages and the admin."""
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
    """Call the function that the tool currently declares, and return its answer. Return False if the function raises,
    or if the tool no longer declares a function.
    """
    agent = registry.find(call.thread.agent)
    tool = agent.find_tool(call.name_in_code) if agent else None
    function = getattr(tool, option, None)
    if not callable(function):
        return False
    try:
        return bool(function(AnonymousUser() if user is None else user, call))
    except Exception:
        log_error(f"{option} failed: nobody may", action=option, thread=call.thread_id, tool_call=call.tool_call_id)
        return False
