"""Parse requests of AI SDK clients into actions: send, edit or regenerate a message, answer tool calls, or do nothing.

A request contains the chat history that the client shows. The server never trusts this history, because it stores its
own. The format is that of ``HttpChatTransport`` in the AI SDK. The SDK's ``AbstractChat`` defines which action sends
which request.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypedDict, cast

from rest_framework import serializers

from durable_agents import attachment_storage, lifecycle
from durable_agents.actors import Actor
from durable_agents.agents import registry
from durable_agents.api.request_serializers import Body, Query, Text, ValidatedData
from durable_agents.conf import config
from durable_agents.exceptions import (
    AgentRequiredError,
    ApprovalExpiredError,
    InvalidPartsError,
    MessageNotFoundError,
    ThreadNotFoundError,
    TooLargeError,
    ToolCallNotPendingError,
    ToolChangedError,
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
    Asker,
    actor,
    owner_and_scope,
    public_agent,
    public_thread,
    public_tool_call,
    sender,
    trusted_context,
)
from durable_agents.reading import Seen, latest_answer_of, steps_in, waits_for_others

SUBMIT, REGENERATE = "submit-message", "regenerate-message"


class Id(serializers.CharField):
    """An id from an AI SDK client. It must be a string and is kept unchanged."""

    def __init__(self, *, is_required: bool = False) -> None:
        super().__init__(required=is_required, allow_null=not is_required, max_length=200, trim_whitespace=False)

    def to_internal_value(self, data: object) -> str:
        """Return the id. Raises ValidationError if the id is not a string."""
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class ShownMessages(serializers.ListField):
    """The chat history that the client sends. Only the last message is read; see ``ChatMessage``."""


class ShownParts(serializers.ListField):
    """All parts of a ``ChatMessage``. Each part is a JSON object."""

    child = serializers.DictField()

    def run_child_validation(self, data: list[Mapping[str, object]]) -> list[Mapping[str, object]]:
        """Return the parts unchanged. Raises ValidationError for the first part that is not an object."""
        # Stop at the first invalid part. REST framework would collect an error for each part. The response to a request
        # with 250,000 invalid parts would then be several megabytes long.
        for index, part in enumerate(data):
            if not isinstance(part, dict):
                raise serializers.ValidationError(
                    {str(index): f"A part is a JSON object, not a {type(part).__name__}."}
                )
        return data


class ChatMessage(Body):
    """The last message of the chat history that the client sends."""

    id = Id()
    role = serializers.ChoiceField([Role.USER.value, Role.ASSISTANT.value])
    parts = ShownParts()
    metadata = serializers.DictField(required=False, allow_null=True)


class ChatRequest(Body):
    """The fields of a request that the server reads. All other fields are ignored, such as ``system``, ``tools`` and
    ``model``.
    """

    id = Id(is_required=True)
    messages = ShownMessages(required=False, allow_null=True)
    message = serializers.DictField(required=False, allow_null=True)
    trigger = serializers.ChoiceField([SUBMIT, REGENERATE], required=False, allow_null=True)
    messageId = Id()  # noqa: N815 - the AI SDK's name
    agent = Text(required=False, allow_null=True, max_length=100)


class WaitQuery(Query):
    """The query parameter that keeps a response open while the run waits."""

    wait = serializers.BooleanField(
        required=False,
        help_text="Keep the response open while the run waits for people, browsers or services.",
    )


@dataclass(frozen=True, kw_only=True)
class StreamedAnswer:
    """The answer to stream to the client.

    - ``answer``: the assistant message. If it is None, the first answer to ``question`` is streamed.
    - ``question``: a message of the user.
    - ``seen``: which part of the answer the client already has.
    """

    thread: Thread
    answer: Message | None = None
    question: Message | None = None
    seen: Seen | None = None


class LastMessage(TypedDict, total=False):
    """The checked fields of a ``ChatMessage``."""

    id: str | None
    role: str
    parts: list[Part]
    metadata: dict[str, object] | None


class Chat:
    """A request from an AI SDK client. ``execute`` finds out which action the client wants, and performs it."""

    def __init__(self, request: Asker, body: ValidatedData, *, agent: str | None) -> None:
        """``body`` has the fields of a ``ChatRequest``."""
        self._request = request
        self._chat_id: str = body["id"]
        self._agent: str | None = agent or body.get("agent")
        self._message_id: str | None = body.get("messageId")
        self._regenerates = body.get("trigger") == REGENERATE
        messages = body.get("messages")
        last = messages[-1] if messages else body.get("message")
        if last is None:
            raise serializers.ValidationError("Send 'messages' (a list) or 'message' (the last one).", code="invalid")
        message = ChatMessage(data=last)
        message.is_valid(raise_exception=True)
        self._message = cast("LastMessage", dict(message.validated_data))

    def execute(self) -> StreamedAnswer:
        """Perform the action of the request. Repeating the same request changes nothing.

        Raises ValidationError, and the errors of the ``lifecycle`` functions.
        """
        thread = None
        with suppress(ThreadNotFoundError):
            thread = public_thread(self._request, self._chat_id, "view")
        if thread is None:
            return self._begin()
        if self._message["role"] == Role.ASSISTANT:
            return self._regenerate(thread, self._message_id) if self._regenerates else self._continue(thread)
        known = _shown(thread).find(self._message_id or self._message.get("id") or "")
        # ``messageId`` is the id of an existing message to edit or regenerate. The id of a new message is the ``id`` of
        # the message object.
        if self._message_id is not None and known is None:
            raise MessageNotFoundError(self._message_id)
        if known is None:
            return self._send(thread)
        if self._regenerates:
            return self._regenerate(thread, known.shown_id)
        if known.role != Role.USER:
            raise InvalidPartsError("This id belongs to a message of the assistant. Give the user's message its own.")
        return self._send(thread) if self._message_id is None else self._edit(thread, known)

    def _authorize(self, thread: Thread, action: str) -> Thread:
        return public_thread(self._request, thread.pk, action)

    # Messages from the user.

    def _begin(self) -> StreamedAnswer:
        """Create a thread with the chat's id as its ``client_id``, and send its first message."""
        if self._message["role"] != Role.USER:
            raise ThreadNotFoundError(self._chat_id)
        if self._message_id is not None:
            raise MessageNotFoundError(self._message_id)
        name = self._agent or config().default_agent
        public = registry.public()
        if name is None and len(public) == 1:
            name = public[0].name
        if name is None:
            raise AgentRequiredError
        agent = public_agent(self._request, name, "create")
        owner, scope = owner_and_scope(self._request)
        question = lifecycle.begin_chat(
            agent,
            self._message["parts"],
            # The owner may already have a thread with this client_id. Then the message is sent to this thread, if
            # ``_authorize`` allows it.
            admit=lambda thread: self._authorize(thread, "send"),
            owner=owner,
            scope=scope,
            client_id=self._chat_id,
            context=trusted_context(self._request),
            message_client_id=self._message.get("id"),
            metadata=self._metadata() or {},
            by=self._actor(),
        )
        return StreamedAnswer(thread=question.thread, question=question)

    def _actor(self, thread: Thread | None = None) -> Actor:
        return actor(self._request, via="chat", thread=thread)

    def _send(self, thread: Thread) -> StreamedAnswer:
        """Send the message. If the thread already has a message with this id, stream the answer to that message."""
        parts = self._message["parts"]
        uploader = sender(self._request, parts)
        self._authorize(thread, "send")
        question = lifecycle.send_message(
            thread,
            parts=parts,
            client_id=self._message.get("id"),
            metadata=self._metadata() or {},
            sender=uploader,
            by=self._actor(thread),
        )
        return StreamedAnswer(thread=thread, question=question)

    def _edit(self, thread: Thread, question: Message) -> StreamedAnswer:
        """Edit the message, and return the new answer to stream.

        If the user's last message already has this content, the request is a repetition. Then do not edit the message,
        but resume a stopped or failed run, and return the existing answer.
        """
        parts = user_parts(None, self._message["parts"], max_text_chars=config().max_text_chars)
        later = _shown(thread).filter(role=Role.USER, position__gt=question.position or 0)
        # A client that lost the response sends the same edit again. Performing the edit twice would start a second run.
        if attachment_storage.same_content(question.parts, parts) and not later.exists():
            if not thread.is_running:
                lifecycle.resume_thread(self._authorize(thread, "resume"), by=self._actor(thread))
            return StreamedAnswer(thread=thread, question=question)
        self._authorize(thread, "edit")
        edited = lifecycle.edit_message(
            thread,
            question.shown_id,
            parts,
            metadata=self._metadata(),
            sender=sender(self._request, parts),
            by=self._actor(thread),
        )
        return StreamedAnswer(thread=thread, question=edited)

    def _metadata(self) -> dict[str, object] | None:
        """Return the metadata of the message. Raises TooLargeError if the metadata is too large."""
        metadata = self._message.get("metadata")
        _check_size(metadata, "The metadata of the message")
        return metadata

    def _regenerate(self, thread: Thread, message_id: str | None) -> StreamedAnswer:
        self._authorize(thread, "edit")
        return StreamedAnswer(thread=thread, answer=lifecycle.regenerate(thread, message_id, by=self._actor(thread)))

    # Answers in progress.

    def _continue(self, thread: Thread) -> StreamedAnswer:
        """Store the new tool results, tool errors and approval decisions that the request contains.

        If the request contains none of these, resume a failed run. Also resume a stopped run, unless its last step has
        tool calls.
        """
        parts = self._message["parts"]
        shown = _shown(thread).find(self._message.get("id") or "")
        answer = shown if shown is not None and shown.role == Role.ASSISTANT else latest_answer_of(thread)
        outcomes = list(self._outcomes(thread, parts))
        for store in outcomes:
            # Ignore these errors: somebody else decided first, the tool call expired, or the tool has changed. The
            # client sees the current state in the response.
            with suppress(ToolCallNotPendingError, ApprovalExpiredError, ToolChangedError):
                store()
        is_retry = not outcomes and thread.status == ThreadStatus.FAILED
        if not outcomes and thread.status == ThreadStatus.STOPPED and answer is not None:
            # AI SDK clients automatically send a request when all tool calls of a step have results. This request must
            # not resume a run that a person has stopped.
            last = Stream.objects.in_transcript().filter(message=answer).order_by("-number").first()
            is_retry = last is None or not ToolCall.objects.filter(stream=last).exists()
        if is_retry:
            lifecycle.resume_thread(self._authorize(thread, "resume"), by=self._actor(thread))
        calls = {part["toolCallId"]: part for part in parts if isinstance(part.get("toolCallId"), str)}
        return StreamedAnswer(thread=thread, answer=answer, seen=Seen(steps=steps_in(parts), calls=calls))

    def _outcomes(self, thread: Thread, parts: list[Part]) -> Iterator[Callable[[], ToolCall]]:
        """Yield a function for each tool result, tool error and approval decision in the request. The function stores
        the result, error or decision.

        Raises PermissionDeniedError at the first one that the user may not send. Call no function before all functions
        have been yielded, so that a refused request stores nothing.
        """
        calls = {call.tool_call_id: call for call in ToolCall.objects.open().filter(thread=thread)}
        for part in parts:
            call = calls.get(str(part.get("toolCallId")))
            if call is None:
                continue
            if part.get("state") == "approval-responded" and call.status == ToolCallStatus.APPROVAL_REQUESTED:
                for decide in self._decision(thread, call, part.get("approval")):
                    # Only the first decision about a tool call counts. Skip all later parts about the same call.
                    del calls[call.tool_call_id]
                    yield decide
            # Skip a preliminary output. It only shows the progress of a tool, whose result follows in a later request.
            elif (
                part.get("state") in ("output-available", "output-error")
                and not part.get("preliminary")
                and call.kind == ToolKind.CLIENT
                and call.status == ToolCallStatus.PENDING
            ):
                del calls[call.tool_call_id]
                public_tool_call(self._request, thread.pk, call.tool_call_id, "add_tool_result")
                yield _output(thread, call, part, by=self._actor(thread))

    def _decision(self, thread: Thread, call: ToolCall, approval: object) -> Iterator[Callable[[], ToolCall]]:
        if not isinstance(approval, dict) or approval.get("id") != call.tool_call_id:
            return
        is_approved = approval.get("approved")
        if not isinstance(is_approved, bool):
            return
        call = public_tool_call(self._request, thread.pk, call.tool_call_id, "approve")
        reason = approval.get("reason")
        _check_size(reason, f"The reason for tool call {call.tool_call_id!r}")
        decide = lifecycle.approve_tool_call if is_approved else lifecycle.reject_tool_call
        by = self._actor(thread)
        yield partial(decide, thread, call.tool_call_id, by=by, reason=reason if isinstance(reason, str) else "")


def current_answer(request: Asker, thread_id: str, *, waits: bool) -> StreamedAnswer | None:
    """Return the answer in progress, to stream it to a client that lost its connection. Return None in these cases:

    - No run is in progress.
    - The caller is not allowed to view the thread.
    - ``waits`` is false, and the run waits only for approvals or for tool results from outside.
    """
    # ``useChat`` with ``resume`` sends this request when its component mounts, even for a new chat whose thread does
    # not exist yet. An error response would be shown to the user, so return None for an unknown thread.
    try:
        thread = public_thread(request, thread_id, "view")
    except ThreadNotFoundError:
        return None
    if not thread.is_running or (not waits and waits_for_others(thread)):
        return None
    return StreamedAnswer(thread=thread, answer=latest_answer_of(thread))


def _shown(thread: Thread) -> MessageQuerySet:
    return Message.objects.shown().filter(thread=thread)


def _output(thread: Thread, call: ToolCall, part: Part, *, by: Actor) -> Callable[[], ToolCall]:
    if part["state"] == "output-error":
        error = part.get("errorText")
        if not isinstance(error, str) or not error.strip():
            raise InvalidPartsError("A tool part in the state output-error needs a text 'errorText'.")
        _check_size(error, f"The error of tool call {call.tool_call_id!r}")
        return partial(lifecycle.add_tool_error, thread, call.tool_call_id, error, by=by)
    output = part.get("output")
    _check_size(output, f"The output of tool call {call.tool_call_id!r}")
    return partial(lifecycle.add_tool_result, thread, call.tool_call_id, output, by=by)


def _check_size(value: object, name: str) -> None:
    """Raise TooLargeError for a value that is larger than ``MAX_BODY_BYTES``."""
    # The whole request may be larger than ``MAX_BODY_BYTES``, because it contains the chat history. A stored value may
    # not.
    limit = config().max_body_bytes
    if len(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")) > limit:
        raise TooLargeError(f"{name} has more than {limit} bytes.")
