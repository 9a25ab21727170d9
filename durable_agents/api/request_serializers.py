"""Serializers for request bodies and query parameters: validate them and keep only the fields that callers may set.

A field that is not declared here is ignored, so that nobody can set an owner, a status or a role.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from django.db.models import QuerySet
from django.http import QueryDict
from rest_framework import serializers
from rest_framework.request import Request

from durable_agents.lifecycle import MAX_TIMEOUT_SECONDS
from durable_agents.models import ThreadQuerySet, ThreadStatus, ToolCall, ToolCallStatus
from durable_agents.reading import MAX_SEARCH_CHARS, threads_with_text
from durable_agents.strictjson import clean

ValidatedData: TypeAlias = dict[str, Any]
"""The checked fields of a request; each has the type of its field."""


class Text(serializers.CharField):
    """Text; a number is refused."""

    def to_internal_value(self, data: object) -> str:
        """Return the text."""
        # REST framework would accept a number and convert it to text.
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class Storable(Text):
    """Text in which characters that no database stores (NUL, lone surrogates) are replaced."""

    def to_internal_value(self, data: object) -> str:
        """Return the cleaned text."""
        return super().to_internal_value(clean(data))


class Flag(serializers.BooleanField):
    """True or false; no other word or number is accepted."""

    def to_internal_value(self, data: object) -> bool:
        """Return True or False."""
        # REST framework accepts many words for true and false, such as "off" and "n".
        if not isinstance(data, bool):
            self.fail("invalid", input=data)
        return data


class Title(Storable):
    """A title; it may be empty."""

    def __init__(self) -> None:
        super().__init__(required=False, allow_blank=True, max_length=200)


class ClientId(Text):
    """The caller's own id for a thread or message. It is kept unchanged, and refused if it cannot be stored."""

    def __init__(self) -> None:
        super().__init__(required=False, allow_null=True, max_length=200, trim_whitespace=False)


class Prompt(Storable):
    """A user's text. Only characters that cannot be stored are changed; ``send_message`` checks the length."""

    def __init__(self) -> None:
        super().__init__(required=False, allow_null=True, allow_blank=True, trim_whitespace=False)


class Parts(serializers.ListField):
    """UI message parts; ``parts.user_parts`` checks which of them a user may send."""

    child = serializers.JSONField()

    def __init__(self) -> None:
        super().__init__(required=False, allow_null=True)

    def run_child_validation(self, data: list[Mapping[str, object]]) -> list[Mapping[str, object]]:
        """Return the parts unchanged."""
        # The parser has already checked that the parts are JSON. REST framework would encode each part again for that
        # check and collect an error for each: half a megabyte of empty lists kept a web process busy for minutes.
        return data


class Metadata(serializers.DictField):
    """The client's own data: a JSON object."""

    child = serializers.JSONField(allow_null=True)

    def __init__(self) -> None:
        super().__init__(required=False)

    def run_child_validation(self, data: object) -> Any:
        """Return the values unchanged, as ``Parts`` does."""
        return data


class Seconds(serializers.FloatField):
    """How long an open call may take, in seconds; null means no limit."""

    def __init__(self) -> None:
        super().__init__(allow_null=True, max_value=MAX_TIMEOUT_SECONDS)

    def to_internal_value(self, data: object) -> float:
        """Return the seconds, a positive number."""
        # Python counts True as a number, and REST framework also accepts a text that looks like a number.
        if not isinstance(data, int | float) or isinstance(data, bool) or data <= 0:
            self.fail("invalid")
        return super().to_internal_value(data)


class Body(serializers.Serializer[None]):
    """The body of a request."""

    @classmethod
    def of(cls, request: Request) -> ValidatedData:
        """Return the checked fields that the request has. Raises ValidationError."""
        # Without a body, the data of a request is an empty form, whatever its media type is.
        return _validated(cls(data={} if isinstance(request.data, QueryDict) else request.data))


class Query(serializers.Serializer[None]):
    """The query parameters of a request; a parameter without a value is ignored."""

    @classmethod
    def of(cls, request: Request) -> ValidatedData:
        """Return the checked parameters that the request has. Raises ValidationError."""
        return _validated(cls(data={name: value for name, value in request.query_params.items() if value}))


def _validated(serializer: Body | Query) -> ValidatedData:
    serializer.is_valid(raise_exception=True)
    return dict(serializer.validated_data)


class ShownId(Text):
    """The id of a message, as responses show it."""

    def __init__(self) -> None:
        super().__init__(required=False, allow_null=True, trim_whitespace=False)


class NewWords(Body):
    """The new content of a user's message: ``prompt`` or ``parts``. Without ``metadata``, the old metadata is kept."""

    prompt = Prompt()
    parts = Parts()
    metadata = Metadata()


class NewMessage(NewWords):
    """The content of a user's message: ``prompt`` or ``parts``."""

    client_id = ClientId()


class Regeneration(Body):
    """The answer to regenerate, or the question to answer again; without an id, the last answer is regenerated."""

    message_id = ShownId()


class Fork(Body):
    """The last message that the fork includes; without it, the fork includes every message."""

    at = ShownId()


class NewThread(NewMessage):
    """A thread to create, with or without its first message."""

    agent = Text(max_length=100)
    title = Title()


class File(serializers.FileField):
    """A file, as it is uploaded."""


class NewAttachment(Body):
    """A file to upload."""

    file = File(help_text="One file; it must not be empty.")


class ThreadChanges(Body):
    """The fields of a thread that may be changed."""

    title = Title()
    metadata = Metadata()
    archived = Flag(required=False)


class Continuation(Body):
    """A message for the resumed thread; without one, the thread retries what failed or was stopped."""

    prompt = Prompt()


class GivenResult(Body):
    """The result of a tool call: any JSON value."""

    result = serializers.JSONField(allow_null=True)


class GivenError(Body):
    """Why a tool call failed, in words for the model."""

    error = Storable()


class Refusal(Body):
    """Why a person rejects a call; the model gets the reason."""

    reason = Storable(required=False, allow_blank=True)


class Approval(Refusal):
    """The approval of a call; ``arguments`` replaces the model's arguments."""

    arguments = serializers.DictField(child=serializers.JSONField(allow_null=True), required=False, allow_null=True)


class GivenTime(Body):
    """How long an open call may take from now on."""

    seconds = Seconds()


class ThreadFilters(Query):
    """Which threads are listed."""

    agent = serializers.CharField(required=False)
    status = serializers.ChoiceField(ThreadStatus.choices, required=False)
    archived = serializers.BooleanField(required=False)
    search = Storable(
        required=False,
        max_length=MAX_SEARCH_CHARS,
        help_text="Words in the title or in messages. PostgreSQL finds whole words, in the syntax of web searches. "
        "Other databases search for the literal text, ignoring case.",
    )

    @classmethod
    def apply(cls, request: Request, threads: ThreadQuerySet) -> ThreadQuerySet:
        """Return the threads that match the request's filters."""
        filters = cls.of(request)
        text = filters.pop("search", None)
        threads = threads.filter(**filters)
        return threads_with_text(threads, text) if text else threads


class ToolCallFilters(Query):
    """Which tool calls are listed."""

    status = serializers.ChoiceField(ToolCallStatus.choices, required=False)

    @classmethod
    def apply(cls, request: Request, calls: QuerySet[ToolCall]) -> QuerySet[ToolCall]:
        """Return the calls that match the request's filters."""
        return calls.filter(**cls.of(request))


class Paging(Query):
    """The page of a list that is one field of a larger response."""

    cursor = serializers.CharField(required=False, help_text="The cursor from the link to another page.")
    limit = serializers.IntegerField(required=False, help_text="Rows on a page: 50 by default, at most 200.")


class MessageQuery(Query):
    """Which messages are listed, and whether the answer that is being written is included."""

    after = serializers.IntegerField(required=False, help_text="A position; only messages after it are listed.")
    streams = serializers.BooleanField(required=False, help_text="Include the open stream's content in its message.")
    from_number = serializers.IntegerField(required=False, help_text="Ignore an open stream whose number is lower.")
