"""Threads: listing, making, changing, stopping, resuming and forking them, and what they have come to."""

from __future__ import annotations

from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response

from durable_agents import lifecycle
from durable_agents.api import shapes
from durable_agents.api.base import AgentsView
from durable_agents.api.inputs import Continuation, Fork, NewThread, Paging, ThreadChanges, ThreadFilters
from durable_agents.api.operations import Gives, Operation
from durable_agents.api.pages import BY_NUMBER, LAST_CHANGED_FIRST
from durable_agents.exceptions import (
    AgentNotFoundError,
    InvalidPartsError,
    MessageNotFoundError,
    ThreadBusyError,
    ThreadNotFoundError,
)
from durable_agents.models import Thread, ThreadQuerySet
from durable_agents.policies import owner_and_scope, policy, public_agent, public_thread, public_threads
from durable_agents.reading import attempts, export_thread, usage_by_model

_A_THREAD = Gives(shape=shapes.ThreadJSON)


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
        agent = public_agent(request, asked.pop("agent"), "create")
        owner, scope = owner_and_scope(request)
        known = _is_known(public_threads(request).filter(owner=owner, scope=scope), asked.get("client_id"))
        thread = lifecycle.create_thread(agent, owner=owner, scope=scope, context=policy().context(request), **asked)
        shown = public_thread(request, str(thread.pk), "view")
        return _thread_response(shown, status=status.HTTP_200_OK if known else status.HTTP_201_CREATED)


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
        owner, scope = owner_and_scope(request)
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


def _is_known(threads: ThreadQuerySet, client_id: str | None) -> bool:
    """Whether one of the threads has this id of the client's."""
    return client_id is not None and threads.filter(client_id=client_id).exists()


def _thread_response(thread: Thread, *, status: int = 200) -> Response:
    return Response(shapes.threads_json([thread])[0], status=status)
