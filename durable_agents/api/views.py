"""The endpoints: each validates, authorises, calls one function of ``lifecycle``, and serialises."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, cast

from django.contrib.auth import get_user_model
from django.http import HttpResponseBase
from django.utils.cache import patch_vary_headers
from rest_framework import status
from rest_framework.exceptions import NotAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response

from durable_agents import lifecycle
from durable_agents.agents import Agent, registry
from durable_agents.api import shapes
from durable_agents.api.base import AgentsView
from durable_agents.api.inputs import (
    Approval,
    Continuation,
    Fork,
    GivenError,
    GivenResult,
    GivenTime,
    MessageQuery,
    NewMessage,
    NewThread,
    NewWords,
    Paging,
    Refusal,
    Regeneration,
    ThreadChanges,
    ThreadFilters,
    ToolCallFilters,
)
from durable_agents.api.operations import Gives, Operation
from durable_agents.api.page import page_response, wants_page
from durable_agents.api.pages import AS_MADE, BY_NUMBER, BY_TURN, LAST_CHANGED_FIRST
from durable_agents.exceptions import (
    AgentNotFoundError,
    ApprovalExpiredError,
    InvalidPartsError,
    MessageNotFoundError,
    PermissionDeniedError,
    ThreadBusyError,
    ThreadNotFoundError,
    ToolCallNotPendingError,
)
from durable_agents.models import Message, Thread, ToolCall
from durable_agents.policies import decider, may_come, policy, public_agents, public_thread, public_threads, sender
from durable_agents.reading import (
    after_position,
    attempts,
    export_thread,
    fold_in,
    listed_messages,
    open_answer,
    usage_by_model,
)
from durable_agents.transcript import ui_message, ui_messages

_A_THREAD = Gives(shape=shapes.ThreadJSON)
_A_MESSAGE = Gives(shape=shapes.MessageJSON)
_A_CALL = Gives(shape=shapes.ToolCallJSON)
_SETTLED = [ToolCallNotPendingError]
_DECIDED = [ToolCallNotPendingError, ApprovalExpiredError]


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

    @Operation(
        operation_id="createThread",
        action="create",
        body=NewThread,
        answers={201: _A_THREAD, 200: _A_THREAD},
        sends=True,
        raises=[AgentNotFoundError, InvalidPartsError, ThreadNotFoundError],
    )
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

    @Operation(
        operation_id="sendMessage",
        action="send",
        body=NewMessage,
        answers={202: _A_MESSAGE, 200: _A_MESSAGE},
        sends=True,
        raises=[AgentNotFoundError, InvalidPartsError, ThreadBusyError],
    )
    def post(self, request: Request, thread_id: str) -> Response:
        """Send a message; the answer comes later. A known client_id gives back its message (200)."""
        thread = self.thread(request, thread_id)
        asked = NewMessage.of(request)
        sent = Message.objects.shown().filter(thread=thread)
        is_known = _is_known(sent, asked.get("client_id"))
        message = lifecycle.send_message(thread, sender=sender(request, asked.get("parts")), **asked)
        answered = status.HTTP_200_OK if is_known else status.HTTP_202_ACCEPTED
        return Response(ui_message(message, message.parts), status=answered)


class MessageView(AgentsView):
    """One message of a thread."""

    @Operation(
        operation_id="editMessage",
        action="edit",
        body=NewWords,
        answers={202: _A_MESSAGE},
        sends=True,
        raises=[AgentNotFoundError, InvalidPartsError, MessageNotFoundError, ThreadBusyError],
    )
    def put(self, request: Request, thread_id: str, message_id: str) -> Response:
        """Say a user's message anew and have it answered; what was said after it is shown no more."""
        thread = self.thread(request, thread_id)
        asked = NewWords.of(request)
        message = lifecycle.edit_message(thread, message_id, sender=sender(request, asked.get("parts")), **asked)
        return Response(ui_message(message, message.parts), status=status.HTTP_202_ACCEPTED)


class RegenerateView(AgentsView):
    """Another answer to what was asked."""

    @Operation(
        operation_id="regenerate",
        action="edit",
        body=Regeneration,
        answers={202: _A_MESSAGE},
        sends=True,
        raises=[AgentNotFoundError, MessageNotFoundError, ThreadBusyError],
    )
    def post(self, request: Request, thread_id: str) -> Response:
        """Have a question answered once more; the old answer, and what was said after it, is shown no more."""
        thread = self.thread(request, thread_id)
        answer = lifecycle.regenerate(thread, **Regeneration.of(request))
        return Response(ui_message(answer, []), status=status.HTTP_202_ACCEPTED)


class ForkView(AgentsView):
    """Going on from here in another thread."""

    @Operation(
        operation_id="forkThread",
        action="fork",
        body=Fork,
        answers={201: _A_THREAD},
        raises=[MessageNotFoundError, ThreadBusyError],
    )
    def post(self, request: Request, thread_id: str) -> Response:
        """Begin a thread of the caller's with what was said in this one, up to a message or whole."""
        thread = self.thread(request, thread_id)
        owner, scope = policy().owner_and_scope(request)
        whose = {"owner": owner, "scope": scope, "context": policy().context(request)}
        fork = lifecycle.fork_thread(thread, **Fork.of(request), **whose)
        shown = public_thread(request, str(fork.pk), "view")
        return _thread_response(shown, status=status.HTTP_201_CREATED)


class StopView(AgentsView):
    """Halting the run of a thread."""

    @Operation(operation_id="stopThread", action="stop", answers={200: _A_THREAD})
    def post(self, request: Request, thread_id: str) -> Response:
        """Stop the run; what was written so far is kept. At rest: nothing happens."""
        return _thread_response(lifecycle.stop_thread(self.thread(request, thread_id)))


class ResumeView(AgentsView):
    """Continuing a thread at rest."""

    @Operation(
        operation_id="resumeThread",
        action="resume",
        body=Continuation,
        answers={200: _A_THREAD},
        sends=True,
        raises=[AgentNotFoundError, InvalidPartsError, ThreadBusyError],
    )
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


class UsageView(AgentsView):
    """What a thread has used."""

    @Operation(
        operation_id="getThreadUsage",
        action="view",
        query=Paging,
        answers={200: Gives(shape=shapes.ThreadUsageJSON)},
    )
    def get(self, request: Request, thread_id: str) -> Response:
        """Say what the thread has used in all, by model and in each attempt; failed and stopped attempts count."""
        thread = self.thread(request, thread_id)
        page = BY_NUMBER.page(attempts(thread), request)
        told = {
            "models": [shapes.model_usage_json(used) for used in usage_by_model(thread)],
            "attempts": [shapes.attempt_json(stream) for stream in page.rows],
            "next": page.next,
            "previous": page.previous,
        }
        return Response(shapes.usage_json(thread) | told)


class ExportView(AgentsView):
    """A thread to take away."""

    @Operation(operation_id="exportThread", action="export", answers={200: Gives(shape=shapes.ExportJSON)})
    def get(self, request: Request, thread_id: str) -> Response:
        """Export the thread with everything of it that is its person's, as a file."""
        exported = export_thread(self.thread(request, thread_id), include_system=False)
        filename = f"thread-{exported['thread']['id']}.json"
        return Response(exported, headers={"Content-Disposition": f'attachment; filename="{filename}"'})


class TicketView(AgentsView):
    """Passes for websockets."""

    @Operation(operation_id="createTicket", action="view", answers={200: Gives(shape=shapes.TicketJSON)})
    def post(self, request: Request) -> Response:
        """Make a ticket for one websocket, for callers whose way to sign in a browser's websocket cannot go."""
        if not isinstance(request.user, get_user_model()):
            raise NotAuthenticated()
        if not may_come(request):
            raise PermissionDeniedError("There is nothing that a websocket could show you.")
        told = {"ticket": lifecycle.issue_ticket(request.user), "expires_in": lifecycle.TICKET_SECONDS}
        return Response(told, headers={"Cache-Control": "no-store"})


class SchemaView(AgentsView):
    """The OpenAPI schema of this API, for everybody."""

    authentication_classes = ()
    permission_classes = ()
    schema = None

    def get(self, request: Request) -> HttpResponseBase:
        """Return the schema of the endpoints where this project has mounted them; to browsers, as a page."""
        from durable_agents.api.schema import openapi  # noqa: PLC0415 - an extra

        document = openapi(request)
        response = page_response(request, document) if wants_page(request) else Response(document)
        patch_vary_headers(response, ["Accept"])
        return response


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
