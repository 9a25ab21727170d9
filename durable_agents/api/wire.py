"""Hides how JSON comes in and goes out: bounded in size and depth, strict, and the same in every project."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Any

from rest_framework.exceptions import ParseError
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request

from durable_agents import strictjson
from durable_agents.conf import config
from durable_agents.exceptions import TooLargeError


class StrictRenderer(JSONRenderer):
    """JSON as the contract has it, whatever the project's settings say."""

    compact = True
    strict = True
    ensure_ascii = False
    charset = None


class BoundedParser(BaseParser):
    """Reads at most ``MAX_BODY_BYTES`` of JSON that nests at most ``MAX_JSON_DEPTH`` deep."""

    media_type = "application/json"

    @property
    def limit(self) -> int:
        """The most bytes that are read."""
        return config().max_body_bytes

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        """The body as a value, an empty one as an empty object.

        Raises TooLargeError, or ParseError where it is no JSON or nests too deep.
        """
        body = stream.read(self.limit + 1)
        if len(body) > self.limit:
            raise TooLargeError(f"The request has more than {self.limit} bytes.")
        return _value(body) if body else {}


class ChatParser(BoundedParser):
    """The same with up to ``MAX_CHAT_BODY_BYTES``: clients of the AI SDK send the whole history."""

    @property
    def limit(self) -> int:
        """See BoundedParser."""
        return config().max_chat_body_bytes


class AlwaysJSON(DefaultContentNegotiation):
    """Answers with JSON whatever ``Accept`` or ``?format=`` ask for: there is nothing else to choose from."""

    def select_renderer(
        self, request: Request, renderers: Any, format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        """The only renderer."""
        renderer: BaseRenderer = renderers[0]
        return renderer, str(renderer.media_type)


def _value(body: bytes) -> Any:
    try:
        return strictjson.read(body.decode("utf-8"), max_depth=config().max_json_depth)
    except strictjson.TooDeepError as error:
        raise ParseError(f"The body is not acceptable: {error}.", code="too_deep") from error
    except ValueError as error:
        raise ParseError(f"The body is not JSON: {error}.") from error
