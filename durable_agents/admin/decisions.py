"""Let staff decide about tool calls in the admin: find the calls that need a person, and list and apply decisions."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from django.db.models import Q, QuerySet, TextChoices
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from durable_agents import lifecycle, strictjson
from durable_agents.actors import Actor, User
from durable_agents.admin import log_entry_texts
from durable_agents.conf import config
from durable_agents.exceptions import InvalidPartsError, PermissionDeniedError
from durable_agents.models import ToolCall, ToolCallStatus, ToolKind
from durable_agents.tool_call_permissions import may_answer_as_staff, may_set_time, whom

NO_LIMIT = "none"
TIMES = (
    ("900", _("15 minutes")),
    ("3600", _("1 hour")),
    ("86400", _("1 day")),
    ("604800", _("7 days")),
    (NO_LIMIT, _("without limit")),
)
"""The time limits that a person can choose from, in seconds."""


class Question(TextChoices):
    """The kind of answer that a tool call waits for."""

    # A person must approve the call before it runs.
    APPROVAL = "approval", _("Approvals")
    # The worker died during the call, so a person must say whether the call ran.
    OUTCOME = "outcome", _("May have run")
    # A person, a browser or another service must send the result.
    ANSWER = "answer", _("Answers")


_IS = {
    Question.APPROVAL: Q(status=ToolCallStatus.APPROVAL_REQUESTED),
    Question.OUTCOME: Q(status=ToolCallStatus.UNKNOWN),
    Question.ANSWER: Q(
        status=ToolCallStatus.PENDING, kind__in=[ToolKind.DEFERRED, ToolKind.CLIENT], needs_worker=False
    ),
}


def waiting(question: Question | None = None) -> QuerySet[ToolCall]:
    """Return the calls that wait for a person, oldest first. With ``question``, return only the calls that wait for
    this kind of answer.
    """
    wanted = Q(*_IS.values(), _connector=Q.OR) if question is None else _IS[question]
    return ToolCall.objects.open().filter(wanted).order_by("created_at", "pk").with_asker()


def question_of(call: ToolCall) -> Question | None:
    """Return the kind of answer that a call waits for; None if it does not wait for a person."""
    if call.finished_at is not None:
        return None
    if call.status == ToolCallStatus.APPROVAL_REQUESTED:
        return Question.APPROVAL
    if call.status == ToolCallStatus.UNKNOWN:
        return Question.OUTCOME
    is_from_outside = call.kind in {ToolKind.DEFERRED, ToolKind.CLIENT} and not call.needs_worker
    return Question.ANSWER if is_from_outside and call.status == ToolCallStatus.PENDING else None


FormData = Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A decision about a tool call.

    - ``question``: the call must be waiting for this kind of answer. If ``question`` is None, the decision applies
      to any unfinished call.
    - ``run``: carries out the decision.
    - ``entry``: the beginning of the log entry.
    - ``done``: the text that the admin shows to the user after the decision.
    """

    name: str
    label: Promise
    run: Callable[[ToolCall, FormData, Actor], ToolCall]
    entry: str
    done: Promise
    question: Question | None = None
    is_refusal: bool = False

    @property
    def address(self) -> str:
        """The name of the URL to which the decision's form is posted."""
        return f"admin:durable_agents_toolcall_{self.name}"

    def log_entry(self, call: ToolCall, form: FormData) -> str:
        """Return the text of the log entry: what was decided, about which call, and why."""
        return log_entry_texts.about_call(
            self.entry,
            f"{call.tool_name} ({call.tool_call_id})",
            are_arguments_changed=call.approved_arguments is not None and self.name == "approve",
            reason=_text(form, "reason"),
        )


def is_left_to_user(call: ToolCall, user: User) -> bool:
    """Return whether the tool's options allow this member of staff to give the answer that the call waits for.

    - For an approval, ``approved_by`` decides.
    - For a result, ``answered_by`` decides.
    - Otherwise, every member of staff is allowed.

    In the admin, the values ``owner``, ``staff`` and ``server`` of both options allow every member of staff.
    """
    question = question_of(call)
    if question == Question.APPROVAL:
        return may_answer_as_staff(user, call, option="approved_by")
    return question != Question.ANSWER or may_answer_as_staff(user, call, option="answered_by")


def decisions_of(call: ToolCall, user: User) -> list[Decision]:
    """Return the decisions that this user may make about the call now, except for changing its time limit."""
    question = question_of(call)
    if not is_left_to_user(call, user):
        return []
    return [decision for decision in DECISIONS if decision.question is not None and decision.question == question]


def arguments_to_change(call: ToolCall) -> str:
    """Return the arguments as text that can be edited; an empty string if they are too long for a form."""
    text = json.dumps(call.arguments, indent=2, ensure_ascii=False)
    return text if len(text) <= config().max_text_chars else ""


def approve(call: ToolCall, form: FormData, by: Actor) -> ToolCall:
    """Approve the call. If the form changed the arguments, the call runs with the new arguments. Raises
    InvalidPartsError if the new arguments are invalid.
    """
    arguments, text = None, _text(form, "arguments")
    if text:
        try:
            value = strictjson.read(text, max_depth=config().max_json_depth)
        except ValueError as error:
            raise InvalidPartsError(f"The arguments are not valid JSON: {error}.") from error
        if not isinstance(value, dict):
            raise InvalidPartsError("The arguments must be a JSON object, in curly brackets.")
        arguments = value
    # The form showed the model's arguments. If the posted arguments are the same, the person changed nothing.
    if arguments == call.arguments:
        arguments = None
    return lifecycle.approve_tool_call(
        call.thread_id, call.tool_call_id, by=by, arguments=arguments, reason=_text(form, "reason")
    )


def reject(call: ToolCall, form: FormData, by: Actor) -> ToolCall:
    """Reject the call; the model gets the reason."""
    return lifecycle.reject_tool_call(call.thread_id, call.tool_call_id, by=by, reason=_text(form, "reason"))


def _check_may_answer(call: ToolCall, by: Actor) -> None:
    """Raise PermissionDeniedError if the tool's option ``answered_by`` does not let this user answer the call.

    Approvals do not need this check, because ``lifecycle`` checks who approves.
    """
    if not may_answer_as_staff(by.user, call, option="answered_by"):
        raise PermissionDeniedError(f"Tool call {call.tool_call_id!r} is answered by {whom(call.answered_by)}.")


def post_result(call: ToolCall, form: FormData, by: Actor) -> ToolCall:
    """Store the result from the form for a call of a deferred or client tool."""
    _check_may_answer(call, by)
    if not _text(form, "result"):
        raise InvalidPartsError("Enter the result; null is a result too.")
    return lifecycle.add_tool_result(call.thread_id, call.tool_call_id, _value(form), by=by)


def post_error(call: ToolCall, form: FormData, by: Actor) -> ToolCall:
    """Store the error from the form for a call of a deferred or client tool."""
    _check_may_answer(call, by)
    return lifecycle.add_tool_error(call.thread_id, call.tool_call_id, _error_text(form), by=by)


def settle(call: ToolCall, form: FormData, by: Actor) -> ToolCall:
    """Record that a call with an unknown outcome has run, with the result from the form."""
    return lifecycle.settle_tool_call(
        call.thread_id, call.tool_call_id, result=_value(form), by=by, reason=_text(form, "reason")
    )


def settle_as_failed(call: ToolCall, form: FormData, by: Actor) -> ToolCall:
    """Record that a call with an unknown outcome has failed, with the error from the form."""
    return lifecycle.settle_tool_call(
        call.thread_id, call.tool_call_id, error=_error_text(form), by=by, reason=_text(form, "reason")
    )


def run_again(call: ToolCall, form: FormData, by: Actor) -> ToolCall:
    """Let a call with an unknown outcome run again."""
    return lifecycle.settle_tool_call(
        call.thread_id, call.tool_call_id, run_again=True, by=by, reason=_text(form, "reason")
    )


def set_time(call: ToolCall, form: FormData, by: Actor) -> ToolCall:
    """Change the time limit of an unfinished call. The new limit counts from now. Raises PermissionDeniedError if the
    tool's options do not let this user decide about the call.
    """
    if not may_set_time(by.user, call):
        raise PermissionDeniedError(f"You may not change the time of tool call {call.tool_call_id!r}.")
    chosen = _text(form, "seconds")
    if chosen not in dict(TIMES):
        raise InvalidPartsError("Choose how much time the call may take.")
    seconds = None if chosen == NO_LIMIT else float(chosen)
    return lifecycle.set_tool_call_timeout(call.thread_id, call.tool_call_id, seconds, by=by)


SET_TIME = Decision(
    name="timeout",
    label=_("Set time"),
    run=set_time,
    entry=log_entry_texts.CHANGED_TIME,
    done=_("The time was changed."),
)
DECISIONS = (
    Decision(
        name="approve",
        label=_("Approve"),
        run=approve,
        entry=log_entry_texts.APPROVED,
        done=_("The call was approved."),
        question=Question.APPROVAL,
    ),
    Decision(
        name="reject",
        label=_("Reject"),
        run=reject,
        entry=log_entry_texts.REJECTED,
        done=_("The call was rejected."),
        question=Question.APPROVAL,
        is_refusal=True,
    ),
    Decision(
        name="result",
        label=_("Post result"),
        run=post_result,
        entry=log_entry_texts.POSTED_RESULT,
        done=_("The result was posted."),
        question=Question.ANSWER,
    ),
    Decision(
        name="error",
        label=_("It failed"),
        run=post_error,
        entry=log_entry_texts.POSTED_ERROR,
        done=_("The model gets the error as the result."),
        question=Question.ANSWER,
        is_refusal=True,
    ),
    Decision(
        name="settle",
        label=_("It ran"),
        run=settle,
        entry=log_entry_texts.SETTLED_AS_DONE,
        done=_("The call was settled."),
        question=Question.OUTCOME,
    ),
    Decision(
        name="run-again",
        label=_("Run it again"),
        run=run_again,
        entry=log_entry_texts.RUN_AGAIN,
        done=_("The call runs again."),
        question=Question.OUTCOME,
    ),
    Decision(
        name="settle-failed",
        label=_("It failed"),
        run=settle_as_failed,
        entry=log_entry_texts.SETTLED_AS_FAILED,
        done=_("The call was settled as failed; the model gets an error as its result."),
        question=Question.OUTCOME,
        is_refusal=True,
    ),
    SET_TIME,
)


def _text(form: FormData, name: str) -> str:
    return str(form.get(name, "")).strip()


def _value(form: FormData) -> object:
    """Return the result that the user entered. If the text is empty, return None. If the text is valid JSON, return
    the parsed value. Otherwise, return the text.
    """
    text = _text(form, "result")
    if not text:
        return None
    try:
        return strictjson.read(text, max_depth=config().max_json_depth)
    except ValueError:
        return text


def _error_text(form: FormData) -> str:
    """Return the error text from the form. The model gets this text. Raises InvalidPartsError if the text is empty."""
    text = _text(form, "result")
    if not text:
        raise InvalidPartsError("Say what went wrong. The model gets this text as the error.")
    return text
