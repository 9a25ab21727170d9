"""Parse and render JSON: bounded in size and depth, strict, and the same in every project."""

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
"""The maximum number of JSON values in a chat request. A history of ten megabytes has a tenth of that; a request with
more values is meant to fill the memory.
"""


class StrictRenderer(JSONRenderer):
    """Renders JSON in the form that the API promises, whatever the project's settings are."""

    compact = True
    strict = True
    ensure_ascii = False
    charset = None


class BoundedParser(BaseParser):
    """Parses at most ``MAX_BODY_BYTES`` of JSON that nests at most ``MAX_JSON_DEPTH`` deep."""

    media_type = "application/json"

    @property
    def limit(self) -> int:
        """The maximum number of bytes."""
        return config().max_body_bytes

    max_values: int | None = None
    """The maximum number of JSON values; None means as many as fit into ``limit`` bytes."""

    def parse(
        self, stream: IO[bytes], media_type: str | None = None, parser_context: Mapping[str, object] | None = None
    ) -> Any:
        """Return the body as a value; an empty body counts as an empty object.

        Raises TooLargeError, and ParseError if the body is not JSON or is nested too deep.
        """
        # Reading one byte more than allowed is enough to refuse the body; a chunked body does not declare its length.
        body = stream.read(self.limit + 1)
        if len(body) > self.limit:
            raise TooLargeError(f"The request has more than {self.limit} bytes.")
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
        """Return the part of the value that is kept while the request is handled; here, the whole value."""
        return value


class ChatParser(BoundedParser):
    """Parses up to ``MAX_CHAT_BODY_BYTES``, because AI SDK clients send the whole history. Only the last message is
    kept.
    """

    max_values = MAX_CHAT_VALUES

    @property
    def limit(self) -> int:
        """See BoundedParser."""
        return config().max_chat_body_bytes

    def used(self, value: object) -> object:
        """Return the value without the messages that are not read."""
        # The request stays in memory for as long as its response streams, which may be minutes.
        if not isinstance(value, dict) or not isinstance(value.get("messages"), list):
            return value
        return {**value, "messages": value["messages"][-1:]}


class AlwaysJSON(DefaultContentNegotiation):
    """Selects JSON whatever ``Accept`` or ``?format=`` request, because there is no other renderer."""

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        """Return the only renderer."""
        renderer = next(iter(renderers))
        return renderer, str(renderer.media_type)
