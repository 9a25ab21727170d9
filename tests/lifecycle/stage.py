"""Fixtures of the tests of the state machine: agents for one test, recorded notifications, a worker run by hand.

A plugin that `tests/conftest.py` registers.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.conf import settings
from django.db.models.functions import Now

from durable_agents import Agent, Retry, ToolContext, lifecycle, tool
from durable_agents.agents import registry
from durable_agents.exceptions import ErrorKind, LeaseLostError
from durable_agents.lifecycle import Append, CallResult, Claim, FailedAttempt, NewCall, StepOutcome
from durable_agents.llm import ModelUsage
from durable_agents.models import Stream, StreamState, Thread, ToolCall, ToolCallStatus
from durable_agents.parts import Chunk, Part

CLUSTER: str = settings.Q_CLUSTER["name"]
POOLS = ("agents", "tools")


@tool
def plain(word: str = "") -> str:
    """Say a word; a worker's death leaves it unknown whether that happened."""
    return word


@tool(after_crash="retry", retry=Retry(max_attempts=3))
def again(ctx: ToolContext, word: str = "") -> str:
    """Say a word; it may be said twice."""
    return word


@tool(after_crash="fail", pool="tools")
def once(word: str = "") -> str:
    """Say a word, or fail when the worker dies."""
    return word


Declare = Callable[..., Agent]


@pytest.fixture
def declare() -> Iterator[Declare]:
    """Declare agents that are forgotten after the test."""
    names: list[str] = []

    def declared(name: str = "tested", **options: Any) -> Agent:
        agent = Agent(name, model="openai/x", **{"tools": [plain, again, once], **options})
        names.append(name)
        return agent

    yield declared
    for name in names:
        registry.remove(name)


@pytest.fixture
def agent(declare: Declare) -> Agent:
    """Return an agent with three tools that differ in what a crash does to them."""
    return declare()


@pytest.fixture
def worker() -> "Worker":
    """Return a worker whose every claim and commit is made by the test."""
    return Worker()


@dataclass
class Bells:
    """The notifications that were sent: the names of clusters, and the threads of which browsers were notified."""

    workers: list[str] = field(default_factory=list)
    browsers: list[UUID] = field(default_factory=list)

    def forget(self) -> None:
        """Forget the notifications so far."""
        self.workers.clear()
        self.browsers.clear()


@pytest.fixture
def bells(monkeypatch: pytest.MonkeyPatch) -> Bells:
    """Record notifications in place of sending them."""
    rung = Bells()
    monkeypatch.setattr("durable_agents.notifications.workers.notify_cluster", rung.workers.append)
    monkeypatch.setattr("durable_agents.notifications.clients.publish", lambda thread, _: rung.browsers.append(thread))
    return rung


@dataclass(kw_only=True)
class Worker:
    """One worker process as the state machine sees it: the test says what it claims, stores and commits."""

    holder: str = "boot:1:100:5"
    agents: Sequence[str] = ("tested",)
    tool_names: Sequence[str] = ("plain", "again", "once")
    said: dict[UUID, int] = field(default_factory=dict)

    def claim(
        self, *, streams: int = 10, tools: int = 10, pools: Sequence[str] = POOLS, suspects: bool = False
    ) -> list[Claim]:
        """Claim what is due."""
        return lifecycle.claim(
            pools=pools,
            holder=self.holder,
            streams=streams,
            tools=tools,
            code=dict.fromkeys(self.agents, self.tool_names),
            suspects=suspects,
        )

    def claim_step(self) -> Claim:
        """Claim the one model step that is due."""
        [claim] = self.claim(tools=0)
        return claim

    def claim_call(self) -> Claim:
        """Claim the tool call that has been due for longest."""
        [claim] = self.claim(streams=0, tools=1)
        return claim

    def say(self, claim: Claim, *texts: str) -> None:
        """Store one delta for each text; the first of a stream begins its step. LeaseLostError once it is lost."""
        for text in texts:
            seq = self.said.get(claim.row_id, 0)
            self.said[claim.row_id] = seq + 1
            stored, _ = lifecycle.append_deltas([Append(claim=claim, seq=seq, chunks=spoken(text, first=seq == 0))])
            if not stored:
                raise LeaseLostError(f"stream {claim.row_id}")

    def answer(self, text: str = "Hello.", *calls: NewCall, claim: Claim | None = None) -> Claim:
        """Claim the due step, unless it is held already, and commit it with this text and these calls."""
        claim = claim or self.claim_step()
        lifecycle.commit_step(claim, outcome(text, *calls))
        return claim

    def retry(self, claim: Claim, *, kind: ErrorKind = ErrorKind.NETWORK, delay_seconds: float = 60) -> None:
        """Fail the attempt; the next one is due later."""
        lifecycle.retry_step(claim, failed(kind), delay_seconds=delay_seconds, max_attempts=4)

    def fail(self, claim: Claim, *, kind: ErrorKind = ErrorKind.AUTH) -> None:
        """Fail the attempt and the run."""
        lifecycle.fail_step(claim, failed(kind))

    def settle(self, result: Any = "done", *, claim: Claim | None = None) -> Claim:
        """Claim the due tool call, unless it is held already, and finish it with this result."""
        claim = claim or self.claim_call()
        lifecycle.finish_tool_call(claim, CallResult(result=result))
        return claim


def spoken(text: str, *, first: bool) -> list[Chunk]:
    """Return the chunks that say `text`, with the beginning of the step where they are its first."""
    begin: list[Chunk] = [{"type": "start-step"}, {"type": "text-start", "id": "t"}] if first else []
    return [*begin, {"type": "text-delta", "id": "t", "delta": text}]


def calling(name: str = "plain", *, word: str = "x", error: str = "", provider_call_id: str = "") -> NewCall:
    """Return a call of the tool `name`, as the engine hands it over."""
    declared = registry.get("tested").tools.get(name)
    return NewCall(
        tool_call_id=f"call_{uuid4().hex}",
        provider_call_id=provider_call_id,
        tool_name=name,
        arguments={"word": word},
        max_attempts=declared.retry.max_attempts if declared else 1,
        timeout_seconds=60,
        error=error,
    )


def step_parts(text: str, *calls: NewCall) -> list[Part]:
    """Return the parts of a step that says `text` and makes `calls`."""
    texts: list[Part] = [{"type": "text", "text": text, "state": "done"}] if text else []
    return [{"type": "step-start"}, *texts, *(tool_part(call) for call in calls)]


def tool_part(call: NewCall) -> Part:
    """Return the part of a call as the step has it."""
    facts = {"toolCallId": call.tool_call_id, "input": call.arguments}
    return {"type": f"tool-{call.tool_name}", "state": "input-available", **facts}


def outcome(text: str, *calls: NewCall, usage: ModelUsage | None = None) -> StepOutcome:
    """Return a whole answer of the model."""
    return StepOutcome(
        parts=step_parts(text, *calls),
        calls=calls,
        finish_reason="tool-calls" if calls else "stop",
        model="openai/x",
        usage=usage or ModelUsage(input_tokens=10, output_tokens=5),
    )


def failed(kind: ErrorKind, *, usage: ModelUsage | None = None) -> FailedAttempt:
    """Return a failed attempt, with a text of the provider's that nobody but the admin may see."""
    return FailedAttempt(kind=kind, detail="refused: key-123", model="openai/x", usage=usage)


def make_due(thread: Thread) -> None:
    """Make the thread's delayed rows due."""
    past = Now() - timedelta(seconds=1)
    Stream.objects.filter(thread=thread, state=StreamState.PENDING).update(available_at=past)
    ToolCall.objects.filter(thread=thread, status=ToolCallStatus.PENDING).update(available_at=past)


def let_expire(claim: Claim) -> None:
    """Make the lease of a held row expire."""
    rows = Stream.objects if claim.kind == "stream" else ToolCall.objects
    rows.filter(pk=claim.row_id).update(lease_expires_at=Now() - timedelta(seconds=1))


def status_of(thread: Thread) -> str:
    """Return the status that is stored."""
    return Thread.objects.values_list("status", flat=True).get(pk=thread.pk)


def stream_of(claim: Claim) -> Stream:
    """Return the row of a claimed step as it is stored."""
    return Stream.objects.get(pk=claim.row_id)


def call_of(claim: Claim) -> ToolCall:
    """Return the row of a claimed tool call as it is stored."""
    return ToolCall.objects.get(pk=claim.row_id)


def open_stream(thread: Thread) -> Stream:
    """Return the thread's one open attempt."""
    return Stream.objects.open().get(thread=thread)
