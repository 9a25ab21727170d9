"""What the project has set for its own API; none of it may be felt in ours."""

from typing import Any

from django.http import HttpResponse
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.pagination import LimitOffsetPagination
from rest_framework.parsers import FormParser
from rest_framework.renderers import BaseRenderer
from rest_framework.response import Response
from rest_framework.schemas.openapi import AutoSchema
from rest_framework.versioning import AcceptHeaderVersioning


class CamelRenderer(BaseRenderer):
    """Renders nothing that a client of ours could read."""

    media_type = "application/camel"
    format = "camel"

    def render(self, data: Any, accepted_media_type: Any = None, renderer_context: Any = None) -> bytes:
        """Return no JSON."""
        return b"<camel/>"


class OnlyForms(FormParser):
    """Reads no JSON."""


class Envelopes(LimitOffsetPagination):
    """Another envelope."""

    default_limit = 1


class Choosy(BaseContentNegotiation):
    """Accepts nobody."""

    def select_parser(self, request: Any, parsers: Any) -> None:
        """None."""

    def select_renderer(self, request: Any, renderers: Any, format_suffix: Any = None) -> Any:
        """The last one."""
        return renderers[-1], "application/camel"


class Versions(AcceptHeaderVersioning):
    """Wants a version."""

    default_version = None
    allowed_versions = ("7",)


class Schema(AutoSchema):
    """Another library's."""


def handler(error: Exception, context: Any) -> Response | HttpResponse:
    """Answer with something else."""
    return HttpResponse("oops", status=418)


def refuse(*_: Any, **__: Any) -> Any:
    """A hook that must not be called."""
    raise AssertionError("the project's schema hook was called")
