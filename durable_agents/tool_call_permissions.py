"""Decide whether a user may approve a tool call or add its result.

The tool's options ``approved_by`` and ``answered_by`` say who may do so: the thread's owner, staff users, any user
except the one who caused the call, users with a permission, users whom one of the project's functions allows, or only
the project's own code. An option can also combine several of these conditions; a user must then meet all of them.
"""

from __future__ import annotations

from collections.abc import Callable

from django.contrib.auth.models import AnonymousUser
from django.utils.translation import gettext_noop

from durable_agents.actors import Actor, User
from durable_agents.agents import AND, LEFT_TO_FUNCTION, deciding_function, registry
from durable_agents.logs import log_error
from durable_agents.models import ToolCall, ToolCallStatus


def conditions_of(who: str) -> list[str]:
    """Return the conditions in a stored value of ``approved_by`` or ``answered_by``. A user must meet all of them."""
    return who.split(AND)


def meets_all(who: str, *, is_staff: bool, owns: Callable[[], bool], meets_other: Callable[[str], bool]) -> bool:
    """Return whether a person meets all conditions in ``who``, a stored value of ``approved_by`` or ``answered_by``.

    ``owns`` is called for the condition ``owner``. ``meets_other`` is called for each condition that is neither
    ``owner`` nor ``staff``.
    """
    return all(
        is_staff or (condition == "owner" and owns()) if condition in {"owner", "staff"} else meets_other(condition)
        for condition in conditions_of(who)
    )


def meets_condition(user: User | None, condition: str, call: ToolCall, *, option: str) -> bool:
    """Return whether this user meets one condition of the tool's option ``approved_by`` or ``answered_by``.

    ``option`` is the name of the option. ``user`` is None for a visitor. The conditions are:

    - ``other``: any user except the one who caused the tool call.
    - a permission name: users with this permission.
    - ``function``: the tool's own function decides.

    Staff users have no extra rights. For ``owner``, ``staff`` and ``server``, the result is always False.
    """
    if condition == LEFT_TO_FUNCTION:
        return _function_allows(user, call, option=option)
    if user is None:
        return False
    if condition == "other":
        return not call.is_asked_by(user)
    return "." in condition and bool(user.has_perm(condition))


def may_decide(by: Actor, call: ToolCall, *, option: str) -> bool:
    """Return whether ``by`` may approve the tool call or add its result.

    ``option`` is ``approved_by`` for an approval, and ``answered_by`` for a result. The project's own code is always
    allowed to do both. For people, the value of the option decides:

    - ``staff``: staff users.
    - ``owner``: staff users and the thread's owner. A thread without an owner belongs to all callers with its scope.
    - ``other``, a permission name, or ``function``: only users who meet this condition (see ``meets_condition``).
    - ``server``: nobody.
    - several conditions, joined by " and ": only users who meet all of them.
    """
    thread = call.thread
    return not by.is_person or meets_all(
        getattr(call, option),
        is_staff=getattr(by.user, "is_staff", False),
        owns=lambda: bool(by.scope == thread.scope if thread.owner_id is None else by.user_id == thread.owner_id),
        meets_other=lambda condition: meets_condition(by.user, condition, call, option=option),
    )


def may_answer(by: Actor, call: ToolCall) -> bool:
    """Return whether ``by`` may do what the tool call waits for.

    A tool call waits for an approval, for a result, or for a decision about the outcome of an interrupted tool. Only
    staff users and the project's own code may decide about the outcome of an interrupted tool.
    """
    if call.status == ToolCallStatus.UNKNOWN:
        return not by.is_person or bool(getattr(by.user, "is_staff", False))
    is_approval = call.status == ToolCallStatus.APPROVAL_REQUESTED
    return may_decide(by, call, option="approved_by" if is_approval else "answered_by")


def may_answer_as_staff(user: User | None, call: ToolCall, *, option: str) -> bool:
    """Return whether this member of staff may approve the tool call or add its result in the admin.

    ``option`` is ``approved_by`` for an approval, and ``answered_by`` for a result. Every member of staff meets the
    conditions ``owner``, ``staff`` and ``server``. All other conditions are checked by ``meets_condition``.
    """
    return all(
        condition in {"owner", "staff", "server"} or meets_condition(user, condition, call, option=option)
        for condition in conditions_of(getattr(call, option))
    )


def may_set_time(user: User | None, call: ToolCall) -> bool:
    """Return whether this member of staff may change the time limit of an unfinished tool call.

    With a very short time limit, a person could prevent an approval or a result. Therefore, this person must be allowed
    to give everything that the tool call may still need: an approval, a result, or both.
    """
    if call.status == ToolCallStatus.APPROVAL_REQUESTED:
        options = ["approved_by"]
    elif call.status == ToolCallStatus.PENDING and call.needs_worker:
        options = ["approved_by", "answered_by"]
    else:
        options = [] if call.status == ToolCallStatus.UNKNOWN else ["answered_by"]
    return all(may_answer_as_staff(user, call, option=option) for option in options)


def whom(who: str, translate: Callable[[str], str] = str) -> str:
    """Describe who may approve a call or add its result, for error messages and the admin."""
    conditions = conditions_of(who)
    if len(conditions) > 1:
        listed = "; ".join(whom(condition, translate) for condition in conditions)
        return translate(gettext_noop("one person who meets all of these conditions: %(conditions)s")) % {
            "conditions": listed
        }
    if who == LEFT_TO_FUNCTION:
        return translate(gettext_noop("somebody whom the tool's own function names"))
    if "." in who:
        return translate(gettext_noop("somebody with the permission '%(permission)s'")) % {"permission": who}
    return translate(_WHOM[who]) if who in _WHOM else who


_WHOM = {
    "owner": gettext_noop("the thread's owner or a member of staff"),
    "staff": gettext_noop("a member of staff"),
    "other": gettext_noop("somebody other than the person who asked for it"),
    "server": gettext_noop("the project itself or a member of staff in the admin"),
}


def _function_allows(user: User | None, call: ToolCall, *, option: str) -> bool:
    """Call the function in the tool's current declaration, and return its answer. Return False if the function raises
    an error, or if the tool no longer has a function.
    """
    agent = registry.find(call.thread.agent)
    tool = agent.find_tool(call.name_in_code) if agent else None
    function = None if tool is None else deciding_function(getattr(tool, option))
    if function is None:
        return False
    try:
        return bool(function(AnonymousUser() if user is None else user, call))
    except Exception:
        log_error(f"{option} failed: nobody may", action=option, thread=call.thread_id, tool_call=call.tool_call_id)
        return False
