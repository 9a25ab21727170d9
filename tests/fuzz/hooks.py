"""What schemathesis is told beside the schema: names of things that exist, and what the schema promises beyond types.

It is loaded by `SCHEMATHESIS_HOOKS`. `FUZZ_KNOWN` names a file with what `site.known_things` returned, `FUZZ_TALLY` one
to which a line is added for each answer.
"""

import itertools
import json
import os
import zlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import schemathesis
from schemathesis.core.failures import Failure
from schemathesis.specs.openapi.checks import negative_data_rejection

KNOWN: dict[str, Any] = json.loads(Path(os.environ["FUZZ_KNOWN"]).read_text(encoding="utf-8"))
TALLY = Path(os.environ["FUZZ_TALLY"])
MALFORMED = {"parse_error", "invalid", "too_deep"}
"""Codes that say that a request is not as the schema has it."""

TURNS: defaultdict[str, Iterator[int]] = defaultdict(itertools.count)
"""How many calls each path was given."""

UNSTORABLE = ("Null characters are not allowed", "Surrogate characters are not allowed")
"""Of NUL and lone surrogates the patterns of a schema cannot speak in a way that every reader of one understands."""


@schemathesis.hook
def map_path_parameters(context: Any, path_parameters: dict[str, Any] | None) -> dict[str, Any] | None:
    """Most ids that were made up become those of something that exists; those that the API gave stay."""
    is_deletion = context.operation.method.lower() == "delete"  # of what the others need
    if is_deletion or not path_parameters or not isinstance(given := path_parameters.get("thread_id"), str):
        return path_parameters
    draw, call, message = (draw_of(path_parameters), *map(path_parameters.get, ("tool_call_id", "message_id")))
    is_given = is_uuid(given) and (call is None or is_call(call)) and (message is None or is_uuid(message))
    if is_given or draw % 5 == 0:
        return path_parameters
    known = known_thread(draw) if call is None else known_call(context.operation.path)
    return {**path_parameters, **{name: value for name, value in known.items() if name in path_parameters}}


def known_thread(draw: int) -> dict[str, str]:
    """Return a thread and its first message."""
    index = draw % len(KNOWN["threads"])
    return {"thread_id": KNOWN["threads"][index], "message_id": KNOWN["messages"][index]}


def known_call(path: str) -> dict[str, str]:
    """Return a call, with its thread, that waits for what this path is for; to an open one a time can be given. They
    come in turn: what was done to one cannot be done to it again."""
    calls = KNOWN["calls"].get(path.strip("/").rpartition("/")[2], KNOWN["calls"]["error"])
    thread, call = calls[next(TURNS[path]) % len(calls)]
    return {"thread_id": thread, "tool_call_id": call}


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """Most bodies name the demo's agent where they name one, of a text and parts have only one, and no files."""
    if not isinstance(body, dict) or (draw := draw_of(body)) % 5 == 0:
        return body
    agent = {"agent": "assistant"} if isinstance(body.get("agent"), str) else {}
    spare = ("prompt", "parts")[draw % 2] if body.keys() >= {"prompt", "parts"} else None
    mapped = {name: value for name, value in {**body, **agent}.items() if name != spare}
    if isinstance(mapped.get("parts"), list):
        mapped["parts"] = [part for part in mapped["parts"] if not is_file(part)]
    return mapped


def is_file(part: Any) -> bool:
    """Return whether a part of a message is a file."""
    return isinstance(part, dict) and part.get("type") == "file"


@schemathesis.hook
def map_query(context: Any, query: dict[str, Any] | None) -> dict[str, Any] | None:
    """Most queries have no cursor, which nobody can make up."""
    if not query or draw_of(query) % 5 == 0:
        return query
    return {name: value for name, value in query.items() if name != "cursor"}


def draw_of(given: dict[str, Any]) -> int:
    """Return a number that is the same for the same request, so that it can be sent again."""
    return zlib.crc32(json.dumps(given, default=str, sort_keys=True).encode())


def is_uuid(given: Any) -> bool:
    """Return whether it is an id as the API makes them."""
    try:
        UUID(given)
    except (ValueError, TypeError, AttributeError):
        return False
    return True


def is_call(given: Any) -> bool:
    """Return whether it is the id of a tool call as the API makes them."""
    return isinstance(given, str) and given.startswith("call_") and is_uuid(given.removeprefix("call_"))


@schemathesis.hook
def filter_case(context: Any, case: Any) -> bool:
    """No multipart body without any part: daphne's own parser refuses that, before the site is asked."""
    return bool(case.body) or not str(case.media_type).startswith("multipart/")


@schemathesis.hook
def after_call(context: Any, case: Any, response: Any) -> None:
    """Append the operation and the status code of its response to the tally."""
    with TALLY.open("a", encoding="utf-8") as file:
        file.write(json.dumps([case.operation.label, response.status_code]) + "\n")


@schemathesis.check
def documented_error_code(ctx: Any, response: Any, case: Any) -> None:
    """An error has a code, and one that the schema names for its status and operation."""
    if response.status_code < 400 or response.status_code == 405 or is_daphnes(response):
        return
    described = case.operation.definition.raw["responses"].get(str(response.status_code), {})
    shown = described.get("content", {}).get("application/json", {}).get("examples", {}).values()
    codes = {example["value"]["code"] for example in shown}
    code = code_of(response, case)
    assert code in codes, f"The schema names {sorted(codes)} for {response.status_code}, not {code!r}."


@schemathesis.check
def accepted_as_described(ctx: Any, response: Any, case: Any) -> None:
    """What fits the schema is never refused as if it did not, but for text that no database stores."""
    is_as_described = case.meta is not None and case.meta.generation.mode.is_positive
    if is_as_described and response.status_code in {400, 415} and not is_without_messages(case):
        code, text = code_of(response, case), response.text[:500]
        is_storable = not any(words in response.text for words in UNSTORABLE)
        assert code not in MALFORMED or not is_storable, f"This fits the schema, and is refused as {code!r}: {text}"


@schemathesis.check
def rejected_as_described(ctx: Any, response: Any, case: Any) -> None:
    """What does not fit the schema is refused, but for parameters that then count as not given, or of which the last
    counts."""
    query = case.query or {}
    is_lenient = "limit" in query or any(value in ("", None) or isinstance(value, list) for value in query.values())
    if not is_lenient:
        negative_data_rejection(ctx, response, case)


def is_daphnes(response: Any) -> bool:
    """Return whether daphne refused the request before the site was asked, as it does with multipart bodies that are
    none."""
    is_multipart = str(response.request.headers.get("Content-Type")).startswith("multipart/")
    return is_multipart and response.status_code == 400 and not response.content


def is_without_messages(case: Any) -> bool:
    """Return whether a request to the chat has no ``messages``: what is needed then, the schema has no words for."""
    return case.operation.definition.raw["operationId"].startswith("chat") and not case.body.get("messages")


def code_of(response: Any, case: Any) -> str:
    """Return the code of an error."""
    try:
        return str(response.json()["code"])
    except (ValueError, KeyError, TypeError) as error:
        text = response.text[:500]
        raise Failure(operation=case.operation.label, title="An error without a code", message=text) from error
