"""Hides drf-spectacular: the OpenAPI 3 schema of this API, made from the operations beside the handlers.

Neither the project's hooks nor its schema settings touch it, and nothing of the project's own API is in it.
"""

# mypy: allow-untyped-calls
# drf-spectacular annotates its calls only here and there.

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import groupby
from operator import attrgetter
from typing import Any, get_type_hints

from django.core.signals import setting_changed
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

import durable_agents
from durable_agents.api import examples, gestures, inputs
from durable_agents.api.operations import Gives, Operation
from durable_agents.api.problems import Problem, problems_of
from durable_agents.api.shapes import ErrorJSON
from durable_agents.parts import MAX_FILENAME_CHARS

Schema = dict[str, Any]

_ABOUT = """AI agents that run for as long as they need and survive crashes, deploys and restarts.

A thread is a conversation with an agent. Sending a message to it begins a run, which goes on whoever watches; read what
came of it by asking again, or as it happens over server-sent events or the websocket. Every path answers with and
without its trailing slash.

Every error is a JSON object of a `code`, which is stable, and a `detail` for people. A thread that you may not see
answers as one that does not exist. Lists come in pages: follow `next` and `previous`.
"""
_TAGS = {
    "Agents": "Whom one may talk to.",
    "Threads": "Conversations: making, finding and ending them.",
    "Runs": "Stopping a thread and going on with it.",
    "Messages": "What was said, and saying something.",
    "Tool calls": "What the model wants done: outcomes from outside, and decisions of people.",
    "Files": "What messages carry.",
    "Live": "What happens, as it happens.",
    "Chat": "The protocol of the AI SDK: useChat and its kin.",
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
"""The tag of the first of these that is a segment of the path, below where the app is mounted."""
_OF_PATHS = {
    "agent": "The agent's name.",
    "attachment_id": "The id that its upload gave.",
    "message_id": "Its id, as it is shown.",
    "thread_id": "Its id or your own client_id of it.",
    "tool_call_id": "The toolCallId of its part.",
}
_FILE = {"type": "string", "format": "binary"}
_EVENT = {
    "type": "object",
    "description": "One event of the stream.",
    "properties": {"id": {"type": "string"}, "event": {"type": "string"}, "data": {"type": "string"}},
}
_NO_JSON: dict[type, tuple[Schema, str]] = {
    bytes: (_FILE, "The file."),
    str: (_EVENT, "Server-sent events, for as long as there is something to tell."),
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
                "mediaType": {"type": "string", "description": "Such as `image/png`."},
                "url": {"type": "string", "description": "Of an attachment, or a `data:` URL in base64."},
                "filename": {"type": "string", "maxLength": MAX_FILENAME_CHARS},
            },
        },
    ]
}
"""What ``parts.user_parts`` takes."""
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
"""What ``gestures.ChatMessage`` takes."""

extend_schema_field(_FILE | {"minLength": 1})(inputs.File)
extend_schema_field({"type": "array", "nullable": True, "items": _SHOWN_MESSAGE})(gestures.ShownMessages)
extend_schema_field({"type": "array", "nullable": True, "items": _USER_PART})(inputs.Parts)


class OperationSchema(AutoSchema):
    """Describes a view by the operation beside each handler."""

    @property
    def operation(self) -> Operation:
        """The operation of the method that is being described."""
        operation: Operation = getattr(self.view, self.method.lower()).operation
        return operation

    def get_operation_id(self) -> str:
        """The name of the operation; where several paths lead to it, with what else they name."""
        names = [name for name in ("agent",) if f"{{{name}}}" in self.path]
        return "With".join([self.operation.operation_id, *(name.title() for name in names)])

    def get_summary(self) -> str:
        """The first sentence of the handler's docstring."""
        first, _, _ = " ".join(self.get_description().split()).partition(". ")
        return first.removesuffix(".")

    def get_tags(self) -> list[str]:
        """The heading that the path belongs to."""
        segments = self.path.strip("/").split("/")
        return [next(tag for segment, tag in _TAG_OF.items() if segment in segments)]

    def get_override_parameters(self) -> list[Any]:
        """The path's and the query's parameters."""
        path = [
            OpenApiParameter(name, str, OpenApiParameter.PATH, description=description)
            for name, description in _OF_PATHS.items()
            if f"{{{name}}}" in self.path
        ]
        paging = [
            OpenApiParameter("cursor", str, description="From the link of another page."),
            OpenApiParameter("limit", int, description="Rows on a page: 50, at most 200."),
        ]
        query = [self.operation.query] if self.operation.query else []
        return [*path, *query, *(paging if self.operation.is_paged else [])]

    def get_request_serializer(self) -> Any:
        """The body that is taken, with an example, in each type that it may come in."""
        body = self.operation.body
        if body is None:
            return None
        shown = examples.BODIES.get(body.__name__)
        example = [] if shown is None else [OpenApiExample(body.__name__, value=shown, request_only=True)]
        return {media_type: OpenApiRequest(body, examples=example) for media_type in self.map_parsers()}

    def _map_serializer_field(self, field: Any, direction: Any, bypass_extensions: bool = False) -> Schema:  # noqa: FBT001, FBT002 - its own
        """A field; of a text that may not be empty, it says so."""
        schema: Schema = super()._map_serializer_field(field, direction, bypass_extensions)
        if isinstance(field, CharField) and not field.allow_blank and schema.get("type") == "string":
            schema["minLength"] = 1
            if field.trim_whitespace:
                schema["pattern"] = "\\S"
        return schema

    def get_response_serializers(self) -> Any:
        """What is answered, by status; errors with each code that they may have."""
        answers: dict[tuple[str, str], OpenApiResponse] = {}
        for status, gives in self.operation.answers.items():
            answers[str(status), _media_type(gives)] = self._answer(status, gives)
        problems = problems_of(self.operation, self.path)
        for status, alike in groupby(problems, attrgetter("status")):
            answers[str(status), "application/json"] = self._error(list(alike))
        return answers

    def _answer(self, status: int, gives: Gives | None) -> OpenApiResponse:
        if gives is None:
            return OpenApiResponse(description="Done; there is nothing to say.")
        if gives.shape in _NO_JSON:
            schema, about = _NO_JSON[gives.shape]
            return OpenApiResponse(schema, description=about)
        described = self._page(gives) if gives.paged else self._component(gives.shape)
        example = _example(self.operation.operation_id, gives)
        shown = [] if example is None else [_told(gives.shape.__name__.removesuffix("JSON"), example, status)]
        return OpenApiResponse(described, description=_meaning(status, self.operation), examples=shown)

    def _error(self, problems: list[Problem]) -> OpenApiResponse:
        lines = [f"- `{problem.code}`: {problem.meaning}" for problem in problems]
        told = [
            _told(item.code, {"code": item.code, "detail": item.detail}, item.status, summary=item.meaning)
            for item in problems
        ]
        return OpenApiResponse(self._component(ErrorJSON), description="\n".join(lines), examples=told)

    def _get_response_headers_for_code(self, status_code: str, direction: str = "response") -> Schema:
        return _RETRY_AFTER if status_code == "429" else {}

    def _page(self, gives: Gives) -> Schema:
        link = {"type": "string", "format": "uri", "nullable": True}
        results = {"type": "array", "items": self._component(gives.shape)}
        beside = {name: resolve_type_hint(hint) for name, hint in gives.beside.items()}
        return {
            "type": "object",
            "required": ["next", "previous", "results"],
            "properties": {"next": link, "previous": link, "results": results, **beside},
        }

    def _component(self, shape: type) -> Schema:
        """A reference to the named schema of a TypedDict."""
        schema = _with_moments(resolve_type_hint(shape) | {"required": list(get_type_hints(shape))})
        name = shape.__name__.removesuffix("JSON")
        component = ResolvedComponent(name, ResolvedComponent.SCHEMA, schema=schema, object=shape)
        self.registry.register_on_missing(component)
        reference: Schema = component.ref
        return reference


def _with_moments(schema: Schema) -> Schema:
    """The schema, in which times, whose names end in ``_at``, are said to be such."""
    properties: dict[str, Schema] = schema.get("properties", {})
    for name, inner in properties.items():
        _with_moments(inner.get("items", inner))
        if name.endswith("_at"):
            inner["format"] = "date-time"
    return schema


def _media_type(gives: Gives | None) -> str:
    if gives is None:
        return "application/json"
    return "*/*" if gives.shape is bytes else gives.media_type


def _told(name: str, value: Any, status: int, *, summary: str = "") -> OpenApiExample:
    return OpenApiExample(name, value=value, summary=summary, response_only=True, status_codes=[str(status)])


def _example(operation_id: str, gives: Gives) -> Any:
    """What such an answer looks like; None where nobody has written that down."""
    shown = examples.TOLD_BY.get(operation_id, examples.ANSWERS.get(gives.shape.__name__.removesuffix("JSON")))
    if shown is None or not gives.paged:
        return shown
    return {"next": None, "previous": None, "results": [shown]}


def _meaning(status: int, operation: Operation) -> str:
    """What a status of success says."""
    if status == 200 and len(operation.answers) > 1:
        return "Known already: nothing was changed."
    return {200: "Done.", 201: "Created.", 202: "Accepted; the answer comes later."}.get(status, "Done.")


class _OurEndpoints(EndpointEnumerator):
    """Our views, wherever the project's URLs have them, and none of the project's."""

    def get_api_endpoints(self, patterns: Any = None, prefix: str = "") -> list[Any]:
        """Path, pattern, method and view of each operation."""
        found = self._get_api_endpoints(patterns, prefix)
        return [endpoint for endpoint in found if isinstance(endpoint[3].cls.schema, OperationSchema)]


class _OurSchema(SchemaGenerator):
    endpoint_inspector_cls = _OurEndpoints

    def document(self) -> Schema:
        """The whole document, with neither the project's hooks nor its title."""
        self._initialise_endpoints()
        paths: dict[str, Schema] = {}
        for path, regex, method, view in self._get_paths_and_endpoints():
            operation = view.schema.get_operation(path, regex, "/", method, self.registry)
            paths.setdefault(path, {})[method.lower()] = operation
        schema: Schema = normalize_result_object(
            {
                "openapi": "3.0.3",
                "info": {
                    "title": "durable_agents",
                    "version": durable_agents.__version__,
                    "description": _ABOUT,
                    "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
                },
                "tags": list(_tags(operation for item in paths.values() for operation in item.values())),
                "paths": paths,
                "components": self.registry.build({}),
            }
        )
        return schema


def _tags(operations: Iterable[Schema]) -> Iterator[Schema]:
    """The headings that there is something under."""
    used = {tag for operation in operations for tag in operation["tags"]}
    yield from ({"name": name, "description": about} for name, about in _TAGS.items() if name in used)


def openapi(request: Request) -> Schema:
    """The schema, by the URLs that the request was resolved with. It is made once; nobody may change it."""
    return _document(getattr(request, "urlconf", None))


@lru_cache(maxsize=8)
def _document(urlconf: Any) -> Schema:
    """Making it takes half a second, and everybody may ask for it."""
    return _OurSchema(urlconf=urlconf).document()


def _forget(**_: object) -> None:
    _document.cache_clear()


setting_changed.connect(_forget)
