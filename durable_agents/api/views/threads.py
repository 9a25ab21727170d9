"""Views of threads: list, create, update, delete, stop, resume, fork, export, and report usage."""

from __future__ import annotations

from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response

from durable_agents import lifecycle
from durable_agents.api import serializers
from durable_agents.api.base import AgentsView
from durable_agents.api.openapi.operation_decorator import Gives, Operation
from durable_agents.api.pagination import BY_NUMBER, LAST_CHANGED_FIRST
from durable_agents.api.request_serializers import Continuation, Fork, NewThread, Paging, ThreadChanges, ThreadFilters
from durable_agents.exceptions import (
    AgentNotFoundError,
    InvalidPartsError,
    MessageNotFoundError,
    ThreadBusyError,
    ThreadNotFoundError,
)
from durable_agents.models import Thread
from durable_agents.policies import (
    hidden_agents,
    owner_and_scope,
    public_agent,
    public_thread,
    public_threads,
    trusted_context,
)
from durable_agents.reading import PersonalView, attempts, exported, usage_by_model

_A_THREAD = Gives(shape=serializers.ThreadJSON)


class ThreadListView(AgentsView):
    """The caller's threads."""

    @Operation(
        operation_id="listThreads",
        action="view",
        query=ThreadFilters,
        answers={200: Gives(shape=serializers.ThreadJSON, paged=True)},
    )
    def get(self, request: Request) -> Response:
        """List the caller's threads, most recently changed first."""
        threads = ThreadFilters.apply(request, public_threads(request))
        page = LAST_CHANGED_FIRST.page(threads, request)
        # The database query cannot ask the policy about agents that were removed from the code. If the page contains
        # threads of removed agents that the caller may not see, query again without these threads.
        while hidden := hidden_agents(request, page.rows):
            threads = threads.exclude(agent__in=hidden)
            page = LAST_CHANGED_FIRST.page(threads, request)
        return Response(page.envelope(serializers.threads_json(page.rows)))

    @Operation(
        operation_id="createThread",
        action="create",
        body=NewThread,
        answers={201: _A_THREAD, 200: _A_THREAD},
        sends=True,
        raises=[AgentNotFoundError, InvalidPartsError, ThreadNotFoundError],
    )
    def post(self, request: Request) -> Response:
        """Create a thread, with or without its first message. If the caller already has a thread with this client_id,
        return that thread (200).
        """
        body = NewThread.of(request)
        agent = public_agent(request, body["agent"], "create")
        owner, scope = owner_and_scope(request)
        thread, created = lifecycle.get_or_create_thread(
            agent,
            owner=owner,
            scope=scope,
            prompt=body.get("prompt"),
            parts=body.get("parts"),
            client_id=body.get("client_id"),
            title=body.get("title", ""),
            metadata=body.get("metadata"),
            context=trusted_context(request),
            by=self.actor(request),
        )
        # The thread may already exist, and the policy may forbid the caller to view it. In that case, the response is
        # the same as for an unknown thread.
        shown = public_thread(request, thread.pk, "view")
        return _thread_response(shown, status=status.HTTP_201_CREATED if created else status.HTTP_200_OK)


class ThreadView(AgentsView):
    """One thread."""

    @Operation(operation_id="getThread", action="view", answers={200: _A_THREAD})
    def get(self, request: Request, thread_id: str) -> Response:
        """Read a thread."""
        return _thread_response(self.thread(request, thread_id))

    @Operation(operation_id="updateThread", action="edit", body=ThreadChanges, answers={200: _A_THREAD})
    def patch(self, request: Request, thread_id: str) -> Response:
        """Change the title, metadata or archived state of a thread. New metadata replaces all of the old metadata."""
        thread = self.thread(request, thread_id)
        changes = ThreadChanges.of(request)
        changed = lifecycle.update_thread(
            thread,
            title=changes.get("title"),
            metadata=changes.get("metadata"),
            archived=changes.get("archived"),
            by=self.actor(request, thread),
        )
        return _thread_response(changed)

    @Operation(operation_id="deleteThread", action="delete", answers={204: None})
    def delete(self, request: Request, thread_id: str) -> Response:
        """Delete a thread with everything that belongs to it; a run in progress ends."""
        thread = self.thread(request, thread_id)
        lifecycle.delete_thread(thread, by=self.actor(request, thread))
        return Response(status=status.HTTP_204_NO_CONTENT)


class ForkView(AgentsView):
    """A view that forks a thread."""

    @Operation(
        operation_id="forkThread",
        action="fork",
        body=Fork,
        answers={201: _A_THREAD},
        raises=[MessageNotFoundError, ThreadBusyError],
    )
    def post(self, request: Request, thread_id: str) -> Response:
        """Copy the history of this thread into a new thread. If `at` is set, the copy ends with that message."""
        thread = self.thread(request, thread_id)
        owner, scope = owner_and_scope(request)
        fork = lifecycle.fork_thread(
            thread,
            at=Fork.of(request).get("at"),
            owner=owner,
            scope=scope,
            context=trusted_context(request),
            by=self.actor(request, thread),
        )
        shown = public_thread(request, fork.pk, "view")
        return _thread_response(shown, status=status.HTTP_201_CREATED)


class StopView(AgentsView):
    """A view that stops the run of a thread."""

    @Operation(operation_id="stopThread", action="stop", answers={200: _A_THREAD})
    def post(self, request: Request, thread_id: str) -> Response:
        """Stop the run; the content written so far is kept. Nothing happens if the thread is not running."""
        thread = self.thread(request, thread_id)
        return _thread_response(lifecycle.stop_thread(thread, by=self.actor(request, thread)))


class ResumeView(AgentsView):
    """A view that resumes a thread that is not running."""

    @Operation(
        operation_id="resumeThread",
        action="resume",
        body=Continuation,
        answers={200: _A_THREAD},
        sends=True,
        raises=[InvalidPartsError, ThreadBusyError],
    )
    def post(self, request: Request, thread_id: str) -> Response:
        """Resume a thread that is not running: send it a new message, or retry its stopped or failed run."""
        thread = self.thread(request, thread_id)
        prompt = Continuation.of(request).get("prompt")
        return _thread_response(lifecycle.resume_thread(thread, prompt, by=self.actor(request, thread)))


class UsageView(AgentsView):
    """A view of a thread's token usage and cost."""

    @Operation(
        operation_id="getThreadUsage",
        action="view",
        query=Paging,
        answers={200: Gives(shape=serializers.ThreadUsageJSON)},
    )
    def get(self, request: Request, thread_id: str) -> Response:
        """Return the usage of the thread: in total, by model and for each attempt. Failed and stopped attempts are
        included.
        """
        thread = self.thread(request, thread_id)
        page = BY_NUMBER.page(attempts(thread), request)
        details = {
            "models": [serializers.model_usage_json(used) for used in usage_by_model(thread)],
            "attempts": [serializers.attempt_json(stream) for stream in page.rows],
            "next": page.next,
            "previous": page.previous,
        }
        return Response(serializers.usage_json(thread) | details)


class ExportView(AgentsView):
    """A view that exports a thread."""

    @Operation(operation_id="exportThread", action="export", answers={200: Gives(shape=serializers.ExportJSON)})
    def get(self, request: Request, thread_id: str) -> Response:
        """Download everything in the thread that belongs to its user, as a JSON file."""
        thread = self.thread(request, thread_id)
        document = exported(thread, include_system=False, show_person=PersonalView(request, thread).person)
        filename = f"thread-{document['thread']['id']}.json"
        return Response(document, headers={"Content-Disposition": f'attachment; filename="{filename}"'})


def _thread_response(thread: Thread, *, status: int = 200) -> Response:
    return Response(serializers.threads_json([thread])[0], status=status)
