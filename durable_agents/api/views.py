"""The endpoints: each validates, authorises, calls one function of ``lifecycle``, and serialises."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, cast

from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response

from durable_agents import lifecycle
from durable_agents.agents import Agent, registry
from durable_agents.api import shapes
from durable_agents.api.base import AgentsView
from durable_agents.api.inputs import (
    Approval,
    Continuation,
    GivenError,
    GivenResult,
    GivenTime,
    MessageQuery,
    NewMessage,
    NewThread,
    Refusal,
    ThreadChanges,
    ThreadFilters,
    ToolCallFilters,
)
from durable_agents.api.operations import Gives, Operation
from durable_agents.api.pages import AS_MADE, BY_TURN, LAST_CHANGED_FIRST
from durable_agents.exceptions import AgentNotFoundError, PermissionDeniedError
from durable_agents.models import Message, Thread, ToolCall
from durable_agents.policies import decider, policy, public_agents, public_thread, public_threads
from durable_agents.reading import after_position, fold_in, listed_messages, open_answer
from durable_agents.transcript import ui_message, ui_messages

_A_THREAD = Gives(shape=shapes.ThreadJSON)
_A_MESSAGE = Gives(shape=shapes.MessageJSON)
_A_CALL = Gives(shape=shapes.ToolCallJSON)


class AgentListView(AgentsView):
    """The agents that one may talk to."""

    @Operation(operation_id="listAgents", action="view", answers={200: Gives(shape=shapes.AgentJSON, paged=True)})
    def get(self, request: Request) -> Response:
        """List the public agents with their tools, by name, all on one page."""
        results = [shapes.agent_json(agent) for agent in public_agents(request)]
        return Response({"next": None, "previous": None, "results": results})


class ThreadListView(AgentsView):
    """The caller's threads."""

    @Operation(
        operation_id="listThreads",
        action="view",
        query=ThreadFilters,
        answers={200: Gives(shape=shapes.ThreadJSON, paged=True)},
    )
    def get(self, request: Request) -> Response:
        """List the caller's threads, the last changed first."""
        page = LAST_CHANGED_FIRST.page(ThreadFilters.narrow(public_threads(request), request), request)
        return Response(page.envelope(shapes.threads_json(page.rows)))

    @Operation(operation_id="createThread", action="create", body=NewThread, answers={201: _A_THREAD, 200: _A_THREAD})
    def post(self, request: Request) -> Response:
        """Create a thread, with its first message or empty. A known client_id gives back its thread (200)."""
        asked = NewThread.of(request)
        agent = _public_agent(request, asked.pop("agent"))
        owner, scope = policy().owner_and_scope(request)
        is_known = _is_known(public_threads(request).filter(owner=owner, scope=scope), asked.get("client_id"))
        thread = lifecycle.create_thread(agent, owner=owner, scope=scope, context=policy().context(request), **asked)
        shown = public_thread(request, str(thread.pk), "view")
        return _thread_response(shown, status=status.HTTP_200_OK if is_known else status.HTTP_201_CREATED)


class ThreadView(AgentsView):
    """One thread."""

    @Operation(operation_id="getThread", action="view", answers={200: _A_THREAD})
    def get(self, request: Request, thread_id: str) -> Response:
        """Read a thread."""
        return _thread_response(self.thread(request, thread_id))

    @Operation(operation_id="updateThread", action="edit", body=ThreadChanges, answers={200: _A_THREAD})
    def patch(self, request: Request, thread_id: str) -> Response:
        """Change title, metadata (as a whole) or whether the thread is archived."""
        thread = self.thread(request, thread_id)
        return _thread_response(lifecycle.edit_thread(thread, **ThreadChanges.of(request)))

    @Operation(operation_id="deleteThread", action="delete", answers={204: None})
    def delete(self, request: Request, thread_id: str) -> Response:
        """Delete a thread with everything that belongs to it; a run that is on ends."""
        lifecycle.delete_thread(self.thread(request, thread_id))
        return Response(status=status.HTTP_204_NO_CONTENT)


class MessageListView(AgentsView):
    """The messages of a thread."""

    @Operation(
        operation_id="listMessages",
        action="view",
        query=MessageQuery,
        answers={
            200: Gives(
                shape=shapes.MessageJSON, paged=True, beside={"stream": cast(type, shapes.OpenStreamJSON | None)}
            )
        },
    )
    def get(self, request: Request, thread_id: str) -> Response:
        """List the messages, oldest first, queued ones last; with streams=1 the open stream is folded in, and
        `stream` says which and how far."""
        thread = self.thread(request, thread_id)
        asked = MessageQuery.of(request)
        if asked.get("streams"):
            return Response(_page_with_stream(request, thread, asked))
        page = BY_TURN.page(after_position(listed_messages(thread), asked.get("after")), request)
        return Response(page.envelope(ui_messages(page.rows)))

    @Operation(operation_id="sendMessage", action="send", body=NewMessage, answers={202: _A_MESSAGE, 200: _A_MESSAGE})
    def post(self, request: Request, thread_id: str) -> Response:
        """Send a message; the answer comes later. A known client_id gives back its message (200)."""
        thread = self.thread(request, thread_id)
        asked = NewMessage.of(request)
        sent = Message.objects.shown().filter(thread=thread)
        is_known = _is_known(sent, asked.get("client_id"))
        message = lifecycle.send_message(thread, **asked)
        answered = status.HTTP_200_OK if is_known else status.HTTP_202_ACCEPTED
        return Response(ui_message(message, message.parts), status=answered)


class StopView(AgentsView):
    """Halting the run of a thread."""

    @Operation(operation_id="stopThread", action="stop", answers={200: _A_THREAD})
    def post(self, request: Request, thread_id: str) -> Response:
        """Stop the run; what was written so far is kept. At rest: nothing happens."""
        return _thread_response(lifecycle.stop_thread(self.thread(request, thread_id)))


class ResumeView(AgentsView):
    """Continuing a thread at rest."""

    @Operation(operation_id="resumeThread", action="resume", body=Continuation, answers={200: _A_THREAD})
    def post(self, request: Request, thread_id: str) -> Response:
        """Go on, with a new message or by trying again what stopped or failed."""
        thread = self.thread(request, thread_id)
        return _thread_response(lifecycle.resume_thread(thread, **Continuation.of(request)))


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

    @Operation(operation_id="addToolResult", action="answer", body=GivenResult, answers={200: _A_CALL})
    def post(self, request: Request, thread_id: str, tool_call_id: str) -> Response:
        """Give the result of a deferred or client call. The same result again changes nothing."""
        call = self.tool_call(request, thread_id, tool_call_id)
        return _call_response(lifecycle.add_tool_result(call.thread, tool_call_id, **GivenResult.of(request)))


class ToolErrorView(AgentsView):
    """The failure of such a call."""

    @Operation(operation_id="addToolError", action="answer", body=GivenError, answers={200: _A_CALL})
    def post(self, request: Request, thread_id: str, tool_call_id: str) -> Response:
        """Say that a deferred or client call failed, and why. The same error again changes nothing."""
        call = self.tool_call(request, thread_id, tool_call_id)
        return _call_response(lifecycle.add_tool_error(call.thread, tool_call_id, **GivenError.of(request)))


class ApproveView(AgentsView):
    """Letting a call run that waits for it."""

    @Operation(operation_id="approveToolCall", action="approve", body=Approval, answers={200: _A_CALL})
    def post(self, request: Request, thread_id: str, tool_call_id: str) -> Response:
        """Let the call run, with other arguments where they are given. The first decision counts."""
        call = self.tool_call(request, thread_id, tool_call_id)
        by, asked = decider(request, call.thread), Approval.of(request)
        return _call_response(lifecycle.approve_tool_call(call.thread, tool_call_id, by=by, **asked))


class RejectView(AgentsView):
    """Refusing such a call."""

    @Operation(operation_id="rejectToolCall", action="approve", body=Refusal, answers={200: _A_CALL})
    def post(self, request: Request, thread_id: str, tool_call_id: str) -> Response:
        """Do not let the call run; the model is told why. The first decision counts."""
        call = self.tool_call(request, thread_id, tool_call_id)
        by, asked = decider(request, call.thread), Refusal.of(request)
        return _call_response(lifecycle.reject_tool_call(call.thread, tool_call_id, by=by, **asked))


class ToolTimeoutView(AgentsView):
    """How long an open call may take."""

    @Operation(operation_id="setToolCallTimeout", action="answer", body=GivenTime, answers={200: _A_CALL})
    def post(self, request: Request, thread_id: str, tool_call_id: str) -> Response:
        """Give an open call so many seconds from now on, or with null as long as it needs. Staff only."""
        call = self.tool_call(request, thread_id, tool_call_id, left_to="staff")
        return _call_response(lifecycle.set_tool_call_timeout(call.thread, tool_call_id, **GivenTime.of(request)))


class SchemaView(AgentsView):
    """The OpenAPI schema of this API, for everybody."""

    authentication_classes = ()
    permission_classes = ()
    schema = None

    def get(self, request: Request) -> Response:
        """Return the schema of the endpoints where this project has mounted them."""
        from durable_agents.api.schema import openapi  # noqa: PLC0415 - an extra

        return Response(openapi(request))


def _page_with_stream(request: Request, thread: Thread, asked: dict[str, Any]) -> dict[str, Any]:
    """The page as the thread was at its rev, with the open stream folded in."""
    stream = open_answer(thread, from_number=asked.get("from_number", 0))
    listed = listed_messages(thread, answer_id=stream.message_id if stream else None)
    page = BY_TURN.page(after_position(listed, asked.get("after")), request)
    messages, entry = fold_in(stream, ui_messages(page.rows, upto_rev=thread.rev))
    return page.envelope(messages) | {"stream": asdict(entry) if entry else None}


def _public_agent(request: Request, name: str) -> Agent:
    agent = registry.get(name)
    if not agent.public:
        raise AgentNotFoundError(name)
    if not policy().allows(request, "create", agent=agent):
        raise PermissionDeniedError(f"You may not create threads of agent {name!r}.")
    return agent


def _is_known(rows: Any, client_id: str | None) -> bool:
    return client_id is not None and rows.filter(client_id=client_id).exists()


def _thread_response(thread: Thread, *, status: int = 200) -> Response:
    return Response(shapes.threads_json([thread])[0], status=status)


def _call_response(call: ToolCall) -> Response:
    return Response(shapes.tool_call_json(call))
