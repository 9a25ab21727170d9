"""Hides what callers may send: bodies and query parameters, checked and reduced to the fields that are theirs.

A field that is not named here is ignored, so that nobody can set an owner, a status or a role.
"""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.http import QueryDict
from rest_framework import serializers
from rest_framework.request import Request

from durable_agents.lifecycle import MAX_TIMEOUT_SECONDS
from durable_agents.models import ThreadQuerySet, ThreadStatus, ToolCall, ToolCallStatus
from durable_agents.reading import MAX_SEARCH_CHARS, threads_saying
from durable_agents.strictjson import clean


class Text(serializers.CharField):
    """Text; a number is none."""

    def to_internal_value(self, data: Any) -> str:
        """The text."""
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class Storable(Text):
    """Text as it was typed, in which what no database stores (NUL, lone surrogates) is replaced."""

    def to_internal_value(self, data: Any) -> str:
        """The cleaned text."""
        return super().to_internal_value(clean(data))


class Flag(serializers.BooleanField):
    """True or false, and no other word or number for them."""

    def to_internal_value(self, data: Any) -> bool:
        """Which of the two."""
        if not isinstance(data, bool):
            self.fail("invalid", input=data)
        return data


class Title(Storable):
    """A title; it may be empty."""

    def __init__(self, **options: Any) -> None:
        super().__init__(required=False, allow_blank=True, max_length=200, **options)


class ClientId(Text):
    """The caller's own id of a thread or message: kept as it is, and refused where it cannot be."""

    def __init__(self) -> None:
        super().__init__(required=False, allow_null=True, max_length=200, trim_whitespace=False)


class Prompt(Storable):
    """A user's text, untouched but for what cannot be stored; its length is the message's concern."""

    def __init__(self) -> None:
        super().__init__(required=False, allow_null=True, allow_blank=True, trim_whitespace=False)


class Parts(serializers.ListField):
    """UI message parts; which of them a user may send is decided where messages are made."""

    child = serializers.JSONField()

    def __init__(self) -> None:
        super().__init__(required=False, allow_null=True)


class Metadata(serializers.DictField):
    """A JSON object of the client's."""

    child = serializers.JSONField(allow_null=True)

    def __init__(self) -> None:
        super().__init__(required=False)


class Seconds(serializers.FloatField):
    """How long an open call may take; null is without limit."""

    def __init__(self) -> None:
        super().__init__(allow_null=True, max_value=MAX_TIMEOUT_SECONDS)

    def to_internal_value(self, data: Any) -> float:
        """The seconds, which are a number and more than none."""
        if not isinstance(data, int | float) or isinstance(data, bool) or data <= 0:
            self.fail("invalid")
        return super().to_internal_value(data)


class Body(serializers.Serializer[Any]):
    """The body of a request."""

    @classmethod
    def of(cls, request: Request) -> dict[str, Any]:
        """The checked fields that were given. Raises ValidationError."""
        given = {} if isinstance(request.data, QueryDict) else request.data
        return _checked(cls(data=given))


class Query(serializers.Serializer[Any]):
    """The query parameters of a request; one without a value counts as not given."""

    @classmethod
    def of(cls, request: Request) -> dict[str, Any]:
        """The checked parameters that were given. Raises ValidationError."""
        return _checked(cls(data={name: value for name, value in request.query_params.items() if value}))


def _checked(serializer: serializers.Serializer[Any]) -> dict[str, Any]:
    serializer.is_valid(raise_exception=True)
    return dict(serializer.validated_data)


class ShownId(Text):
    """The id of a message as it is shown; one that no message has is not found."""

    def __init__(self) -> None:
        super().__init__(required=False, allow_null=True, trim_whitespace=False)


class NewWords(Body):
    """What a user says in place of what was said: ``prompt`` or ``parts``; without ``metadata`` that stays."""

    prompt = Prompt()
    parts = Parts()
    metadata = Metadata()


class NewMessage(NewWords):
    """What a user says: ``prompt`` or ``parts``."""

    client_id = ClientId()


class Regeneration(Body):
    """The answer to make anew, or the question to answer; nothing: the last answer."""

    message_id = ShownId()


class Fork(Body):
    """The last message that the fork has; nothing: it has all."""

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
    """What may be changed of a thread."""

    title = Title()
    metadata = Metadata()
    archived = Flag(required=False)


class Continuation(Body):
    """What a resumed thread is told; nothing: it tries again."""

    prompt = Prompt()


class GivenResult(Body):
    """The result of a tool call: any JSON value."""

    result = serializers.JSONField(allow_null=True)


class GivenError(Body):
    """Why a tool call failed, in words that the model is told."""

    error = Storable()


class Refusal(Body):
    """Why a person does not let a call run; the model is told."""

    reason = Storable(required=False, allow_blank=True)


class Approval(Refusal):
    """What a person lets run: with other arguments than the model's where they are given."""

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
    def narrow(cls, threads: ThreadQuerySet, request: Request) -> ThreadQuerySet:
        """Those of the threads that the request asks for."""
        asked = cls.of(request)
        words = asked.pop("search", None)
        found = threads.filter(**asked)
        return threads_saying(found, words) if words else found


class ToolCallFilters(Query):
    """Which tool calls are listed."""

    status = serializers.ChoiceField(ToolCallStatus.choices, required=False)

    @classmethod
    def narrow(cls, calls: QuerySet[ToolCall], request: Request) -> QuerySet[ToolCall]:
        """Those of the calls that the request asks for."""
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
