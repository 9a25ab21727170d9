"""Generate the OpenAPI 3 schema of this API with drf-spectacular, from the ``Operation`` that decorates each handler.

The project's own hooks and schema settings do not affect the schema, and the project's own API is not part of it.
"""

# mypy: allow-untyped-calls
# drf-spectacular annotates only some of its functions.

from __future__ import annotations

from functools import lru_cache
from itertools import groupby
from operator import attrgetter
from threading import Lock
from typing import Any, get_type_hints

from django.core.signals import setting_changed
from django.dispatch import receiver
from drf_spectacular.generators import EndpointEnumerator, SchemaGenerator
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import ResolvedComponent, normalize_result_object, resolve_type_hint
from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    OpenApiRequest,
    OpenApiResponse,
    extend_schema_field,
)
from rest_framework.request import Request
from rest_framework.serializers import CharField

from durable_agents.api import ai_sdk_requests, request_serializers
from durable_agents.api.openapi import examples
from durable_agents.api.openapi.error_responses import problems_of
from durable_agents.api.openapi.operation_decorator import Gives, Operation
from durable_agents.api.serializers import ErrorJSON
from durable_agents.parts import MAX_FILENAME_CHARS
from durable_agents.version import VERSION

Schema = dict[str, Any]

_ABOUT = """AI agents that run for as long as they need and survive crashes, deploys and restarts.

A thread is a conversation with an agent. Sending a message to it starts a run, which continues even if no client is
connected. Read the thread again to see the outcome, or follow it live over server-sent events or the websocket. Every
path works with and without its trailing slash.

Every error is a JSON object with a stable `code` and a `detail` for people. For a thread that you may not see, the
response is the same as for one that does not exist. Lists are paginated: follow `next` and `previous`.
"""
_TAGS = {
    "Agents": "The agents that you may talk to.",
    "Threads": "Create, find, change and delete conversations.",
    "Runs": "Stop the run of a thread, or resume the thread.",
    "Messages": "List, send, edit and regenerate messages.",
    "Tool calls": "The model's tool calls: add results from outside, and decide approvals.",
    "Files": "The files in messages.",
    "Live": "Follow threads live.",
    "Chat": "The protocol of the AI SDK, for useChat and similar clients.",
}
_TAG_OF = {
    "chat": "Chat",
    "attachments": "Files",
    "ws-ticket": "Live",
    "events": "Live",
    "tool-calls": "Tool calls",
    "messages": "Messages",
    "regenerate": "Messages",
    "stop": "Runs",
    "resume": "Runs",
    "threads": "Threads",
    "agents": "Agents",
}
"""The OpenAPI tags of paths, by path segment. If a path has several of these segments, the first entry here counts."""
_OF_PATHS = {
    "agent": "The agent's name.",
    "attachment_id": "The attachment's id, from the response to its upload.",
    "message_id": "The message's id, as responses show it.",
    "thread_id": "The thread's id, or the client_id that you gave it.",
    "tool_call_id": "The toolCallId of the call's message part.",
}
_FILE = {"type": "string", "format": "binary"}
_EVENT = {
    "type": "object",
    "description": "One event of the stream.",
    "properties": {"id": {"type": "string"}, "event": {"type": "string"}, "data": {"type": "string"}},
}
_NO_JSON: dict[type, tuple[Schema, str]] = {
    bytes: (_FILE, "The file."),
    str: (_EVENT, "A stream of server-sent events."),
}
_USER_PART = {
    "oneOf": [
        {
            "type": "object",
            "required": ["type", "text"],
            "properties": {"type": {"type": "string", "enum": ["text"]}, "text": {"type": "string"}},
        },
        {
            "type": "object",
            "required": ["type", "mediaType", "url"],
            "properties": {
                "type": {"type": "string", "enum": ["file"]},
                "mediaType": {"type": "string", "description": "For example `image/png`."},
                "url": {"type": "string", "description": "The URL of an attachment, or a `data:` URL in base64."},
                "filename": {"type": "string", "maxLength": MAX_FILENAME_CHARS},
            },
        },
    ]
}
"""The schema of the parts that ``parts.user_parts`` accepts."""
_RETRY_AFTER = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds to wait."}}


_SHOWN_MESSAGE = {
    "type": "object",
    "required": ["role", "parts"],
    "properties": {
        "id": {"type": "string", "minLength": 1, "maxLength": 200},
        "role": {"type": "string", "enum": ["user", "assistant"]},
        "parts": {"type": "array", "items": {"type": "object"}},
        "metadata": {"type": "object", "nullable": True},
    },
}
"""The schema of the message that ``ai_sdk_requests.ChatMessage`` accepts."""

extend_schema_field(_FILE | {"minLength": 1})(request_serializers.File)
extend_schema_field({"type": "array", "nullable": True, "items": _SHOWN_MESSAGE})(ai_sdk_requests.ShownMessages)
extend_schema_field({"type": "array", "nullable": True, "items": _USER_PART})(request_serializers.Parts)


class OperationSchema(AutoSchema):
    """The schema generator for a view. It describes each handler from the ``Operation`` that decorates the handler."""

    @property
    def operation(self) -> Operation:
        """The ``Operation`` of the handler that is being described."""
        operation: Operation = getattr(self.view, self.method.lower()).operation
        return operation

    def get_operation_id(self) -> str:
        """Return a unique name for the operation. If the path contains the agent, the name ends in ``WithAgent``,
        because the same operation also exists at a path without the agent.
        """
        names = [name for name in ("agent",) if f"{{{name}}}" in self.path]
        return "With".join([self.operation.operation_id, *(name.title() for name in names)])

    def get_summary(self) -> str:
        """Return the first sentence of the handler's docstring."""
        first, _, _ = " ".join(self.get_description().split()).partition(". ")
        return first.removesuffix(".")

    def get_tags(self) -> list[str]:
        """Return the tag of the operation's path, in a list."""
        segments = self.path.strip("/").split("/")
        return [next(tag for segment, tag in _TAG_OF.items() if segment in segments)]

    def get_override_parameters(self) -> list[Any]:
        """Return the path and query parameters."""
        path = [
            OpenApiParameter(name, str, OpenApiParameter.PATH, description=description)
            for name, description in _OF_PATHS.items()
            if f"{{{name}}}" in self.path
        ]
        paging = [
            OpenApiParameter("cursor", str, description="The cursor from the link to another page."),
            OpenApiParameter("limit", int, description="Rows on a page: 50 by default, at most 200."),
        ]
        query = [self.operation.query] if self.operation.query else []
        return [*path, *query, *(paging if self.operation.is_paged else [])]

    def get_request_serializer(self) -> Any:
        """Return the request body, with an example, for each media type that the view accepts."""
        body = self.operation.body
        if body is None:
            return None
        shown = examples.BODIES.get(body.__name__)
        example = [] if shown is None else [OpenApiExample(body.__name__, value=shown, request_only=True)]
        return {media_type: OpenApiRequest(body, examples=example) for media_type in self.map_parsers()}

    def _map_serializer_field(self, field: object, direction: object, bypass_extensions: bool = False) -> Schema:  # noqa: FBT001, FBT002 - the signature of drf-spectacular
        """Return the schema of a field. For a text field, add that the text must not be empty."""
        schema: Schema = super()._map_serializer_field(field, direction, bypass_extensions)
        # REST framework refuses an empty text. If the field trims white space, it also refuses a text that contains
        # only white space. drf-spectacular describes neither rule.
        if isinstance(field, CharField) and not field.allow_blank and schema.get("type") == "string":
            schema["minLength"] = 1
            if field.trim_whitespace:
                schema["pattern"] = "\\S"
        return schema

    def get_response_serializers(self) -> Any:
        """Return the responses by status and media type. The description of an error status lists all error codes with
        this status.
        """
        answers: dict[tuple[str, str], OpenApiResponse] = {}
        for status, gives in self.operation.answers.items():
            media_type = "application/json" if gives is None else "*/*" if gives.shape is bytes else gives.media_type
            answers[str(status), media_type] = self._answer(status, gives)
        problems = problems_of(self.operation, self.path)
        for status, group in groupby(problems, attrgetter("status")):
            # Make a list now: ``groupby`` discards the items of a group when the next group begins.
            alike = list(group)
            lines = [f"- `{problem.code}`: {problem.meaning}" for problem in alike]
            shown = [
                _response_example(item.code, {"code": item.code, "detail": item.detail}, status, summary=item.meaning)
                for item in alike
            ]
            answers[str(status), "application/json"] = OpenApiResponse(
                self._component(ErrorJSON), description="\n".join(lines), examples=shown
            )
        return answers

    def _answer(self, status: int, gives: Gives | None) -> OpenApiResponse:
        if gives is None:
            return OpenApiResponse(description="Done; the response has no body.")
        if gives.shape in _NO_JSON:
            schema, about = _NO_JSON[gives.shape]
            return OpenApiResponse(schema, description=about)
        name, described = gives.shape.__name__.removesuffix("JSON"), self._component(gives.shape)
        example = examples.TOLD_BY.get(self.operation.operation_id, examples.ANSWERS.get(name))
        if gives.paged:
            link = {"type": "string", "format": "uri", "nullable": True}
            properties = {"next": link, "previous": link, "results": {"type": "array", "items": described}}
            beside = {name: resolve_type_hint(hint) for name, hint in gives.beside.items()}
            described = {"type": "object", "required": [*properties], "properties": properties | beside}
            example = None if example is None else {"next": None, "previous": None, "results": [example]}
        meaning = {201: "Created.", 202: "Accepted; the answer comes later."}.get(status, "Done.")
        if status == 200 and len(self.operation.answers) > 1:
            meaning = "Already known; nothing was changed."
        return OpenApiResponse(
            described,
            description=meaning,
            examples=[] if example is None else [_response_example(name, example, status)],
        )

    def _get_response_headers_for_code(self, status_code: str, direction: str = "response") -> Schema:
        return _RETRY_AFTER if status_code in {"429", "503"} else {}

    def _component(self, shape: type) -> Schema:
        """Return a reference to the schema of a TypedDict. The schema is added to the document once, under its name."""
        schema = _with_moments(resolve_type_hint(shape) | {"required": list(get_type_hints(shape))})
        name = shape.__name__.removesuffix("JSON")
        component = ResolvedComponent(name, ResolvedComponent.SCHEMA, schema=schema, object=shape)
        self.registry.register_on_missing(component)
        reference: Schema = component.ref
        return reference


def _with_moments(schema: Schema) -> Schema:
    """Add the format ``date-time`` to fields whose names end in ``_at``, and return the schema."""
    properties: dict[str, Schema] = schema.get("properties", {})
    for name, inner in properties.items():
        _with_moments(inner.get("items", inner))
        if name.endswith("_at"):
            inner["format"] = "date-time"
    return schema


def _response_example(name: str, value: object, status: int, *, summary: str = "") -> OpenApiExample:
    return OpenApiExample(name, value=value, summary=summary, response_only=True, status_codes=[str(status)])


class _OurEndpoints(EndpointEnumerator):
    """An enumerator that finds only the views of this API, wherever the project's URLconf includes them."""

    def get_api_endpoints(self, patterns: object = None, prefix: str = "") -> list[Any]:
        """Return a tuple of path, pattern, method and view for each operation."""
        # Call drf-spectacular's private method. The public method would also apply the project's preprocessing hooks.
        endpoints = self._get_api_endpoints(patterns, prefix)
        return [endpoint for endpoint in endpoints if isinstance(endpoint[3].cls.schema, OperationSchema)]


class _OurSchema(SchemaGenerator):
    endpoint_inspector_cls = _OurEndpoints

    def document(self) -> Schema:
        """Return the whole OpenAPI document. The project's hooks and title are not applied."""
        # ``SchemaGenerator.get_schema`` would apply the project's hooks and title.
        self._initialise_endpoints()
        paths: dict[str, Schema] = {}
        for path, regex, method, view in self._get_paths_and_endpoints():
            operation = view.schema.get_operation(path, regex, "/", method, self.registry)
            paths.setdefault(path, {})[method.lower()] = operation
        used = {tag for item in paths.values() for operation in item.values() for tag in operation["tags"]}
        schema: Schema = normalize_result_object(
            {
                "openapi": "3.0.3",
                "info": {
                    "title": "durable_agents",
                    "version": VERSION,
                    "description": _ABOUT,
                    "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
                },
                "tags": [{"name": name, "description": about} for name, about in _TAGS.items() if name in used],
                "paths": paths,
                "components": self.registry.build({}),
            }
        )
        return schema


def openapi(request: Request) -> Schema:
    """Return the OpenAPI schema for the request's URLconf. The dict is cached, so callers must not change it."""
    with _making:
        return _document(getattr(request, "urlconf", None))


_making = Lock()
"""A lock. drf-spectacular loads its extensions on first use and fails if two OS threads load them concurrently."""


@lru_cache(maxsize=8)
def _document(urlconf: object) -> Schema:
    """Generate the document and cache it. Generating takes half a second, and anyone may request the document."""
    return _OurSchema(urlconf=urlconf).document()


@receiver(setting_changed)
def clear_cache(**_: object) -> None:
    """Clear the cached schema when a setting changes, so that tests with ``override_settings`` get a new schema."""
    _document.cache_clear()
