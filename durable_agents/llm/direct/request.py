"""Decide whether a model call can be sent straight to the provider, without litellm, and build the HTTP request.

The table in ``providers`` lists the providers, settings and message parts that such direct calls support.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from durable_agents.conf import config
from durable_agents.exceptions import ErrorKind, ModelError
from durable_agents.llm.direct import anthropic_format, openai_format
from durable_agents.llm.direct.providers import (
    NO_KEY,
    OVERRIDDEN_SETTINGS,
    PROVIDERS,
    TRANSPORT_SETTINGS,
    Provider,
    openai_settings,
)
from durable_agents.llm.disable_claude_thinking import THINKING, must_not_think, without_thoughts
from durable_agents.llm.model_catalog import listed
from durable_agents.llm.types import MANY_MESSAGES, TOLD_TO_CONTINUE, ModelRequest
from durable_agents.llm.vendor_call_ids import fitted

CONNECT_SECONDS = 10.0


class NotDirectError(Exception):
    """The call cannot be made directly and must go through litellm. The message gives the reason."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """The provider of a model, and the name that the provider uses for the model."""

    name: str
    provider: Provider
    model: str
    settings: Mapping[str, str]
    """The names of the settings that the model takes, each mapped to the name of a field in the request."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """One HTTP request to a provider."""

    target: Target
    url: str
    headers: Mapping[str, str]
    data: bytes
    """The body of the request, encoded as JSON."""
    connect_seconds: float
    read_seconds: float | None
    """The number of seconds that the server may be silent. None means no limit."""


def target_of(model: str) -> Target:
    """Return the provider of the model, and the settings that the model takes.

    Raises NotDirectError if direct calls do not support the provider or the model.
    """
    name, _, rest = model.partition("/")
    if not rest:
        name, rest = str(listed(model).get("litellm_provider", "")), model
    provider = PROVIDERS.get(name)
    if provider is None:
        reason = f"provider {name!r} is not in the direct door's table" if name else "the provider is unknown"
        raise NotDirectError(reason)
    if listed(model).get("mode", "chat") != "chat":
        raise NotDirectError(f"model {rest!r} is not called through chat completions")
    settings = openai_settings(rest, is_listed=bool(listed(model))) if name == "openai" else provider.settings
    if settings is None:
        raise NotDirectError(f"model {rest!r} has special rules, which only litellm knows")
    return Target(name=name, provider=provider, model=rest, settings=settings)


def check(model: str, settings: Mapping[str, Any], tools: Sequence[Mapping[str, Any]] = ()) -> Target:
    """Return the provider of the model, and the settings that the model takes.

    Raises NotDirectError if direct calls do not support the provider, the model, a setting or a tool.
    """
    target = target_of(model)
    given = {name for name, value in settings.items() if value is not None}
    unknown = given - target.settings.keys() - TRANSPORT_SETTINGS - OVERRIDDEN_SETTINGS
    unknown |= set(_refused_values(target, model, settings))
    headers = {name.lower() for given in _given_headers(settings) for name in given}
    # For some providers, litellm prefers an Authorization header to the API key. Leave calls with this header to
    # litellm.
    if "authorization" in headers:
        raise NotDirectError("the direct door does not take an Authorization header")
    if unknown:
        names = ", ".join(sorted(unknown))
        raise NotDirectError(f"the settings {names} are not in the direct door's table for {target.name!r}")
    for tool in tools:
        if tool.get("type") != "function" and not (
            target.provider.format == "anthropic" and anthropic_format.is_hosted(tool)
        ):
            kind = tool.get("type")
            raise NotDirectError(f"tools of type {kind!r} are not in the direct door's table for {target.name!r}")
    return target


async def built(request: ModelRequest) -> Call:
    """Return the HTTP request for a model call, which ``call_of`` builds.

    For a long history, ``call_of`` runs in another OS thread, so that it does not block the event loop.
    """
    if len(request.messages) > MANY_MESSAGES:
        return await asyncio.to_thread(call_of, request)
    return call_of(request)


def call_of(request: ModelRequest) -> Call:
    """Return the HTTP request for a model call.

    Raises NotDirectError if the call must go through litellm. Raises ModelError if the API key or the provider's
    address is missing.
    """
    settings: dict[str, Any] = {name: value for name, value in request.settings.items() if value is not None}
    target = check(request.model, settings, request.tools)
    messages = [fitted(message, request.model) for message in request.messages]
    if must_not_think(request.model, settings, messages):
        settings = {name: value for name, value in settings.items() if name not in THINKING}
        messages = [without_thoughts(message) for message in messages]
    if messages and messages[-1]["role"] == "assistant" and target.name in TOLD_TO_CONTINUE:
        messages[-1]["prefix"] = True
    for message in messages:
        if (part := _unknown_part(message, target.provider)) is not None:
            raise NotDirectError(f"{part} is not in the direct door's table for {target.name!r}")
    if target.name == "moonshot" and listed(request.model).get("supports_reasoning"):
        for message in messages:
            if message.get("tool_calls") and not message.get("reasoning_content"):
                message["reasoning_content"] = " "  # Moonshot's thinking models refuse tool calls without this field
    fields = {wire: settings[name] for name, wire in target.settings.items() if name in settings}
    if target.provider.format == "anthropic":
        path = anthropic_format.PATH
        body = anthropic_format.body(request.model, target.model, messages, request.tools, fields)
    else:
        path = openai_format.PATH
        body = openai_format.body(target.provider, target.model, messages, request.tools) | fields
    timeout = settings.get("timeout")  # a number or an ``httpx.Timeout``
    connect, read = getattr(timeout, "connect", timeout), getattr(timeout, "read", timeout)
    if timeout is None:
        read = config().model_read_seconds
    return Call(
        target=target,
        url=_url(target, settings, path),
        headers=_headers(target, settings),
        data=_encoded(body | dict(settings.get("extra_body") or {})),
        connect_seconds=CONNECT_SECONDS if connect is None else float(connect),
        read_seconds=None if read is None else float(read),
    )


def _encoded(body: Mapping[str, Any]) -> bytes:
    """Return the body as JSON.

    Encode the messages one by one. Encoding a long history at once would block all other OS threads.
    """
    messages = ", ".join(json.dumps(message, ensure_ascii=False) for message in body["messages"])
    rest = json.dumps({name: value for name, value in body.items() if name != "messages"}, ensure_ascii=False)
    return f'{{"messages": [{messages}], {rest[1:]}'.encode("utf-8", "surrogatepass")


def _refused_values(target: Target, model: str, settings: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of settings that a direct call cannot send, because litellm has to translate their values."""
    if target.provider.format != "anthropic":
        if target.name == "mistral" and settings.get("tool_choice") not in (None, "auto", "none"):
            yield "tool_choice"
        if target.name == "mistral" and settings.get("response_format") is not None:
            yield "response_format"
        return
    if not listed(model).get("supports_reasoning"):
        yield from THINKING & settings.keys()
    is_adaptive = anthropic_format.thinks_adaptively(model)
    thinking = settings.get("thinking")
    if thinking is not None and (thinking == {"type": "adaptive"}) != is_adaptive:
        yield "thinking"
    if "thinking" in settings and "reasoning_effort" in settings:
        yield "reasoning_effort"
    if settings.get("reasoning_effort") not in (None, *anthropic_format.BUDGETS):
        yield "reasoning_effort"
    if is_adaptive:
        yield from {"temperature", "top_p", "top_k"} & settings.keys()
    # litellm sends ``extra_body`` to Anthropic as one field. A direct call would add each entry as a separate field, so
    # the two requests would differ.
    if "extra_body" in settings:
        yield "extra_body"


_ROLES = frozenset({"system", "user", "assistant", "tool"})
_FIELDS = frozenset({"role", "content", "tool_calls", "tool_call_id", "prefix"})
_OWN_FIELDS = {"openai": frozenset({"reasoning_content"}), "anthropic": frozenset({"thinking_blocks"})}
"""The message fields that contain reasoning, by API format. The reasoning is sent back to the provider that wrote it.
"""


def _unknown_part(message: Mapping[str, Any], provider: Provider) -> str | None:
    """Describe a role, field or part of the message that direct calls to the provider do not support.

    Return None if the whole message is supported.
    """
    role, content = message["role"], message.get("content")
    if role not in _ROLES:
        return f"the role {role!r}"
    for name in message.keys() - _FIELDS - _OWN_FIELDS[provider.format]:
        return f"the field {name!r} of a message"
    is_own_blocks = role == "assistant" and provider.format == "anthropic"
    if content is None or isinstance(content, str) or is_own_blocks:
        return None
    if role != "user" or not isinstance(content, list):
        return f"content of role {role!r} that is not a text"
    parts = (part for part in content if not _is_known_part(part, provider))
    return next((f"a part of type {part.get('type')!r}" for part in parts), None)


def _is_known_part(part: Mapping[str, Any], provider: Provider) -> bool:
    kind = part.get("type")
    if kind not in provider.parts or part.keys() - {"type", str(kind)}:
        return False
    if kind == "text" or provider.format != "anthropic":
        return True
    # A block for Anthropic contains the file itself, so only data URLs are supported.
    value = part[kind]
    url = value.get("url") or value.get("file_data") if isinstance(value, Mapping) else value
    return isinstance(url, str) and url.startswith("data:") and ";base64," in url


def _url(target: Target, settings: Mapping[str, Any], path: str) -> str:
    base = settings.get("base_url") or settings.get("api_base") or _variable(target.provider.base_variables)
    base = str(base or target.provider.base_url).rstrip("/")
    if not base:
        text = (
            f"Provider {target.name!r} has no address: set api_base, or {' or '.join(target.provider.base_variables)}."
        )
        raise ModelError(ErrorKind.INVALID_REQUEST, text, retryable=False)
    if target.name == "mistral" and not base.endswith("/v1"):
        base += "/v1"
    return base if base.endswith(path) else base + path


def _headers(target: Target, settings: Mapping[str, Any]) -> dict[str, str]:
    provider = target.provider
    key = settings.get("api_key") or _variable(provider.key_variables) or ("" if provider.needs_key else NO_KEY)
    if not key:
        text = f"Provider {target.name!r} has no key: set api_key, or {' or '.join(provider.key_variables)}."
        raise ModelError(ErrorKind.AUTH, text, retryable=False)
    made = {"Content-Type": "application/json", "Accept": "application/json"}
    if provider.format == "anthropic":
        made |= {"x-api-key": key, "anthropic-version": anthropic_format.VERSION}
    else:
        made["Authorization"] = f"Bearer {key}"
    for name, (variables, default) in provider.headers.items():
        if value := _variable(variables) or default:
            made[name] = value
    if organization := settings.get("organization"):
        made |= {"OpenAI-Organization": organization} if target.name == "openai" else {}
    given = {name: value for headers in _given_headers(settings) for name, value in headers.items()}
    kept = {
        name: value for name, value in made.items() if name.lower() not in {given_name.lower() for given_name in given}
    }
    return kept | {name: str(value) for name, value in given.items()}


def _given_headers(settings: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [settings.get(name) or {} for name in ("headers", "extra_headers")]


def _variable(names: Sequence[str]) -> str | None:
    return next((value for name in names if (value := os.environ.get(name))), None)
