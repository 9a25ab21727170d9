"""Translate the finish reasons of all providers.

litellm knows only a few finish reasons and treats all others as ``stop``. An incomplete answer can then look complete.
"""

from __future__ import annotations

import logging
from enum import StrEnum
from threading import Lock
from typing import TypeGuard

from durable_agents.logs import log


class Ending(StrEnum):
    """How an answer ended."""

    STOP = "stop"
    TOOL_CALLS = "tool_calls"
    LENGTH = "length"
    """The answer was cut off at a token limit."""
    CONTEXT_WINDOW = "context_window"
    """The answer was cut off at the end of the model's context window."""
    CONTENT_FILTER = "content_filter"
    """The answer was withheld or cut off because of its content, or the model refused to answer."""
    PAUSE = "pause"
    """The provider paused the answer, and continues it when the answer is sent back."""
    FAILED = "failed"
    """The provider ended the answer because of a failure; another attempt may succeed."""
    REFUSED = "refused"
    """The request was invalid; another attempt would end the same way."""


_WORDS = {
    Ending.STOP: (
        "stop end end_turn stop_sequence"  # sent by OpenAI, xAI, Anthropic, Bedrock, Cohere, TGI
        " complete"  # Cohere
        " eos eos_token"  # Together, Hugging Face TGI, watsonx
        " finish finished stop_criteria_met"  # Bedrock (Titan)
        " completed normal"  # OpenAI's Responses API, Qianfan
    ),
    Ending.TOOL_CALLS: (
        "tool_calls function_call"  # sent by OpenAI
        " tool_use"  # Anthropic, Bedrock
        " tool_call"  # Cohere
    ),
    Ending.LENGTH: (
        # Sent by OpenAI, DeepSeek, Groq, vLLM, llama.cpp, Ollama, Anthropic, Bedrock, Gemini, Cohere.
        "length max_tokens"
        " max_output_tokens"  # sent by OpenAI's Responses API
        " max_len limit"  # xAI (gRPC), llama.cpp
        " token_limit time_limit"  # watsonx, xAI
        " compaction"  # Anthropic (beta), with the setting pause_after_compaction
    ),
    Ending.CONTEXT_WINDOW: (
        "model_context_window_exceeded"  # sent by Anthropic, Bedrock, Zhipu
        " model_length"  # Mistral
        " max_context context_length_exceeded context_window_exceeded error_limit"  # xAI (gRPC), Cohere v1
    ),
    Ending.CONTENT_FILTER: (
        "content_filter refusal"  # sent by OpenAI, Azure, DeepSeek, Anthropic
        " content_filtered guardrail_intervened"  # Bedrock
        " safety recitation language blocklist prohibited_content spii other model_armor escalation"  # Gemini, Vertex
        " image_safety image_prohibited_content image_recitation image_other no_image"  # Gemini
        " error_toxic"  # Cohere v1
        " sensitive blacklist"  # Zhipu, GigaChat
    ),
    Ending.PAUSE: "pause_turn",  # sent by Anthropic after many calls of its own tools
    Ending.FAILED: (
        "error"  # sent by Mistral, OpenRouter, Cohere, vLLM, watsonx
        " insufficient_system_resource"  # DeepSeek
        " abort aborted cancelled canceled user_cancel timeout"  # vLLM, SGLang, watsonx, Cohere
        " network_error repetition unload"  # Zhipu, vLLM, Ollama
        " malformed_function_call unexpected_tool_call too_many_tool_calls malformed_response"  # Gemini
        " malformed_model_output malformed_tool_use"  # Bedrock
        " failed"  # OpenAI's Responses API
    ),
    Ending.REFUSED: "missing_thought_signature",  # sent by Gemini
}
"""The finish reasons of providers for each member of ``Ending``, in the form that ``normalized`` returns. Sources, in
November 2026:

OpenAI platform.openai.com/docs/api-reference/chat · Anthropic platform.claude.com/docs/en/api/handling-stop-reasons ·
Gemini ai.google.dev/api/generate-content#FinishReason, and Vertex's · Bedrock API_runtime_ConverseStream, StopReason in
botocore · Mistral docs.mistral.ai/api · DeepSeek api-docs.deepseek.com · Cohere docs.cohere.com/reference/chat ·
OpenRouter openrouter.ai/docs/api-reference/overview, and errors-and-debugging · xAI docs.x.ai, and its proto files ·
Groq console.groq.com/docs/api-reference · Zhipu docs.z.ai · watsonx cloud.ibm.com/apidocs/watsonx-ai · vLLM v1/engine
FinishReason · SGLang schedule_batch · TGI FinishReason · llama.cpp tools/server · Ollama docs/api.md.
"""
_MEANING = {word: ending for ending, words in _WORDS.items() for word in words.split()}
_PREFIXES = ("finishreason.", "finish_reason_", "reason_")
"""Prefixes that some servers add, because they send the name of an enumeration member instead of its value."""

_NOT_ENDED = frozenset({"", "null", "none", "not_finished", "unspecified"})
MAX_NOTED = 100
"""The maximum number of different unknown finish reasons that are logged per process."""
_noted: set[str] = set()
_noting = Lock()


def ending_of(word: str) -> Ending | None:
    """Return the meaning of a provider's finish reason, or None if it is unknown.

    Each unknown finish reason is logged once per process.
    """
    plain = normalized(word)
    if plain in _MEANING:
        return _MEANING[plain]
    with _noting:
        # Limit the number of logged values, because a server might send a new value with every answer.
        is_new = plain not in _noted and len(_noted) < MAX_NOTED
        if is_new:
            _noted.add(plain)
    if is_new:
        log(logging.WARNING, "unknown finish reason", action="finish_reason", finish_reason=plain[:64])
    return None


def is_word(value: object) -> TypeGuard[str]:
    """Return whether the value is a finish reason, which means that the answer has ended.

    Some servers send a finish reason with every chunk. Until the answer ends, this finish reason is null or a
    placeholder.
    """
    return isinstance(value, str) and normalized(value) not in _NOT_ENDED


def normalized(word: str) -> str:
    """Return the finish reason in lower case, with underscores and without the name of an enumeration.

    For example, ``MAX_TOKENS`` and ``FinishReason.MAX_TOKENS`` both become ``max_tokens``.
    """
    plain = word.strip().lower().replace("-", "_").replace(" ", "_")
    for prefix in _PREFIXES:
        plain = plain.removeprefix(prefix)
    return plain
