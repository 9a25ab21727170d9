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

from durable_agents.agents import registry
from durable_agents.lifecycle import MAX_TIMEOUT_SECONDS
from durable_agents.models import ThreadQuerySet, ThreadStatus, ToolCall, ToolCallStatus
from durable_agents.reading import MAX_SEARCH_CHARS, threads_with_text
from durable_agents.strictjson import clean

ValidatedData: TypeAlias = dict[str, Any]
"""The validated fields of a request, by name."""


class Text(serializers.CharField):
    """A text field that refuses numbers."""

    def to_internal_value(self, data: object) -> str:
        """Return the text."""
        # REST framework would accept a number and convert it to a string.
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class Storable(Text):
    """A text field that replaces characters that databases cannot store: NUL and lone surrogates."""

    def to_internal_value(self, data: object) -> str:
        """Return the cleaned text."""
        return super().to_internal_value(clean(data))


class Flag(serializers.BooleanField):
    """A boolean field that accepts only true and false, not words or numbers that mean the same."""

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
    """The caller's own id for a thread or message. It is kept unchanged. An id that cannot be stored is refused."""

    def __init__(self) -> None:
        super().__init__(required=False, allow_null=True, max_length=200, trim_whitespace=False)


class Prompt(Storable):
    """A user's text. Only characters that cannot be stored are changed; ``send_message`` checks the length."""

    def __init__(self) -> None:
        super().__init__(required=False, allow_null=True, allow_blank=True, trim_whitespace=False)


class Parts(serializers.ListField):
    """UI message parts. ``parts.user_parts`` checks later whether a user may send these parts."""

    child = serializers.JSONField()

    def __init__(self) -> None:
        super().__init__(required=False, allow_null=True)

    def run_child_validation(self, data: list[Mapping[str, object]]) -> list[Mapping[str, object]]:
        """Return the parts unchanged."""
        # The parser has already checked that the parts are JSON. REST framework's own check of each part can be very
        # slow: half a megabyte of empty lists would take minutes.
        return data


class Metadata(serializers.DictField):
    """The client's own data: a JSON object."""

    child = serializers.JSONField(allow_null=True)

    def __init__(self) -> None:
        super().__init__(required=False)

    def run_child_validation(self, data: object) -> Any:
        """Return the value unchanged, because the parser has already checked that it is JSON."""
        return data


class Seconds(serializers.FloatField):
    """The time limit of an unfinished tool call, in seconds from now; null means no limit."""

    def __init__(self) -> None:
        super().__init__(allow_null=True, max_value=MAX_TIMEOUT_SECONDS)

    def to_internal_value(self, data: object) -> float:
        """Return the seconds, a positive number."""
        # In Python, True is a number too. REST framework would also accept a string that contains a number.
        if not isinstance(data, int | float) or isinstance(data, bool) or data <= 0:
            self.fail("invalid")
        return super().to_internal_value(data)


class Checked(serializers.Serializer[None]):
    """The base class of serializers for a JSON object with several fields."""

    @classmethod
    def checked(cls, data: object) -> ValidatedData:
        """Return the validated fields of a JSON object. Raises ValidationError."""
        serializer = cls(data=data)
        serializer.is_valid(raise_exception=True)
        return dict(serializer.validated_data)


class Body(Checked):
    """The body of a request."""

    @classmethod
    def of(cls, request: Request) -> ValidatedData:
        """Return the validated fields of the request's body. Raises ValidationError."""
        # If the request has no body, ``request.data`` is an empty QueryDict, whatever the media type is.
        return cls.checked({} if isinstance(request.data, QueryDict) else request.data)


class Query(Checked):
    """The query parameters of a request. A parameter without a value is ignored."""

    @classmethod
    def of(cls, request: Request) -> ValidatedData:
        """Return the validated query parameters of the request. Raises ValidationError."""
        return cls.checked({name: value for name, value in request.query_params.items() if value})


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
    """The id of the answer to regenerate, or of the user's message to answer again. By default, the last answer is
    regenerated.
    """

    message_id = ShownId()


class Fork(Body):
    """The id of the last message that the fork includes. Without an id, the fork includes every message."""

    at = ShownId()


class NewThread(NewMessage):
    """A thread to create, with or without its first message."""

    agent = Text(max_length=100)
    title = Title()


class File(serializers.FileField):
    """An uploaded file."""


class NewAttachment(Body):
    """The request that uploads a file."""

    file = File(help_text="One file; it must not be empty.")


class ThreadChanges(Body):
    """The fields of a thread that may be changed."""

    title = Title()
    metadata = Metadata()
    archived = Flag(required=False)


class Continuation(Body):
    """The body of a request to resume a thread. Without a message, the stopped or failed run is retried."""

    prompt = Prompt()


class GivenResult(Body):
    """The result of a tool call: any JSON value."""

    result = serializers.JSONField(allow_null=True)


class GivenError(Body):
    """The reason why a tool call failed. The model gets this text."""

    error = Storable()


class Refusal(Body):
    """The reason why a person rejects a tool call. The model gets this reason."""

    reason = Storable(required=False, allow_blank=True)


class Approval(Refusal):
    """The approval of a tool call. ``arguments``, if present, replaces the arguments that the model chose."""

    arguments = serializers.DictField(child=serializers.JSONField(allow_null=True), required=False, allow_null=True)


class GivenTime(Body):
    """The new time limit of an unfinished tool call."""

    seconds = Seconds()


class ThreadFilters(Query):
    """Filters for a list of threads."""

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
        if "agent" in filters:
            filters["agent__in"] = registry.names_of(filters.pop("agent"))
        threads = threads.filter(**filters)
        return threads_with_text(threads, text) if text else threads


class ToolCallFilters(Query):
    """Filters for a list of tool calls."""

    status = serializers.ChoiceField(ToolCallStatus.choices, required=False)

    @classmethod
    def apply(cls, request: Request, calls: QuerySet[ToolCall]) -> QuerySet[ToolCall]:
        """Return the calls that match the request's filters."""
        return calls.filter(**cls.of(request))


class Paging(Query):
    """Pagination parameters, for a response that has other fields besides the paginated list."""

    cursor = serializers.CharField(required=False, help_text="The cursor from the link to another page.")
    limit = serializers.IntegerField(required=False, help_text="Rows on a page: 50 by default, at most 200.")


class MessageQuery(Query):
    """The query parameters of the message list. They select messages, and say whether an unfinished answer is
    included.
    """

    after = serializers.IntegerField(required=False, help_text="A position; only messages after it are listed.")
    streams = serializers.BooleanField(required=False, help_text="Include the open stream's content in its message.")
    from_number = serializers.IntegerField(required=False, help_text="Ignore an open stream whose number is lower.")
