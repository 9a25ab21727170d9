"""The providers that are called directly, without litellm: their addresses, keys and supported settings.

A direct call sends the same request that litellm would send for the same model and settings. Tests in ``tests/llm``
compare the two requests. If a provider, setting or message part is not in this table, the call goes through litellm.

Sources, in November 2026: litellm's ``get_llm_provider_logic.py`` and ``llms/*/chat/transformation.py``, and the
providers' API references. These are platform.openai.com, docs.anthropic.com, docs.mistral.ai, console.groq.com,
api-docs.deepseek.com, openrouter.ai/docs, docs.x.ai, docs.vllm.ai, docs.together.ai, platform.moonshot.ai,
inference-docs.cerebras.ai and lmstudio.ai/docs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

NO_KEY = "fake-api-key"
"""The API key that is sent if a server needs no key and the project has configured no key. Some of these servers refuse
a request without a key.
"""


@dataclass(frozen=True, kw_only=True)
class Provider:
    """The address, keys, settings and format of one provider."""

    base_url: str = ""
    """The default address. It is used if neither a setting nor an environment variable contains an address. If the
    default is empty, the project must configure an address.
    """
    base_variables: tuple[str, ...]
    key_variables: tuple[str, ...]
    settings: Mapping[str, str]
    """The names of the settings that the provider takes, each mapped to the name of a field in the request."""
    format: Literal["openai", "anthropic"] = "openai"
    needs_key: bool = True
    parts: frozenset[str] = frozenset()
    """The part types that a user message for this provider can contain. If the set is empty, the message must be a
    plain string.
    """
    body: Mapping[str, Any] = field(default_factory=dict)
    """Fields that every request contains."""
    headers: Mapping[str, tuple[tuple[str, ...], str]] = field(default_factory=dict)
    """The headers of every request. Each name is mapped to the environment variables that can contain the value, and to
    a default value. A header without a value is not sent.
    """
    refused_schema_keys: frozenset[str] = frozenset()
    """Keys of a tool's JSON schema that the provider refuses; they are left out of the request."""


def _names(text: str, **renamed: str) -> Mapping[str, str]:
    return MappingProxyType({name: name for name in text.split()} | renamed)


_COMMON = "temperature top_p max_tokens tool_choice response_format"
_OPENAI = (
    f"{_COMMON} max_completion_tokens stop seed presence_penalty frequency_penalty n logit_bias logprobs top_logprobs "
    "parallel_tool_calls service_tier store prompt_cache_key safety_identifier"
)
_SAMPLING = "top_k min_p"
_USAGE = MappingProxyType({"stream_options": MappingProxyType({"include_usage": True})})
_IMAGES = frozenset({"text", "image_url"})

PROVIDERS: Mapping[str, Provider] = {
    "anthropic": Provider(
        format="anthropic",
        base_url="https://api.anthropic.com",
        base_variables=("ANTHROPIC_API_BASE", "ANTHROPIC_BASE_URL"),
        key_variables=("ANTHROPIC_API_KEY",),
        settings=_names(
            "temperature top_p top_k max_tokens stop tool_choice parallel_tool_calls thinking reasoning_effort",
            max_completion_tokens="max_tokens",
        ),
        parts=_IMAGES | {"file"},
    ),
    "cerebras": Provider(
        base_url="https://api.cerebras.ai/v1",
        base_variables=("CEREBRAS_API_BASE",),
        key_variables=("CEREBRAS_API_KEY",),
        settings=_names(f"{_COMMON} stop seed", max_completion_tokens="max_tokens"),
    ),
    "deepseek": Provider(
        base_url="https://api.deepseek.com/beta",
        base_variables=("DEEPSEEK_API_BASE",),
        key_variables=("DEEPSEEK_API_KEY",),
        settings=_names(f"{_OPENAI} {_SAMPLING}"),
        body=_USAGE,
    ),
    "groq": Provider(
        base_url="https://api.groq.com/openai/v1",
        base_variables=("GROQ_API_BASE",),
        key_variables=("GROQ_API_KEY",),
        settings=_names(
            "temperature top_p max_tokens tool_choice stop seed presence_penalty frequency_penalty n "
            "parallel_tool_calls service_tier",
            max_completion_tokens="max_tokens",
        ),
        parts=_IMAGES,
        body=_USAGE,
    ),
    "hosted_vllm": Provider(
        base_variables=("HOSTED_VLLM_API_BASE",),
        key_variables=("HOSTED_VLLM_API_KEY",),
        needs_key=False,
        settings=_names(f"{_OPENAI} {_SAMPLING}"),
        parts=_IMAGES,
        body=_USAGE,
    ),
    "lm_studio": Provider(
        base_variables=("LM_STUDIO_API_BASE",),
        key_variables=("LM_STUDIO_API_KEY",),
        needs_key=False,
        settings=_names(f"{_OPENAI} {_SAMPLING}"),
        parts=_IMAGES,
        body=_USAGE,
    ),
    "mistral": Provider(
        base_url="https://api.mistral.ai/v1",
        base_variables=("MISTRAL_AZURE_API_BASE",),
        key_variables=("MISTRAL_AZURE_API_KEY", "MISTRAL_API_KEY"),
        settings=_names(f"{_COMMON} stop parallel_tool_calls", max_completion_tokens="max_tokens", seed="random_seed"),
        refused_schema_keys=frozenset({"$id", "$schema"}),
    ),
    "moonshot": Provider(
        base_url="https://api.moonshot.ai/v1",
        base_variables=("MOONSHOT_API_BASE",),
        key_variables=("MOONSHOT_API_KEY",),
        settings=_names("top_p max_tokens stop seed response_format", max_completion_tokens="max_tokens"),
        body=_USAGE,
    ),
    "openai": Provider(
        base_url="https://api.openai.com/v1",
        base_variables=("OPENAI_BASE_URL", "OPENAI_API_BASE"),
        key_variables=("OPENAI_API_KEY",),
        settings=_names(f"{_OPENAI} {_SAMPLING}"),
        parts=_IMAGES | {"input_audio", "file"},
        body=_USAGE,
        headers={
            "OpenAI-Organization": (("OPENAI_ORGANIZATION", "OPENAI_ORG_ID"), ""),
            "OpenAI-Project": (("OPENAI_PROJECT_ID",), ""),
        },
    ),
    "openrouter": Provider(
        base_url="https://openrouter.ai/api/v1",
        base_variables=("OPENROUTER_API_BASE",),
        key_variables=("OPENROUTER_API_KEY", "OR_API_KEY"),
        settings=_names(f"{_OPENAI} {_SAMPLING} reasoning_effort provider models route transforms reasoning"),
        parts=_IMAGES,
        body=MappingProxyType({**_USAGE, "usage": MappingProxyType({"include": True})}),
        headers={
            "HTTP-Referer": (("OR_SITE_URL",), "https://litellm.ai"),
            "X-Title": (("OR_APP_NAME",), "liteLLM"),
        },
    ),
    "together_ai": Provider(
        base_url="https://api.together.ai/v1",
        base_variables=("TOGETHER_AI_API_BASE",),
        key_variables=("TOGETHER_API_KEY", "TOGETHER_AI_API_KEY", "TOGETHERAI_API_KEY", "TOGETHER_AI_TOKEN"),
        settings=_names(f"temperature top_p max_tokens stop seed n {_SAMPLING}"),
        body=_USAGE,
    ),
    "xai": Provider(
        base_url="https://api.x.ai/v1",
        base_variables=("XAI_API_BASE",),
        key_variables=("XAI_API_KEY",),
        settings=_names("temperature top_p max_tokens tool_choice response_format seed n"),
        parts=_IMAGES,
        body=_USAGE,
        refused_schema_keys=frozenset({"strict"}),
    ),
}

TRANSPORT_SETTINGS = frozenset(
    {"api_base", "base_url", "api_key", "timeout", "extra_headers", "headers", "extra_body", "organization"}
)
"""Settings that every provider takes. They are not fields of the request's body."""
OVERRIDDEN_SETTINGS = frozenset({"stream", "stream_options", "max_retries", "num_retries"})
"""Settings of the project that are ignored, because this package chooses their values itself."""

_REASONS = re.compile(r"gpt-5(?![0-9])")
_OF_RESPONSES_API = re.compile(r"^responses/|gpt-5\.[4-9]|gpt-[6-9]|codex|-pro\b|deep-research")
"""Matches OpenAI's models that litellm calls through the Responses API. For some of these models, litellm does so only
if the request has tools.
"""
_OF_OTHER_RULES = re.compile(r"^o\d|search|audio|realtime|gpt-5-chat|image|^ft:")
_REASONING_SETTINGS = _names(
    "max_completion_tokens seed n tool_choice response_format reasoning_effort service_tier store prompt_cache_key "
    "safety_identifier",
    max_tokens="max_completion_tokens",
)


def openai_settings(name: str, *, is_listed: bool) -> Mapping[str, str] | None:
    """Return the settings that this model of the provider ``openai`` takes.

    Return None if calls of the model must go through litellm. ``is_listed`` says whether the model is in litellm's
    list. An unlisted model is assumed to run on another server that uses OpenAI's format.
    """
    if _OF_RESPONSES_API.search(name) or _OF_OTHER_RULES.search(name):
        return None
    if _REASONS.match(name):
        return _REASONING_SETTINGS
    more = ("user",) if is_listed else ("reasoning_effort",)
    return {**PROVIDERS["openai"].settings, **{name: name for name in more}}
