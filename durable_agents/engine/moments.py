"""Hides when a worker runs what the project is told after commits: beside the rows that it holds, so that none waits
for it, one after the other for each thread, and each for a minute at most."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

from durable_agents import lifecycle
from durable_agents.agents import Agent
from durable_agents.lifecycle import Claim, StepOutcome
from durable_agents.models import Stream, Thread
from durable_agents.moments import Moment
from durable_agents.parts import Part
from durable_agents.transcript import ui_messages

if TYPE_CHECKING:
    from durable_agents.engine.worker import Engine

MOMENT_SECONDS = 60.0


class Moments:
    """What a worker has yet to tell the project."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._told: set[asyncio.Task[None]] = set()
        self._last: dict[UUID, asyncio.Task[None]] = {}
        self._has_told = False

    @property
    def are_over(self) -> bool:
        """Whether everything was told."""
        return not self._told

    def begin(self, moment: Moment) -> None:
        """Run it soon; from whichever thread."""
        self._engine.loop.call_soon_threadsafe(self._start, moment)

    async def settle(self, *, seconds: float | None = None) -> bool:
        """Wait for what is being told, so long at most, and give up what is not over then. Returns whether anything
        was told since this was last asked."""
        await asyncio.sleep(0)  # what was begun a moment before has its task
        if told := set(self._told):
            _, late = await asyncio.wait(told, timeout=seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*told, return_exceptions=True)
        has_told, self._has_told = self._has_told, False
        return has_told

    def _start(self, moment: Moment) -> None:
        task = self._engine.loop.create_task(self._tell(moment, after=self._last.get(moment.thread_id)))
        self._told.add(task)
        self._has_told = True
        self._last[moment.thread_id] = task
        task.add_done_callback(partial(self._forget, moment.thread_id))

    def _forget(self, thread_id: UUID, task: asyncio.Task[None]) -> None:
        self._told.discard(task)
        if self._last.get(thread_id) is task:
            del self._last[thread_id]

    async def _tell(self, moment: Moment, *, after: asyncio.Task[None] | None) -> None:
        if after is not None:
            await asyncio.wait({after})
        try:
            async with asyncio.timeout(MOMENT_SECONDS):
                await self._engine.call_user(moment.function, **moment.facts)
        except Exception:
            moment.log_failure()


def tell_step(engine: Engine, claim: Claim, agent: Agent, outcome: StepOutcome) -> None:
    """A step was committed: its message is complete and, where it made no calls, the turn."""
    facts: dict[str, Any] = {
        "thread_id": claim.thread_id,
        "stream_id": claim.row_id,
        "provider_metadata": _provider_metadata(outcome.parts),
    }
    if agent.on_message_complete is not None:
        tell = partial(_tell_message, engine, agent.on_message_complete)
        _begin(engine, "on_message_complete", tell, facts)
    if outcome.calls:
        return
    if agent.on_turn_complete is not None:
        _begin(engine, "on_turn_complete", agent.on_turn_complete, facts | {"finish_reason": outcome.finish_reason})
    if agent.title is not None:
        _begin(engine, "title", partial(_name_thread, engine, agent.title), {"thread_id": claim.thread_id})


def tell_retry(engine: Engine, agent: Agent, **facts: Any) -> None:
    """An attempt failed and another one follows."""
    if agent.on_retry is not None:
        _begin(engine, "on_retry", agent.on_retry, facts)


def _begin(engine: Engine, name: str, function: Any, facts: dict[str, Any]) -> None:
    engine.moments.begin(Moment(name=name, thread_id=facts["thread_id"], function=function, facts=facts))


def _provider_metadata(parts: Any) -> dict[str, Any]:
    """What the provider said about the parts of a step beside their content, the last word of each provider."""
    found: dict[str, Any] = {}
    part: Part
    for part in parts:
        found |= part.get("providerMetadata") or {}
    return found


async def _tell_message(engine: Engine, function: Any, **facts: Any) -> None:
    told: dict[str, Any] | None = await engine.in_database(_message_of, facts["stream_id"])
    if told is not None:
        await engine.call_user(function, **facts, **told)


def _message_of(stream_id: UUID) -> dict[str, Any] | None:
    """The message as clients see it, up to this step, and what the step has used; None where the thread is gone."""
    streams = Stream.objects.using(lifecycle.database()).select_related("message")
    stream = streams.filter(pk=stream_id, message__isnull=False).first()
    if stream is None or stream.message is None:
        return None
    [message] = ui_messages([stream.message], upto_rev=stream.rev, using=lifecycle.database())
    return {"message": message, "usage": lifecycle.usage_of(stream)}


async def _name_thread(engine: Engine, title: Any, *, thread_id: UUID) -> None:
    thread = await engine.in_database(_untitled, thread_id)
    if thread is None:
        return
    named = await engine.call_user(title, thread)
    await engine.in_database(lifecycle.name_thread, thread_id, str(named or ""))


def _untitled(thread_id: UUID) -> Thread | None:
    return Thread.objects.using(lifecycle.database()).select_related("owner").filter(pk=thread_id, title="").first()
