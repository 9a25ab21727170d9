"""Hides what a person may do about a tool call: which calls ask for somebody, what there is to be decided of each, and
how each decision is drawn and told."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from django.db.models import Q, QuerySet, TextChoices
from django.utils.translation import gettext_lazy as _

from durable_agents import lifecycle, strictjson
from durable_agents.conf import config
from durable_agents.exceptions import InvalidPartsError
from durable_agents.models import ToolCall, ToolCallStatus, ToolKind

NO_LIMIT = "none"
TIMES = (
    ("900", _("15 minutes")),
    ("3600", _("1 hour")),
    ("86400", _("1 day")),
    ("604800", _("7 days")),
    (NO_LIMIT, _("without limit")),
)
"""How much time may be given, in seconds."""


class Question(TextChoices):
    """What a call waits for."""

    APPROVAL = "approval", _("Approvals")  # somebody's consent, before it runs
    OUTCOME = "outcome", _("May have run")  # somebody's word whether it ran: its worker died in the middle
    ANSWER = "answer", _("Answers")  # a result from outside


_IS = {
    Question.APPROVAL: Q(status=ToolCallStatus.APPROVAL_REQUESTED),
    Question.OUTCOME: Q(status=ToolCallStatus.UNKNOWN),
    Question.ANSWER: Q(
        status=ToolCallStatus.PENDING, kind__in=[ToolKind.DEFERRED, ToolKind.CLIENT], needs_worker=False
    ),
}


def waiting(question: Question | None = None) -> QuerySet[ToolCall]:
    """The open calls that wait for this of somebody, or for anything, the oldest first."""
    wanted = Q(*_IS.values(), _connector=Q.OR) if question is None else _IS[question]
    return ToolCall.objects.open().filter(wanted).order_by("created_at", "pk")


def question_of(call: ToolCall) -> Question | None:
    """What a call waits for somebody to say; None where it waits for nobody."""
    if call.finished_at is not None:
        return None
    if call.status == ToolCallStatus.APPROVAL_REQUESTED:
        return Question.APPROVAL
    if call.status == ToolCallStatus.UNKNOWN:
        return Question.OUTCOME
    is_from_outside = call.kind in {ToolKind.DEFERRED, ToolKind.CLIENT} and not call.needs_worker
    return Question.ANSWER if is_from_outside and call.status == ToolCallStatus.PENDING else None


Given = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Something that may be decided about a call: to which questions it is an answer (all, where none is named), how it
    is called, drawn and told."""

    name: str
    label: Any
    draw: Callable[[ToolCall, Given, Any], ToolCall]
    entry: str
    done: Any
    fits: Question | None = None
    is_refusal: bool = False

    @property
    def address(self) -> str:
        """The name of the address to which it is posted."""
        return f"admin:durable_agents_toolcall_{self.name}"

    def told(self, call: ToolCall, given: Given) -> str:
        """The log's entry: what was decided, of which call, and why."""
        text = f"{self.entry}: {call.tool_name} ({call.tool_call_id})."
        if call.approved_arguments is not None and self.name == "approve":
            text += " The arguments were changed."
        reason = _text(given, "reason")
        return f"{text} Reason: {reason}" if reason else text


def decisions_of(call: ToolCall) -> list[Decision]:
    """What can be decided of this call as it stands, more or less time for it left out."""
    question = question_of(call)
    return [decision for decision in DECISIONS if decision.fits is not None and decision.fits == question]


def arguments_to_change(call: ToolCall) -> str:
    """The arguments as text to be changed; none where they are too long for a page."""
    text = json.dumps(call.arguments, indent=2, ensure_ascii=False)
    return text if len(text) <= config().max_text_chars else ""


def _approve(call: ToolCall, given: Given, by: Any) -> ToolCall:
    arguments = _changed_arguments(call, _text(given, "arguments"))
    return lifecycle.approve_tool_call(
        call.thread_id, call.tool_call_id, by=by, arguments=arguments, reason=_text(given, "reason")
    )


def _reject(call: ToolCall, given: Given, by: Any) -> ToolCall:
    return lifecycle.reject_tool_call(call.thread_id, call.tool_call_id, by=by, reason=_text(given, "reason"))


def _answer(call: ToolCall, given: Given, by: Any) -> ToolCall:
    if not _text(given, "result"):
        raise InvalidPartsError("Say what the result is; null is one too.")
    return lifecycle.add_tool_result(call.thread_id, call.tool_call_id, _value(given))


def _refuse(call: ToolCall, given: Given, by: Any) -> ToolCall:
    return lifecycle.add_tool_error(call.thread_id, call.tool_call_id, _said(given))


def _settle(call: ToolCall, given: Given, by: Any) -> ToolCall:
    return lifecycle.settle_tool_call(
        call.thread_id, call.tool_call_id, result=_value(given), by=by, reason=_text(given, "reason")
    )


def _settle_as_failed(call: ToolCall, given: Given, by: Any) -> ToolCall:
    return lifecycle.settle_tool_call(
        call.thread_id, call.tool_call_id, error=_said(given), by=by, reason=_text(given, "reason")
    )


def _run_again(call: ToolCall, given: Given, by: Any) -> ToolCall:
    return lifecycle.settle_tool_call(
        call.thread_id, call.tool_call_id, run_again=True, by=by, reason=_text(given, "reason")
    )


def _give_time(call: ToolCall, given: Given, by: Any) -> ToolCall:
    chosen = _text(given, "seconds")
    if chosen not in dict(TIMES):
        raise InvalidPartsError("Choose how much time the call may take.")
    seconds = None if chosen == NO_LIMIT else float(chosen)
    return lifecycle.set_tool_call_timeout(call.thread_id, call.tool_call_id, seconds)


GIVE_TIME = Decision(
    name="timeout", label=_("Set time"), draw=_give_time, entry="Changed the time", done=_("The time was changed.")
)
DECISIONS = (
    Decision(
        name="approve",
        label=_("Approve"),
        draw=_approve,
        entry="Approved",
        done=_("The call was approved."),
        fits=Question.APPROVAL,
    ),
    Decision(
        name="reject",
        label=_("Reject"),
        draw=_reject,
        entry="Rejected",
        done=_("The call was rejected."),
        fits=Question.APPROVAL,
        is_refusal=True,
    ),
    Decision(
        name="result",
        label=_("Post result"),
        draw=_answer,
        entry="Posted the result",
        done=_("The result was posted."),
        fits=Question.ANSWER,
    ),
    Decision(
        name="error",
        label=_("It failed"),
        draw=_refuse,
        entry="Posted an error",
        done=_("The model is told that it failed."),
        fits=Question.ANSWER,
        is_refusal=True,
    ),
    Decision(
        name="settle",
        label=_("It ran"),
        draw=_settle,
        entry="Settled as done",
        done=_("The call was settled."),
        fits=Question.OUTCOME,
    ),
    Decision(
        name="run-again",
        label=_("Run it again"),
        draw=_run_again,
        entry="Let it run again",
        done=_("The call runs again."),
        fits=Question.OUTCOME,
    ),
    Decision(
        name="settle-failed",
        label=_("It failed"),
        draw=_settle_as_failed,
        entry="Settled as failed",
        done=_("The call was settled; the model is told that it failed."),
        fits=Question.OUTCOME,
        is_refusal=True,
    ),
    GIVE_TIME,
)


def _text(given: Given, name: str) -> str:
    return str(given.get(name, "")).strip()


def _value(given: Given) -> Any:
    """A result as it was typed: JSON where it is some, else the text itself, and nothing as null."""
    text = _text(given, "result")
    if not text:
        return None
    try:
        return strictjson.read(text, max_depth=config().max_json_depth)
    except ValueError:
        return text


def _said(given: Given) -> str:
    """What the model is told went wrong. Raises InvalidPartsError where nothing was said."""
    text = _text(given, "result")
    if not text:
        raise InvalidPartsError("Say what went wrong: the model is told.")
    return text


def _changed_arguments(call: ToolCall, text: str) -> dict[str, Any] | None:
    """Other arguments than the model's, where some were typed. Raises InvalidPartsError."""
    if not text:
        return None
    try:
        arguments = strictjson.read(text, max_depth=config().max_json_depth)
    except ValueError as error:
        raise InvalidPartsError(f"The arguments are no JSON: {error}.") from error
    if not isinstance(arguments, dict):
        raise InvalidPartsError("The arguments are a JSON object, in curly brackets.")
    return None if arguments == call.arguments else arguments
