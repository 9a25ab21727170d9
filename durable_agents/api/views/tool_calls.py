"""Views of tool calls: list them, add results, record failures, approve and reject calls, and set time limits."""

from __future__ import annotations

from rest_framework.request import Request
from rest_framework.response import Response

from durable_agents import lifecycle
from durable_agents.api import serializers
from durable_agents.api.base import AgentsView
from durable_agents.api.openapi.operation_decorator import Gives, Operation
from durable_agents.api.pagination import AS_MADE
from durable_agents.api.request_serializers import (
    Approval,
    GivenError,
    GivenResult,
    GivenTime,
    Refusal,
    ToolCallFilters,
)
from durable_agents.exceptions import (
    ApprovalExpiredError,
    InvalidPartsError,
    ToolCallNotPendingError,
    ToolChangedError,
)
from durable_agents.models import ToolCall
from durable_agents.policies import can_decide, check_may_set_time
from durable_agents.reading import PersonalView

_A_CALL = Gives(shape=serializers.ToolCallJSON)
_SETTLED = [ToolCallNotPendingError]
_DECIDED = [ToolCallNotPendingError, ApprovalExpiredError]


class ToolCallListView(AgentsView):
    """The tool calls of a thread."""

    @Operation(
        operation_id="listToolCalls",
        action="view",
        query=ToolCallFilters,
        answers={200: Gives(shape=serializers.ToolCallJSON, paged=True)},
    )
    def get(self, request: Request, thread_id: str) -> Response:
        """List the tool calls, in the order in which they were made."""
        thread = self.thread(request, thread_id)
        calls = ToolCall.objects.filter(thread=thread).select_related(
            "approval_decided_by", "answered_by_user", "message", "thread"
        )
        page = AS_MADE.page(ToolCallFilters.apply(request, calls), request)
        show = PersonalView(request, thread).person
        results = [
            serializers.tool_call_json(call, can_decide=can_decide(request, call), show_person=show)
            for call in page.rows
        ]
        return Response(page.envelope(results))


class ToolResultView(AgentsView):
    """A view that adds the result of a deferred or client tool."""

    @Operation(
        operation_id="addToolResult",
        action="add_tool_result",
        body=GivenResult,
        answers={200: _A_CALL},
        raises=_SETTLED,
    )
    def post(self, request: Request, thread_id: str, tool_call_id: str) -> Response:
        """Add the result of a deferred or client tool. Sending the same result again changes nothing."""
        call = self.tool_call(request, thread_id, tool_call_id)
        result = GivenResult.of(request)["result"]
        by = self.actor(request, call.thread)
        return _call_response(request, lifecycle.add_tool_result(call.thread, tool_call_id, result, by=by))


class ToolErrorView(AgentsView):
    """A view that records that a call to a deferred or client tool failed."""

    @Operation(
        operation_id="addToolError", action="add_tool_result", body=GivenError, answers={200: _A_CALL}, raises=_SETTLED
    )
    def post(self, request: Request, thread_id: str, tool_call_id: str) -> Response:
        """Record that a call to a deferred or client tool failed. Sending the same error again changes nothing."""
        call = self.tool_call(request, thread_id, tool_call_id)
        error = GivenError.of(request)["error"]
        by = self.actor(request, call.thread)
        return _call_response(request, lifecycle.add_tool_error(call.thread, tool_call_id, error, by=by))


class ApproveView(AgentsView):
    """A view that approves a tool call."""

    @Operation(
        operation_id="approveToolCall",
        action="approve",
        body=Approval,
        answers={200: _A_CALL},
        raises=[*_DECIDED, InvalidPartsError, ToolChangedError],
    )
    def post(self, request: Request, thread_id: str, tool_call_id: str) -> Response:
        """Approve the call, so that it runs. If the body contains arguments, they replace the model's arguments. Only
        the first decision counts.
        """
        call = self.tool_call(request, thread_id, tool_call_id)
        body = Approval.of(request)
        approved = lifecycle.approve_tool_call(
            call.thread,
            tool_call_id,
            by=self.actor(request, call.thread),
            arguments=body.get("arguments"),
            reason=body.get("reason", ""),
        )
        return _call_response(request, approved)


class RejectView(AgentsView):
    """A view that rejects a tool call."""

    @Operation(operation_id="rejectToolCall", action="approve", body=Refusal, answers={200: _A_CALL}, raises=_DECIDED)
    def post(self, request: Request, thread_id: str, tool_call_id: str) -> Response:
        """Reject the call. The model gets the reason. Only the first decision counts."""
        call = self.tool_call(request, thread_id, tool_call_id)
        reason = Refusal.of(request).get("reason", "")
        by = self.actor(request, call.thread)
        return _call_response(request, lifecycle.reject_tool_call(call.thread, tool_call_id, by=by, reason=reason))


class ToolTimeoutView(AgentsView):
    """A view that changes the time limit of an unfinished tool call."""

    @Operation(
        operation_id="setToolCallTimeout",
        action="add_tool_result",
        body=GivenTime,
        answers={200: _A_CALL},
        raises=_SETTLED,
    )
    def post(self, request: Request, thread_id: str, tool_call_id: str) -> Response:
        """Set a new time limit for an unfinished call, in seconds from now; null means no limit. Only staff who may
        also decide about the call, or answer it, may do so.
        """
        call = self.tool_call(request, thread_id, tool_call_id, left_to="staff")
        check_may_set_time(request, call)
        seconds = GivenTime.of(request)["seconds"]
        by = self.actor(request, call.thread)
        return _call_response(request, lifecycle.set_tool_call_timeout(call.thread, tool_call_id, seconds, by=by))


def _call_response(request: Request, call: ToolCall) -> Response:
    show = PersonalView(request, call.thread).person
    return Response(serializers.tool_call_json(call, can_decide=can_decide(request, call), show_person=show))
