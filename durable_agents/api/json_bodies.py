"""Parse and render the JSON of the API. Parsing is strict and limits size and depth. The REST framework settings of the
project have no effect here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import IO, Any

from rest_framework.exceptions import ParseError
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request

from durable_agents import strictjson
from durable_agents.conf import config
from durable_agents.exceptions import TooLargeError

MAX_CHAT_VALUES = 600_000
"""The maximum number of JSON values in a chat request. It stops requests that are built to exhaust the memory. An
ordinary chat history of ten megabytes has only about 60,000 values.
"""


class StrictRenderer(JSONRenderer):
    """A JSON renderer whose output does not depend on the project's settings."""

    compact = True
    strict = True
    ensure_ascii = False
    charset = None


def bounded(stream: IO[bytes], limit: int) -> bytes:
    """Return the whole body. Raises TooLargeError if it has more than ``limit`` bytes."""
    # Read one byte more than allowed, so that a body that is too large is noticed. A chunked body does not declare its
    # length.
    body = stream.read(limit + 1)
    if len(body) > limit:
        raise TooLargeError(f"The request has more than {limit} bytes.")
    return body


class BoundedParser(BaseParser):
    """A parser for JSON of at most ``MAX_BODY_BYTES`` bytes and ``MAX_JSON_DEPTH`` levels of nesting."""

    media_type = "application/json"

    @property
    def limit(self) -> int:
        """The maximum size of a body, in bytes."""
        return config().max_body_bytes

    max_values: int | None = None
    """The maximum number of JSON values in a body. None means that there is no maximum."""

    def parse(
        self, stream: IO[bytes], media_type: str | None = None, parser_context: Mapping[str, object] | None = None
    ) -> Any:
        """Return the body as a value; an empty body counts as an empty object.

        If the body is too large, raises TooLargeError. If it is not JSON or is nested too deeply, raises ParseError.
        """
        body = bounded(stream, self.limit)
        if not body:
            return {}
        max_depth = config().max_json_depth
        try:
            value = strictjson.read(body.decode("utf-8"), max_depth=max_depth, max_values=self.max_values)
        except strictjson.TooManyValuesError as error:
            raise TooLargeError(f"The body is not acceptable: {error}.") from error
        except strictjson.TooDeepError as error:
            raise ParseError(f"The body is not acceptable: {error}.", code="too_deep") from error
        except ValueError as error:
            raise ParseError(f"The body is not JSON: {error}.") from error
        return self.used(value)

    def used(self, value: object) -> object:
        """Return the part of the parsed body that the view needs: by default, the whole body."""
        return value


class ChatParser(BoundedParser):
    """A parser with the higher limit ``MAX_CHAT_BODY_BYTES``, because AI SDK clients send the whole history. The
    parser keeps only the last message.
    """

    max_values = MAX_CHAT_VALUES

    @property
    def limit(self) -> int:
        """The maximum number of bytes of a chat request."""
        return config().max_chat_body_bytes

    def used(self, value: object) -> object:
        """Return the body with only the last message of its history."""
        # Drop all messages but the last. The request stays in memory while its response is streamed, for up to several
        # minutes.
        if not isinstance(value, dict) or not isinstance(value.get("messages"), list):
            return value
        return {**value, "messages": value["messages"][-1:]}


class AlwaysJSON(DefaultContentNegotiation):
    """Content negotiation that always selects JSON, whatever ``Accept`` or ``?format=`` says."""

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        """Return the view's only renderer and its media type."""
        renderer = next(iter(renderers))
        return renderer, str(renderer.media_type)
