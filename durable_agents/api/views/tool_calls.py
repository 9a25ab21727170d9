"""Tool calls: listing them, and giving them what they wait for."""

from __future__ import annotations

from rest_framework.request import Request
from rest_framework.response import Response

from durable_agents import lifecycle
from durable_agents.api import shapes
from durable_agents.api.base import AgentsView
from durable_agents.api.inputs import Approval, GivenError, GivenResult, GivenTime, Refusal, ToolCallFilters
from durable_agents.api.operations import Gives, Operation
from durable_agents.api.pages import AS_MADE
from durable_agents.exceptions import ApprovalExpiredError, InvalidPartsError, ToolCallNotPendingError
from durable_agents.models import ToolCall
from durable_agents.policies import decider

_A_CALL = Gives(shape=shapes.ToolCallJSON)
_SETTLED = [ToolCallNotPendingError]
_DECIDED = [ToolCallNotPendingError, ApprovalExpiredError]


class ToolCallListView(AgentsView):
    """The tool calls of a thread."""

    @Operation(
        operation_id="listToolCalls",
        action="view",
        query=ToolCallFilters,
        answers={200: Gives(shape=shapes.ToolCallJSON, paged=True)},
    )
    def get(self, request: Request, thread_id: str) -> Response:
        """List the tool calls, in the order in which they were made."""
        thread = self.thread(request, thread_id)
        made = ToolCall.objects.filter(thread=thread).select_related("approval_decided_by")
        page = AS_MADE.page(ToolCallFilters.narrow(made, request), request)
        return Response(page.envelope([shapes.tool_call_json(call) for call in page.rows]))


class ToolResultView(AgentsView):
    """The result of a call that its function does not give."""

    @Operation(operation_id="addToolResult", action="answer", body=GivenResult, answers={200: _A_CALL}, raises=_SETTLED)
    def post(self, request: Request, thread_id: str, tool_call_id: str) -> Response:
        """Give the result of a deferred or client call. The same result again changes nothing."""
        call = self.tool_call(request, thread_id, tool_call_id)
        return _call_response(lifecycle.add_tool_result(call.thread, tool_call_id, **GivenResult.of(request)))


class ToolErrorView(AgentsView):
    """The failure of such a call."""

    @Operation(operation_id="addToolError", action="answer", body=GivenError, answers={200: _A_CALL}, raises=_SETTLED)
    def post(self, request: Request, thread_id: str, tool_call_id: str) -> Response:
        """Say that a deferred or client call failed, and why. The same error again changes nothing."""
        call = self.tool_call(request, thread_id, tool_call_id)
        return _call_response(lifecycle.add_tool_error(call.thread, tool_call_id, **GivenError.of(request)))


class ApproveView(AgentsView):
    """Letting a call run that waits for it."""

    @Operation(
        operation_id="approveToolCall",
        action="approve",
        body=Approval,
        answers={200: _A_CALL},
        raises=[*_DECIDED, InvalidPartsError],
    )
    def post(self, request: Request, thread_id: str, tool_call_id: str) -> Response:
        """Let the call run, with other arguments where they are given. The first decision counts."""
        call = self.tool_call(request, thread_id, tool_call_id)
        by, asked = decider(request, call.thread), Approval.of(request)
        return _call_response(lifecycle.approve_tool_call(call.thread, tool_call_id, by=by, **asked))


class RejectView(AgentsView):
    """Refusing such a call."""

    @Operation(operation_id="rejectToolCall", action="approve", body=Refusal, answers={200: _A_CALL}, raises=_DECIDED)
    def post(self, request: Request, thread_id: str, tool_call_id: str) -> Response:
        """Do not let the call run; the model is told why. The first decision counts."""
        call = self.tool_call(request, thread_id, tool_call_id)
        by, asked = decider(request, call.thread), Refusal.of(request)
        return _call_response(lifecycle.reject_tool_call(call.thread, tool_call_id, by=by, **asked))


class ToolTimeoutView(AgentsView):
    """How long an open call may take."""

    @Operation(
        operation_id="setToolCallTimeout", action="answer", body=GivenTime, answers={200: _A_CALL}, raises=_SETTLED
    )
    def post(self, request: Request, thread_id: str, tool_call_id: str) -> Response:
        """Give an open call so many seconds from now on, or with null as long as it needs. Staff only."""
        call = self.tool_call(request, thread_id, tool_call_id, left_to="staff")
        return _call_response(lifecycle.set_tool_call_timeout(call.thread, tool_call_id, **GivenTime.of(request)))


def _call_response(call: ToolCall) -> Response:
    return Response(shapes.tool_call_json(call))
