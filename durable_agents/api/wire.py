"""Hides how JSON comes in and goes out: bounded in size and depth, strict, and the same in every project."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import IO, Any

from rest_framework.exceptions import ParseError
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request

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

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        """The body as a value. Raises TooLargeError, or ParseError where it is no JSON or nests too deep."""
        limit = config().max_body_bytes
        body = stream.read(limit + 1)
        if len(body) > limit:
            raise TooLargeError(f"The request has more than {limit} bytes.")
        value = _loads(body)
        if _is_deeper_than(config().max_json_depth, value):
            raise _too_deep()
        return value


class AlwaysJSON(DefaultContentNegotiation):
    """Answers with JSON whatever ``Accept`` or ``?format=`` ask for: there is nothing else to choose from."""

    def select_renderer(
        self, request: Request, renderers: Any, format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        """The only renderer."""
        renderer: BaseRenderer = renderers[0]
        return renderer, str(renderer.media_type)


def _loads(body: bytes) -> Any:
    try:
        return json.loads(body.decode("utf-8"), parse_constant=_refuse, parse_float=_finite)
    except RecursionError as error:
        raise _too_deep() from error
    except ValueError as error:
        raise ParseError(f"The body is not JSON: {error}.") from error


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not allowed")


def _finite(text: str) -> float:
    """The number, unless it overflows to an infinity, which no JSON column stores."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:20]} is too large")
    return number


def _is_deeper_than(limit: int, value: Any) -> bool:
    """Whether arrays and objects nest more than ``limit`` levels; level by level, so that no depth can hurt."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(limit):
        level = [child for item in level for child in _children(item) if isinstance(child, dict | list)]
        if not level:
            return False
    return bool(level)


def _children(item: dict[str, Any] | list[Any]) -> Any:
    return item.values() if isinstance(item, dict) else item


def _too_deep() -> ParseError:
    return ParseError(f"The body nests more than {config().max_json_depth} levels deep.", code="too_deep")
