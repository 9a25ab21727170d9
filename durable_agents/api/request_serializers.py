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
        # REST framework would take a number for the text of its digits.
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
        # REST framework takes many words for a flag, "off" and "n" among them.
        if not isinstance(data, bool):
            self.fail("invalid", input=data)
        return data


class Title(Storable):
    """A title; it may be empty."""

    def __init__(self) -> None:
        super().__init__(required=False, allow_blank=True, max_length=200)


class ClientId(Text):
    """The caller's own id of a thread or message: kept unchanged, and refused where it cannot be stored."""

    def __init__(self) -> None:
        super().__init__(required=False, allow_null=True, max_length=200, trim_whitespace=False)


class Prompt(Storable):
    """A user's text, unchanged but for characters that cannot be stored; ``send_message`` checks its length."""

    def __init__(self) -> None:
        super().__init__(required=False, allow_null=True, allow_blank=True, trim_whitespace=False)


class Parts(serializers.ListField):
    """UI message parts; ``parts.user_parts`` checks which of them a user may send."""

    child = serializers.JSONField()

    def __init__(self) -> None:
        super().__init__(required=False, allow_null=True)

    def run_child_validation(self, data: list[Mapping[str, object]]) -> list[Mapping[str, object]]:
        """Return the parts as they are."""
        # The parser has made sure that they are JSON. REST framework would write each of them out again to see that,
        # and collect an error for each: half a megabyte of empty lists held a web process for minutes.
        return data


class Metadata(serializers.DictField):
    """A JSON object of the client's."""

    child = serializers.JSONField(allow_null=True)

    def __init__(self) -> None:
        super().__init__(required=False)

    def run_child_validation(self, data: object) -> Any:
        """Return the values as they are, like Parts."""
        return data


class Seconds(serializers.FloatField):
    """How long an open call may take; null is without limit."""

    def __init__(self) -> None:
        super().__init__(allow_null=True, max_value=MAX_TIMEOUT_SECONDS)

    def to_internal_value(self, data: object) -> float:
        """Return the seconds, a positive number."""
        # True is a number to Python, and to REST framework so is a text that looks like one.
        if not isinstance(data, int | float) or isinstance(data, bool) or data <= 0:
            self.fail("invalid")
        return super().to_internal_value(data)


class Body(serializers.Serializer[None]):
    """The body of a request."""

    @classmethod
    def of(cls, request: Request) -> ValidatedData:
        """Return the checked fields that the request has. Raises ValidationError."""
        # A request without a body has an empty form as its data, whatever its type.
        return _validated(cls(data={} if isinstance(request.data, QueryDict) else request.data))


class Query(serializers.Serializer[None]):
    """The query parameters of a request; one without a value counts as not given."""

    @classmethod
    def of(cls, request: Request) -> ValidatedData:
        """Return the checked parameters that the request has. Raises ValidationError."""
        return _validated(cls(data={name: value for name, value in request.query_params.items() if value}))


def _validated(serializer: Body | Query) -> ValidatedData:
    serializer.is_valid(raise_exception=True)
    return dict(serializer.validated_data)


class ShownId(Text):
    """The id of a message as it is shown; one that no message has is not found."""

    def __init__(self) -> None:
        super().__init__(required=False, allow_null=True, trim_whitespace=False)


class NewWords(Body):
    """The new content of a user's message: ``prompt`` or ``parts``; without ``metadata`` the old metadata stays."""

    prompt = Prompt()
    parts = Parts()
    metadata = Metadata()


class NewMessage(NewWords):
    """The content of a user's message: ``prompt`` or ``parts``."""

    client_id = ClientId()


class Regeneration(Body):
    """The answer to regenerate, or the question to answer; without either, the last answer."""

    message_id = ShownId()


class Fork(Body):
    """The last message that the fork includes; without it, all."""

    at = ShownId()


class NewThread(NewMessage):
    """A thread to create, with or without its first message."""

    agent = Text(max_length=100)
    title = Title()


class File(serializers.FileField):
    """A file, as it is uploaded."""


class NewAttachment(Body):
    """A file to upload."""

    file = File(help_text="One file, which is not empty.")


class ThreadChanges(Body):
    """The fields of a thread that may be changed."""

    title = Title()
    metadata = Metadata()
    archived = Flag(required=False)


class Continuation(Body):
    """A message for the resumed thread; without it, the thread retries."""

    prompt = Prompt()


class GivenResult(Body):
    """The result of a tool call: any JSON value."""

    result = serializers.JSONField(allow_null=True)


class GivenError(Body):
    """Why a tool call failed, in words for the model."""

    error = Storable()


class Refusal(Body):
    """Why a person does not let a call run; the model gets the reason."""

    reason = Storable(required=False, allow_blank=True)


class Approval(Refusal):
    """The approval of a call, with other arguments than the model's if there are any."""

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
        help_text="Words of the title, or of what was said. On PostgreSQL whole words in the syntax of web searches, "
        "elsewhere a text as it stands, in any case.",
    )

    @classmethod
    def apply(cls, request: Request, threads: ThreadQuerySet) -> ThreadQuerySet:
        """Return those of the threads that the request asks for."""
        filters = cls.of(request)
        text = filters.pop("search", None)
        threads = threads.filter(**filters)
        return threads_with_text(threads, text) if text else threads


class ToolCallFilters(Query):
    """Which tool calls are listed."""

    status = serializers.ChoiceField(ToolCallStatus.choices, required=False)

    @classmethod
    def apply(cls, request: Request, calls: QuerySet[ToolCall]) -> QuerySet[ToolCall]:
        """Return those of the calls that the request asks for."""
        return calls.filter(**cls.of(request))


class Paging(Query):
    """Which rows of a list that is one field among others."""

    cursor = serializers.CharField(required=False, help_text="From the link of another page.")
    limit = serializers.IntegerField(required=False, help_text="Rows on a page: 50, at most 200.")


class MessageQuery(Query):
    """Which messages are listed, and whether with the answer that is being written."""

    after = serializers.IntegerField(required=False, help_text="A position; only messages after it.")
    streams = serializers.BooleanField(required=False, help_text="Fold the open stream into its message.")
    from_number = serializers.IntegerField(required=False, help_text="Fold in no stream of a lower number.")
