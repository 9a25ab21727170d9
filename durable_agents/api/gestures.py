"""Hides what a client of the AI SDK means by a request: a message, an edit, another try, answers to calls, or nothing.

The server has the history; what the client shows of it is a hint and never the truth. Format: AI SDK,
``HttpChatTransport``; which gesture looks how is its ``AbstractChat``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from rest_framework import serializers
from rest_framework.request import Request

from durable_agents import files, lifecycle
from durable_agents.agents import Agent, registry
from durable_agents.api.inputs import Body, Text
from durable_agents.conf import config
from durable_agents.exceptions import (
    AgentRequiredError,
    ApprovalExpiredError,
    InvalidPartsError,
    MessageNotFoundError,
    ThreadNotFoundError,
    TooLargeError,
    ToolCallNotPendingError,
)
from durable_agents.models import (
    Message,
    MessageQuerySet,
    Role,
    Stream,
    Thread,
    ThreadStatus,
    ToolCall,
    ToolCallStatus,
    ToolKind,
)
from durable_agents.parts import Part, user_parts
from durable_agents.policies import (
    decider,
    owner_and_scope,
    policy,
    public_agent,
    public_thread,
    public_tool_call,
    sender,
)
from durable_agents.reading import Seen, latest_answer_of, steps_in

SUBMIT, REGENERATE = "submit-message", "regenerate-message"


class Id(serializers.CharField):
    """An id of the client's, which is a text and is kept as it is."""

    def __init__(self, *, is_required: bool = False) -> None:
        super().__init__(required=is_required, allow_null=not is_required, max_length=200, trim_whitespace=False)

    def to_internal_value(self, data: Any) -> str:
        """The id. Raises ValidationError for what is no text."""
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class ShownMessages(serializers.ListField):
    """The messages that the client shows, of which only the last is read: see ``ChatMessage``."""


class ChatMessage(Body):
    """The last message that the client shows."""

    id = Id()
    role = serializers.ChoiceField([Role.USER.value, Role.ASSISTANT.value])
    parts = serializers.ListField(child=serializers.DictField())
    metadata = serializers.DictField(required=False, allow_null=True)


class ChatRequest(Body):
    """What is read of a request; anything else in it (``system``, ``tools``, ``model`` …) is ignored."""

    id = Id(is_required=True)
    messages = ShownMessages(required=False, allow_null=True)
    message = serializers.DictField(required=False, allow_null=True)
    trigger = serializers.ChoiceField([SUBMIT, REGENERATE], required=False, allow_null=True)
    messageId = Id()  # noqa: N815 - the AI SDK's name
    agent = Text(required=False, allow_null=True, max_length=100)


@dataclass(frozen=True, kw_only=True)
class Told:
    """Which answer the client is told: this one, or the first one after a question; and what it shows of it."""

    thread: Thread
    answer: Message | None = None
    question: Message | None = None
    seen: Seen | None = None


class Chat:
    """One request, carried out by ``carry_out``."""

    def __init__(self, request: Request, *, agent: str | None) -> None:
        asked = ChatRequest.of(request)
        self._request = request
        self._chat_id: str = asked["id"]
        self._agent: str | None = agent or asked.get("agent")
        self._message_id: str | None = asked.get("messageId")
        self._wants_another = asked.get("trigger") == REGENERATE
        self._said = _last_message(asked)

    def carry_out(self) -> Told:
        """Do what the client means, once: the same request again changes nothing.

        Raises ValidationError, and what the functions raise that it comes to.
        """
        thread = self._thread()
        if thread is None:
            return self._begin()
        if self._said["role"] == Role.ASSISTANT:
            return self._regenerate(thread, self._message_id) if self._wants_another else self._go_on(thread)
        known = _shown(thread).find(self._message_id or self._said.get("id") or "")
        if self._message_id is not None and known is None:
            raise MessageNotFoundError(self._message_id)
        if known is None:
            return self._send(thread)
        if self._wants_another:
            return self._regenerate(thread, known.shown_id)
        if known.role != Role.USER:
            raise InvalidPartsError("A message of the assistant has this id: give the user's message one of its own.")
        return self._repeat(thread, known) if self._message_id is None else self._edit(thread, known)

    def _thread(self) -> Thread | None:
        with suppress(ThreadNotFoundError):
            return public_thread(self._request, self._chat_id, "view")
        return None

    def _may(self, thread: Thread, action: str) -> Thread:
        return public_thread(self._request, str(thread.pk), action)

    # ---------------------------------------------------------------------------------------------- user's messages

    def _begin(self) -> Told:
        """A thread that does not exist for the caller becomes one of the caller's, if there is something to say."""
        if self._said["role"] != Role.USER:
            raise ThreadNotFoundError(self._chat_id)
        if self._message_id is not None:
            raise MessageNotFoundError(self._message_id)
        agent = self._agent_of_new_thread()
        owner, scope = owner_and_scope(self._request)
        question = lifecycle.begin_chat(
            agent,
            self._said["parts"],
            admit=lambda thread: _admit(self._request, thread),
            owner=owner,
            scope=scope,
            client_id=self._chat_id,
            context=policy().context(self._request),
            message_client_id=self._said.get("id"),
            metadata=self._metadata() or {},
        )
        return Told(thread=question.thread, question=question)

    def _agent_of_new_thread(self) -> Agent:
        name = self._agent or config().default_agent
        public = registry.public()
        if name is None and len(public) == 1:
            name = public[0].name
        if name is None:
            raise AgentRequiredError
        return public_agent(self._request, name, "create")

    def _send(self, thread: Thread) -> Told:
        said, whose = self._said, sender(self._request, self._said["parts"])
        self._may(thread, "send")
        facts: dict[str, Any] = {"client_id": said.get("id"), "metadata": self._metadata() or {}, "sender": whose}
        question = lifecycle.send_message(thread, parts=said["parts"], **facts)
        return Told(thread=thread, question=question)

    def _repeat(self, thread: Thread, question: Message) -> Told:
        self._may(thread, "send")
        return Told(thread=thread, question=question)

    def _edit(self, thread: Thread, question: Message) -> Told:
        """Say the message anew; the last one, unchanged, is only gone on with."""
        parts = user_parts(None, self._said["parts"], max_text_chars=config().max_text_chars)
        later = _shown(thread).filter(role=Role.USER, position__gt=question.position or 0)
        if _says_the_same(question.parts, parts) and not later.exists():
            if not thread.is_running:
                lifecycle.resume_thread(self._may(thread, "resume"))
            return Told(thread=thread, question=question)
        self._may(thread, "edit")
        facts: dict[str, Any] = {"metadata": self._metadata(), "sender": sender(self._request, parts)}
        return Told(thread=thread, question=lifecycle.edit_message(thread, question.shown_id, parts, **facts))

    def _metadata(self) -> Any:
        """What the client says beside the message. Raises TooLargeError."""
        return _bounded(self._said.get("metadata"), "The metadata of the message")

    def _regenerate(self, thread: Thread, message_id: str | None) -> Told:
        self._may(thread, "edit")
        return Told(thread=thread, answer=lifecycle.regenerate(thread, message_id))

    # ---------------------------------------------------------------------------------------------- going on

    def _go_on(self, thread: Thread) -> Told:
        """Give the answers to calls that the client shows and we have not; without any, only what failed is tried
        again. A stop during tool calls stays one: clients send by themselves when all calls have an outcome."""
        parts = self._said["parts"]
        answer = self._answer_shown(thread)
        answers = list(self._answers(thread, parts))
        for give in answers:
            with suppress(ToolCallNotPendingError, ApprovalExpiredError):  # somebody was faster, or too late
                give()
        if not answers and _may_be_tried_again(thread, answer):
            lifecycle.resume_thread(self._may(thread, "resume"))
        calls = {part["toolCallId"]: part for part in parts if isinstance(part.get("toolCallId"), str)}
        return Told(thread=thread, answer=answer, seen=Seen(steps=steps_in(parts), calls=calls))

    def _answer_shown(self, thread: Thread) -> Message | None:
        """The answer that the client's last message shows, else the last one."""
        known = _shown(thread).find(self._said.get("id") or "")
        if known is not None and known.role == Role.ASSISTANT:
            return known
        return latest_answer_of(thread)

    def _answers(self, thread: Thread, parts: list[Part]) -> Iterator[Callable[[], Any]]:
        """What gives each answer that is the caller's to give. Raises PermissionDeniedError for somebody else's, and
        before anything is given."""
        calls = {call.tool_call_id: call for call in ToolCall.objects.open().filter(thread=thread)}
        for part in parts:
            call = calls.get(str(part.get("toolCallId")))
            if call is None:
                continue
            if part.get("state") == "approval-responded" and call.status == ToolCallStatus.APPROVAL_REQUESTED:
                yield from self._decision(thread, call, part.get("approval"))
            elif _is_answered(part) and _is_clients(call):
                public_tool_call(self._request, str(thread.pk), call.tool_call_id, "answer")
                yield _output(thread, call, part)

    def _decision(self, thread: Thread, call: ToolCall, approval: Any) -> Iterator[Callable[[], Any]]:
        if not isinstance(approval, dict) or approval.get("id") != call.tool_call_id:
            return
        is_approved = approval.get("approved")
        if not isinstance(is_approved, bool):
            return
        public_tool_call(self._request, str(thread.pk), call.tool_call_id, "approve")
        given = _bounded(approval.get("reason"), f"The reason for tool call {call.tool_call_id!r}")
        reason = given if isinstance(given, str) else ""
        decide = lifecycle.approve_tool_call if is_approved else lifecycle.reject_tool_call
        by = decider(self._request, thread)
        yield partial(decide, thread, call.tool_call_id, by=by, reason=reason)


def _last_message(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The last of ``messages``, else ``message``. Raises ValidationError."""
    messages = asked.get("messages")
    given = messages[-1] if messages else asked.get("message")
    if given is None:
        raise serializers.ValidationError("Give messages (a list), or message: the last one.", code="invalid")
    message = ChatMessage(data=given)
    message.is_valid(raise_exception=True)
    return dict(message.validated_data)


def _shown(thread: Thread) -> MessageQuerySet:
    return Message.objects.shown().filter(thread=thread)


def _admit(request: Request, thread: Thread) -> None:
    """Nothing is sent to a thread that does not exist for the caller. Raises ThreadNotFoundError."""
    public_thread(request, str(thread.pk), "send")


def _says_the_same(stored: list[Part], given: list[Part]) -> bool:
    """Whether two lists of checked parts say the same; a stored file may have another address by now."""
    pairs = zip(stored, given, strict=False)
    return len(stored) == len(given) and all(files.says_the_same(*pair) for pair in pairs)


def _is_answered(part: Part) -> bool:
    state = part.get("state")
    return isinstance(state, str) and state in {"output-available", "output-error"} and not part.get("preliminary")


def _is_clients(call: ToolCall) -> bool:
    return call.kind == ToolKind.CLIENT and call.status == ToolCallStatus.PENDING


def _output(thread: Thread, call: ToolCall, part: Part) -> Callable[[], Any]:
    if part["state"] == "output-error":
        error = part.get("errorText")
        if not isinstance(error, str) or not error.strip():
            raise InvalidPartsError("A tool part in the state output-error needs a text 'errorText'.")
        _bounded(error, f"The error of tool call {call.tool_call_id!r}")
        return partial(lifecycle.add_tool_error, thread, call.tool_call_id, error)
    output = _bounded(part.get("output"), f"The output of tool call {call.tool_call_id!r}")
    return partial(lifecycle.add_tool_result, thread, call.tool_call_id, output)


def _bounded(value: Any, name: str) -> Any:
    """The value, which is stored: no larger than a request that brings nothing else may be, though this one brings a
    history. Raises TooLargeError."""
    limit = config().max_body_bytes
    if len(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")) > limit:
        raise TooLargeError(f"{name} has more than {limit} bytes.")
    return value


def _may_be_tried_again(thread: Thread, answer: Message | None) -> bool:
    if thread.status == ThreadStatus.FAILED:
        return True
    if thread.status != ThreadStatus.STOPPED or answer is None:
        return False
    last = Stream.objects.in_transcript().filter(message=answer).order_by("-number").first()
    return last is None or not ToolCall.objects.filter(stream=last).exists()
