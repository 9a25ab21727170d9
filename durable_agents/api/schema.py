"""Hides drf-spectacular: the OpenAPI 3 schema of this API, made from the operations beside the handlers.

Neither the project's hooks nor its schema settings touch it, and nothing of the project's own API is in it.
"""

# mypy: allow-untyped-calls
# drf-spectacular annotates its calls only here and there.

from __future__ import annotations

from typing import Any, get_type_hints

from drf_spectacular.generators import EndpointEnumerator, SchemaGenerator
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import ResolvedComponent, normalize_result_object, resolve_type_hint
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse
from rest_framework.request import Request

import durable_agents
from durable_agents.api.operations import Gives, Operation
from durable_agents.api.shapes import ErrorJSON

Schema = dict[str, Any]

_OF_PATHS = {
    "thread_id": "Its id or your own client_id of it.",
    "tool_call_id": "The toolCallId of its part.",
}


class OperationSchema(AutoSchema):
    """Describes a view by the operation beside each handler."""

    @property
    def operation(self) -> Operation:
        """The operation of the method that is being described."""
        operation: Operation = getattr(self.view, self.method.lower()).operation
        return operation

    def get_operation_id(self) -> str:
        """The name of the operation."""
        return self.operation.operation_id

    def get_tags(self) -> list[str]:
        """One heading for all."""
        return ["durable_agents"]

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
        is_paged = any(gives and gives.paged for gives in self.operation.answers.values())
        query = [self.operation.query] if self.operation.query else []
        return [*path, *query, *(paging if is_paged else [])]

    def get_request_serializer(self) -> Any:
        """The body that is taken."""
        return self.operation.body

    def get_response_serializers(self) -> Any:
        """What is answered, by status."""
        answers = {str(status): self._answer(gives) for status, gives in self.operation.answers.items()}
        error = OpenApiResponse(self._component(ErrorJSON), description="An error of the caller's.")
        return {**answers, "4XX": error}

    def _answer(self, gives: Gives | None) -> OpenApiResponse:
        if gives is None:
            return OpenApiResponse(description="Done.")
        return OpenApiResponse(self._page(gives) if gives.paged else self._component(gives.shape))

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
        schema = resolve_type_hint(shape) | {"required": list(get_type_hints(shape))}
        name = shape.__name__.removesuffix("JSON")
        component = ResolvedComponent(name, ResolvedComponent.SCHEMA, schema=schema, object=shape)
        self.registry.register_on_missing(component)
        reference: Schema = component.ref
        return reference


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
                "info": {"title": "durable_agents", "version": durable_agents.__version__},
                "paths": paths,
                "components": self.registry.build({}),
            }
        )
        return schema


def openapi(request: Request) -> Schema:
    """The schema, by the URLs that the request was resolved with."""
    schema: Schema = _OurSchema(urlconf=getattr(request, "urlconf", None)).document()
    return schema
