"""Estimate the tokens of a model call from the length of its texts.

A tokenizer would be too slow: litellm downloads some tokenizers, and others take half a second to load. An estimate is
used only if the provider reports no count.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from durable_agents.llm.types import ModelRequest

ASCII_PER_TOKEN = 4
"""Characters of English text per token (OpenAI: "one token generally corresponds to ~4 characters of text")."""
BYTES_PER_TOKEN = 3
"""UTF-8 bytes per token of text that is not ASCII: one Chinese character, or one and a half Cyrillic characters."""
MESSAGE_TOKENS = 4
"""Tokens that each message and each tool call costs in addition to its text (OpenAI's cookbook: three or four)."""
IMAGE_TOKENS = 1000
"""Tokens of an image of about a megapixel. OpenAI counts 85 to 1,105, Anthropic up to 1,600, and Google 258 per tile.
"""


def estimated_tokens(request: ModelRequest, answer: str) -> tuple[int, int]:
    """Return the estimated input and output tokens of a call. Audio and documents count as zero.

    This function neither blocks nor makes a request.
    """
    input_tokens = sum(map(_tokens_of_json, request.tools))
    for message in request.messages:
        input_tokens += MESSAGE_TOKENS + sum(map(_tokens_of_json, message.get("tool_calls") or ()))
        content = message.get("content")
        for block in [{"text": content}] if isinstance(content, str) else content or ():
            is_image = block.get("type") == "image_url"
            input_tokens += IMAGE_TOKENS if is_image else tokens_of(str(block.get("text") or ""))
    return input_tokens, tokens_of(answer)


def tokens_of(text: str) -> int:
    """Return an estimate of the number of tokens in the text."""
    plain = len(text.encode("ascii", "ignore"))
    other = len(text.encode("utf-8", "surrogatepass")) - plain
    return -(-plain // ASCII_PER_TOKEN) + -(-other // BYTES_PER_TOKEN)


def _tokens_of_json(value: Mapping[str, object]) -> int:
    return tokens_of(json.dumps(value, ensure_ascii=False, default=str))
