"""Run the project's after-commit callbacks in a worker. Model steps and tool calls never wait for a callback.

The callbacks of one chat thread run one after the other. Each may take at most a minute.
"""

from __future__ import annotations

import asyncio
from functools import partial
from uuid import UUID

from durable_agents import lifecycle
from durable_agents.agents import Agent, Callback
from durable_agents.callbacks import DueCallback
from durable_agents.engine.resource_errors import WorkerLimitError
from durable_agents.engine.runtime import Runtime
from durable_agents.lifecycle import Claim, StepOutcome
from durable_agents.models import Stream, Thread
from durable_agents.transcript import ui_messages

CALLBACK_SECONDS = 60.0


class CallbackRunner:
    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._tasks: set[asyncio.Task[None]] = set()
        self._last: dict[UUID, asyncio.Task[None]] = {}
        self._has_run_any = False

    @property
    def is_idle(self) -> bool:
        """Whether all callbacks have run."""
        return not self._tasks

    def schedule(self, callback: DueCallback) -> None:
        """Schedule a callback. Safe to call from any OS thread."""
        self._runtime.loop.call_soon_threadsafe(self._start, callback)

    async def wait(self, *, seconds: float | None = None) -> bool:
        """Wait until all callbacks have ended. After ``seconds``, cancel the callbacks that have not ended.

        Return whether any callback has run since this method was last called.
        """
        await asyncio.sleep(0)  # let the event loop create tasks for newly scheduled callbacks
        if tasks := set(self._tasks):
            _, late = await asyncio.wait(tasks, timeout=seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        has_run_any, self._has_run_any = self._has_run_any, False
        return has_run_any

    def _start(self, callback: DueCallback) -> None:
        task = self._runtime.loop.create_task(self._run(callback, after=self._last.get(callback.thread_id)))
        self._tasks.add(task)
        self._has_run_any = True
        self._last[callback.thread_id] = task
        task.add_done_callback(partial(self._forget, callback.thread_id))

    def _forget(self, thread_id: UUID, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._last.get(thread_id) is task:
            del self._last[thread_id]

    async def _run(self, callback: DueCallback, *, after: asyncio.Task[None] | None) -> None:
        if after is not None:
            await asyncio.wait({after})
        try:
            async with asyncio.timeout(CALLBACK_SECONDS):
                await self._runtime.call_user(callback.function, **callback.arguments)
        except (Exception, WorkerLimitError):
            callback.log_failure()

    def dispatch_step(self, claim: Claim, agent: Agent, outcome: StepOutcome) -> None:
        """Schedule the callbacks for a committed step.

        ``on_message_complete`` is always called. At the end of a turn, ``on_turn_complete`` and ``title`` are called as
        well. A step with tool calls, or one that the provider paused, does not end the turn.
        """
        metadata: dict[str, object] = {}
        for part in outcome.parts:
            metadata |= part.get("providerMetadata") or {}  # values of later parts replace earlier values
        thread_id, stream_id = claim.thread_id, claim.row_id
        if agent.on_message_complete is not None:
            call = partial(self._call_with_message, agent.on_message_complete)
            self._schedule("on_message_complete", call, thread_id, stream_id=stream_id, provider_metadata=metadata)
        if outcome.calls or outcome.goes_on:
            return
        if agent.on_turn_complete is not None:
            self._schedule(
                "on_turn_complete",
                agent.on_turn_complete,
                thread_id,
                stream_id=stream_id,
                provider_metadata=metadata,
                finish_reason=outcome.finish_reason,
            )
        if agent.title is not None:
            self._schedule("title", partial(self._name_thread, agent.title), thread_id)

    def dispatch_retry(self, agent: Agent, *, thread_id: UUID, **arguments: object) -> None:
        """Schedule the callback for a failed attempt that will be retried."""
        if agent.on_retry is not None:
            self._schedule("on_retry", agent.on_retry, thread_id, **arguments)

    def _schedule(self, callback: str, function: Callback, thread_id: UUID, **arguments: object) -> None:
        everything = {"thread_id": thread_id, **arguments}
        self.schedule(DueCallback(name=callback, thread_id=thread_id, function=function, arguments=everything))

    async def _call_with_message(self, function: Callback, *, stream_id: UUID, **arguments: object) -> None:
        found = await self._runtime.in_database(_message_of, stream_id)
        if found is not None:
            message, usage = found
            await self._runtime.call_user(function, stream_id=stream_id, message=message, usage=usage, **arguments)

    async def _name_thread(self, title: Callback, *, thread_id: UUID) -> None:
        thread = await self._runtime.in_database(_untitled, thread_id)
        if thread is not None:
            text = await self._runtime.call_user(title, thread)
            await self._runtime.in_transition(lifecycle.name_thread, thread_id, str(text or ""))


def _message_of(stream_id: UUID) -> tuple[object, object] | None:
    """Return two values: the message up to this step, as the REST API returns it, and the usage of the step.

    Return None if the thread is deleted.
    """
    streams = Stream.objects.using(lifecycle.database()).select_related("message")
    stream = streams.filter(pk=stream_id, message__isnull=False).first()
    if stream is None or stream.message is None:
        return None
    [message] = ui_messages([stream.message], upto_rev=stream.rev, using=lifecycle.database())
    return message, lifecycle.usage_of(stream)


def _untitled(thread_id: UUID) -> Thread | None:
    return Thread.objects.using(lifecycle.database()).select_related("owner").filter(pk=thread_id, title="").first()
